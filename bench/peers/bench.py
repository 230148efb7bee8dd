#!/usr/bin/env python3
"""Measures gateways side by side in network namespaces. README.md says how to read the figures."""
import argparse
import fcntl
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

from accounting import cpu_of_tree, memory_of_tree
from lab import PREFIX, SRV, Lab, wait_for
from measure import build_blast, first_ping, highest_rate, iperf, ping
from peers import REGISTRY, Peer, load
from report import field, gateway_per_gb, machine_per_gb, median, merge, number, table

# Name, and the arguments of iperf3 on the client.
TESTS = {
    "tcp_down_1": ["-R"],
    "tcp_up_1": [],
    "tcp_down_4": ["-R", "-P", "4"],
    "tcp_up_4": ["-P", "4"],
    "udp1300_down": ["-u", "-l", "1300", "-b", "0", "-R"],
    "udp1300_up": ["-u", "-l", "1300", "-b", "0"],
    "udp64_down": ["-u", "-l", "64", "-b", "0", "-R"],
    "udp64_up": ["-u", "-l", "64", "-b", "0"],
}
RATE_BYTES = 64
# Share of a run that processes of others may take before it is called disturbed.
DISTURBED = 0.1


def log(*words: object) -> None:
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def bring_up(peer: Peer) -> float:
    """Starts both ends; ms from the client's start to the first ping reply."""
    peer.start_gateway()
    return connect(peer)


def connect(peer: Peer) -> float:
    answered = first_ping(peer.setup_timeout)
    began = time.monotonic()
    peer.start_client()
    when = answered()
    if when is None:
        raise RuntimeError(f"no ping reply within {peer.setup_timeout} s")
    peer.wait_ready()
    return (when - began) * 1e3


def run_peer(peer: Peer, args: argparse.Namespace, record: dict) -> None:
    """Every measurement of one peer, written into `record` as they come."""
    lab = peer.lab
    wire, lan = peer.wire or args.wire, peer.lan or args.lan
    record.update(wire=wire, lan=lan, gw_cpus=args.gw_cpus, cli_cpus=args.cli_cpus, secs=args.secs, tests={})
    lab.up(wire, lan)
    peer.prepare()
    setups = args.setups if peer.tunnel else 1
    for left in reversed(range(setups)):
        record["setup_ms"].append(bring_up(peer))
        if left:
            peer.stop()
            time.sleep(0.3)
    gateway = peer.gateway.pid if peer.gateway else None
    time.sleep(0.5)
    record.update(mem_idle=memory_of_tree(gateway), facts=peer.facts())
    log(peer.name, "up in", [round(ms, 1) for ms in record["setup_ms"]], "ms", record["facts"])
    record["ping"] = ping(lab, args.pings)
    wanted = re.compile(args.tests)
    for name, iperf_args in TESTS.items():
        if wanted.search(name) and not (peer.tcp_only and "-u" in iperf_args):
            record["tests"][name] = run_iperf(peer, name, iperf_args, args, gateway)
            tell(name, record)
    if not args.no_rate and not peer.tcp_only:
        blast = build_blast(lab)
        for direction in ("down", "up"):
            name = f"ndr{RATE_BYTES}_{direction}"
            if wanted.search(name):
                result = highest_rate(lab, blast, direction == "down", RATE_BYTES, gateway)
                record["tests"][name] = [result]
                log(f"  {name:13s}", {key: result[key] for key in ("pps", "loss", "gw_us_per_packet", "error") if key in result})
    record["mem_after"] = memory_of_tree(gateway)


def run_iperf(peer: Peer, name: str, iperf_args: list[str], args: argparse.Namespace, gateway: int | None) -> list[dict]:
    """A test's runs, each with a fresh server, since one that lost its client serves no other."""
    lab, runs = peer.lab, []
    for _ in range(args.runs):
        server = lab.spawn(SRV, ["iperf3", "-s"], "iperf3-server.log")
        wait_for(lambda: ":5201" in lab.run(SRV, "ss -Hltn"), 5, "iperf3 server")
        runs.append(iperf(lab, iperf_args, args.secs, gateway))
        lab.stop(server)
        if peer.gateway and peer.gateway.poll() is not None:
            raise RuntimeError(f"the gateway died in {name}")
    return runs


def tell(name: str, record: dict) -> None:
    good = [run for run in record["tests"][name] if "error" not in run]
    if not good:
        log(f"  {name:13s} FAILED", record["tests"][name])
        return
    foreign = max(run["foreign_cpu"] / run["wall"] for run in good)
    show: Callable = lambda value, digits=2: number(median(record, name, value), digits)
    log(f"  {name:13s} {show(field('gbps'), 3)} Gbit/s, gateway {show(gateway_per_gb)} s/GB, machine {show(machine_per_gb)} s/GB"
        + (f"  DISTURBED: others took {foreign:.0%} of a core" if foreign > DISTURBED else ""))


