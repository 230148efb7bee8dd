#!/usr/bin/env python3
"""System calls of a gateway per 1,000 frames that it handled: strace -c on it during a TCP transfer in each direction.

strace slows the gateway down: read the ratios, not the speed. A ring's operations are not system calls and are not seen;
one io_uring_enter may carry many.    syscalls.py PEER[,PEER] [--plugins DIR]
"""
import argparse
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from accounting import process_tree
from bench import bring_up
from lab import CLI, GW, SRV, SRV_LAN, Lab, wait_for
from peers import REGISTRY, Peer, load

TRACE_SECS = 1.5


def count_calls(lab: Lab, peer: Peer) -> dict[str, int]:
    """Calls by name within TRACE_SECS."""
    out = lab.work / "strace.out"
    attach = [word for pid in process_tree(peer.gateway.pid) for word in ("-p", str(pid))]
    strace = subprocess.Popen(["strace", "-f", "-c", "-o", out, *attach], stderr=subprocess.DEVNULL)
    time.sleep(TRACE_SECS)
    strace.send_signal(signal.SIGINT)
    strace.wait()
    rows = (line.split() for line in out.read_text().splitlines())
    return {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"}


def trace(peer: Peer) -> None:
    lab = peer.lab
    lab.up("nic", "gso")
    peer.prepare()
    bring_up(peer)
    lab.spawn(SRV, ["iperf3", "-s"], "iperf3-server.log")
    wait_for(lambda: ":5201" in lab.run(SRV, "ss -Hltn"), 5, "iperf3 server")
    for direction, args in (("down", ["-R"]), ("up", [])):
        transfer = lab.spawn(CLI, ["iperf3", "-c", SRV_LAN, "-t", "5", "-C", "cubic", *args], "iperf3-client.log")
        time.sleep(1)
        before = lab.device_counters(GW, "wan0")
        calls = count_calls(lab, peer)
        after = lab.device_counters(GW, "wan0")
        transfer.wait(10)
        frames = sum(after[key] - before[key] for key in ("txp", "rxp"))
        per_1000 = {name: round(count * 1000 / frames, 1) for name, count in sorted(calls.items(), key=lambda call: -call[1])}
        print(peer.name, direction, f"{sum(calls.values()) * 1000 / frames:.1f} calls per 1,000 frames of {frames}:",
              dict(list(per_1000.items())[:8]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers")
    parser.add_argument("--plugins", action="append", default=[])
    parser.add_argument("--work", default=os.path.join(tempfile.gettempdir(), "ringfort-peers"))
    args = parser.parse_args()
    load([Path(__file__).resolve().parent / "peers", *map(Path, args.plugins)])
    for name in args.peers.split(","):
        lab = Lab(Path(args.work), "1", "0")
        peer = REGISTRY[name](lab)
        try:
            trace(peer)
        finally:
            peer.stop()
            lab.down()


if __name__ == "__main__":
    main()