def count_connections(peer: Peer, args: argparse.Namespace, record: dict) -> None:
    """Gateway CPU of one client connection: clients one after another, each until its first ping reply."""
    lab = peer.lab
    lab.up(args.wire, "gso")
    peer.prepare()
    bring_up(peer)
    peer.stop_client()
    time.sleep(0.5)
    before = cpu_of_tree(peer.gateway.pid)
    for _ in range(args.count):
        record["setup_ms"].append(connect(peer))
        peer.stop_client()
    time.sleep(0.3)
    spent = cpu_of_tree(peer.gateway.pid) - before
    record["gw_cpu_ms_per_connection"] = spent.total * 1e3 / args.count
    log(peer.name, args.count, "connections:", round(record["gw_cpu_ms_per_connection"], 2), "ms gateway CPU each, set-up",
        round(statistics.median(record["setup_ms"]), 1), "ms")


def measure_all(args: argparse.Namespace, one: Callable[[Peer, argparse.Namespace, dict], None]) -> list[dict]:
    """Measures each peer with `one`; every record goes to the results file as soon as it is there."""
    out = Path(args.out)
    records = json.loads(out.read_text()) if out.exists() else []
    for name in args.peers.split(",") if args.peers else list(REGISTRY):
        lab = Lab(Path(args.work), args.gw_cpus, args.cli_cpus)
        peer = REGISTRY[name](lab)
        if not peer.available():
            log(name, "is not installed: skipped")
            continue
        record = dict(peer=name, time=time.time(), setup_ms=[])
        try:
            one(peer, args, record)
        except Exception as error:  # noqa: BLE001 - one peer's trouble does not end the comparison
            record["error"] = f"{type(error).__name__}: {error}"
            log(name, "ERROR", record["error"])
        finally:
            try:
                peer.stop()
            finally:
                lab.down()
            records.append(record)
            draft = out.with_suffix(".tmp")
            draft.write_text(json.dumps(records, indent=1))
            draft.replace(out)
    return records


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--plugins", action="append", default=[], help="more folders with plug-ins")
    measuring = argparse.ArgumentParser(add_help=False, parents=[shared])
    measuring.add_argument("--peers", default="", help="names, parted by commas; every installed one if not given")
    measuring.add_argument("--wire", default="nic", choices=["gso", "nic", "mtu"], help="the link to the client")
    measuring.add_argument("--gw-cpus", default="1")
    measuring.add_argument("--cli-cpus", default="0")
    measuring.add_argument("--work", default=os.path.join(tempfile.gettempdir(), "ringfort-peers"))
    measuring.add_argument("--out", required=True, help="results file; records are appended")
    run = commands.add_parser("run", parents=[measuring], help="throughput, CPU, latency, memory")
    run.add_argument("--lan", default="gso", choices=["gso", "nic", "mtu"], help="the link to the server")
    run.add_argument("--secs", type=int, default=4, help="length of one iperf3 run")
    run.add_argument("--runs", type=int, default=3, help="runs of each test; medians are shown")
    run.add_argument("--setups", type=int, default=3, help="connection set-ups timed")
    run.add_argument("--pings", type=int, default=500)
    run.add_argument("--tests", default="", help="regular expression over the test names")
    run.add_argument("--no-rate", action="store_true", help="skip the search for the highest UDP rate")
    conns = commands.add_parser("conns", parents=[measuring], help="gateway CPU of one client connection")
    conns.add_argument("--count", type=int, default=30)
    commands.add_parser("table", help="print results files").add_argument("files", nargs="+")
    commands.add_parser("list", parents=[shared], help="names of peers")
    commands.add_parser("cleanup", help="remove namespaces that a killed run left")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.command == "table":
        print(table(merge(record for name in args.files for record in json.loads(Path(name).read_text()))))
        return
    if args.command == "cleanup":
        Lab(Path(tempfile.gettempdir()), "0", "0").down()
        return
    load([Path(__file__).resolve().parent / "peers", *map(Path, args.plugins)])
    if args.command == "list":
        print("\n".join(REGISTRY))
        return
    for number_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number_, lambda *_: sys.exit(130))  # so that every `finally` tears down
    only = open(f"/run/{PREFIX}-bench.lock", "a")
    try:
        fcntl.flock(only, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another bench uses the {PREFIX}-* namespaces")
    if args.command == "conns":
        measure_all(args, count_connections)
    else:
        print(table(merge(record for record in measure_all(args, run_peer) if "tests" in record)))


if __name__ == "__main__":
    main()
