"""The measurements: one iperf3 run, one search for the highest UDP rate, one series of pings, the first ping reply.

Each returns a dictionary for the results file; a failed one holds `error`.
"""
import ctypes
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Optional

from accounting import cpu_of_tree, foreign_cpu, idle_seconds
from lab import CLI, GW, SRV, SRV_LAN, Lab

HERE = Path(__file__).resolve().parent
CLONE_NEWNET = 0x40000000
BLAST_PORT = 7000
# Loss up to which a rate counts as carried.
LOSS_MAX = 0.01


class Meter:
    """CPU of the gateway's process, of all cores and of strangers, between start and `stop`."""

    def __init__(self, gateway: Optional[int]):
        self.gateway = gateway
        self.begin = (time.monotonic(), cpu_of_tree(gateway), idle_seconds(), foreign_cpu())

    def stop(self) -> dict:
        began, cpu, idle, foreign = self.begin
        wall, used, now = time.monotonic() - began, cpu_of_tree(self.gateway) - cpu, idle_seconds()
        busy = {core: max(wall - (now[core] - idle[core]), 0) for core in now}
        return dict(wall=wall, gw_user=used.user, gw_sys=used.sys, gw_cpu=used.total, core_busy=busy,
                    foreign_cpu=foreign_cpu() - foreign)


def per_packet_us(cost: dict, packets: int) -> Optional[float]:
    """Gateway CPU per packet; None without a gateway process."""
    return cost["gw_cpu"] / packets * 1e6 if cost["gw_cpu"] and packets else None


def iperf(lab: Lab, args: list[str], secs: int, gateway: Optional[int]) -> dict:
    """One iperf3 run through the tunnel. TCP is cubic, whatever the machine's default."""
    congestion = [] if "-u" in args else ["-C", "cubic"]
    command = ["ip", "netns", "exec", CLI, "taskset", "-c", lab.client_cpus, "iperf3", "-c", SRV_LAN, "-J", "-t", str(secs),
               "--connect-timeout", "3000", *congestion, *args]
    # What the gateway sent on is what it handled itself, whoever received it.
    sent_on = "wan0" if "-R" in args else "lan0"
    before, meter = lab.device_counters(GW, sent_on), Meter(gateway)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=secs + 15)
    except subprocess.TimeoutExpired:
        return dict(error="timeout")
    cost, after = meter.stop(), lab.device_counters(GW, sent_on)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        return dict(error=(done.stdout + done.stderr)[:300])
    if "error" in report:
        return dict(error=report["error"])
    end = report["end"]
    if "-u" in args:
        total = end["sum"]
        packets, seconds = total.get("packets", 0), total["seconds"]
        received = max(packets - total.get("lost_packets", 0), 0)
        traffic = dict(bytes=received * int(args[args.index("-l") + 1]), pps=received / seconds,
                       loss=1 - received / packets if packets else 0)
    else:
        seconds = end["sum_received"]["seconds"]
        traffic = dict(bytes=end["sum_received"]["bytes"], retransmits=end.get("sum_sent", {}).get("retransmits"))
    packets_on = after["txp"] - before["txp"]
    return dict(**traffic, **cost, gbps=traffic["bytes"] * 8 / seconds / 1e9, gw_pps=packets_on / cost["wall"],
                gw_us_per_packet=per_packet_us(cost, packets_on))


def build_blast(lab: Lab) -> Path:
    """The UDP generator, compiled into the work folder."""
    binary = lab.work / "blast"
    subprocess.run(["cc", "-O2", "-o", binary, HERE / "blast.c"], check=True)
    return binary


def blast(lab: Lab, binary: Path, down: bool, size: int, secs: float, rate: float) -> dict:
    """One paced UDP run: packets sent and received, share lost."""
    def start(ns: str, *args: object) -> subprocess.Popen:
        command = ["ip", "netns", "exec", ns, "taskset", "-c", lab.client_cpus, str(binary), *map(str, args)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    # Downwards the sender waits for a packet of the receiver, so that the firewall sees a flow begun by the client.
    if down:
        first = start(SRV, "hello-send", BLAST_PORT, size, secs, rate)
        time.sleep(0.05)
        second = start(CLI, "hello-recv", SRV_LAN, BLAST_PORT, secs)
        sender, receiver = first, second
    else:
        receiver = start(SRV, "recv", BLAST_PORT, secs)
        time.sleep(0.05)
        sender = start(CLI, "send", SRV_LAN, BLAST_PORT, size, secs, rate)
    try:
        got = json.loads(receiver.communicate(timeout=secs + 8)[0])
        gave = json.loads(sender.communicate(timeout=secs + 8)[0])
    finally:
        for process in (receiver, sender):
            if process.poll() is None:
                process.kill()
                process.wait()
    return dict(sent=gave["sent"], received=got["received"], loss=1 - got["received"] / max(gave["sent"], 1),
                pps=got["received"] / max(gave["secs"], 1e-3))


def highest_rate(lab: Lab, binary: Path, down: bool, size: int, gateway: Optional[int], secs: float = 0.5) -> dict:
    """Highest UDP rate with at most LOSS_MAX lost, by halving, then a longer run there for the CPU, which must hold it."""
    low, high, rate, steps = 0.0, None, 40_000.0, []
    for _ in range(9):
        run = blast(lab, binary, down, size, secs, rate)
        steps.append((int(rate), round(run["pps"]), round(run["loss"], 4)))
        if run["loss"] <= LOSS_MAX and run["sent"] >= 0.97 * rate * secs:
            low = rate
        else:
            high = rate
        if high is None:
            rate *= 2
        elif high - low < 0.06 * high:
            break
        else:
            rate = (low + high) / 2
    if not low:
        return dict(error="loss at every rate", steps=steps)
    meter = Meter(gateway)
    run = blast(lab, binary, down, size, 2 * secs, low * 0.97)
    cost = meter.stop()
    if run["loss"] > 2 * LOSS_MAX:
        return dict(error=f"the rate that was found lost {run['loss']:.0%} in the longer run", steps=steps)
    return dict(**cost, pps=run["pps"], loss=run["loss"], gbps=run["pps"] * size * 8 / 1e9, steps=steps,
                gw_us_per_packet=per_packet_us(cost, run["received"]))


def ping(lab: Lab, count: int) -> dict:
    """Round trips of an idle tunnel, in ms."""
    text = lab.run(CLI, f"taskset -c {lab.client_cpus} ping -n -q -i 0.01 -c {count} {SRV_LAN}", check=False)
    times, loss = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", text), re.search(r"([\d.]+)% packet loss", text)
    if not times or not loss:
        return dict(error=text[-200:])
    return dict(min=float(times[1]), avg=float(times[2]), max=float(times[3]), loss=float(loss[1]))


def first_ping(timeout: float) -> Callable[[], Optional[float]]:
    """Begins at once to ask the server from the client's namespace, every 2 ms; the function returned waits for the answer
    and tells when it came (monotonic seconds), or None."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answered = ask_until_answered(timeout)
            if answered is not None:
                os.write(writer, repr(answered).encode())
        finally:
            os._exit(0)
    os.close(writer)

    def result() -> Optional[float]:
        text = os.read(reader, 64)
        os.close(reader)
        os.waitpid(child, 0)
        return float(text) if text else None

    return result


def ask_until_answered(timeout: float) -> Optional[float]:
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/run/netns/{CLI}", os.O_RDONLY)
    if libc.setns(namespace, CLONE_NEWNET):
        print("cannot enter the client's namespace", file=sys.stderr)
        return None
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.settimeout(0.002)
    ident, sequence, end = os.getpid() & 0xFFFF, 0, time.monotonic() + timeout
    while time.monotonic() < end:
        sequence = (sequence + 1) & 0xFFFF
        try:
            raw.sendto(echo_request(ident, sequence), (SRV_LAN, 0))
            while True:
                packet, source = raw.recvfrom(256)
                if source[0] == SRV_LAN and packet[20] == 0 and struct.unpack("!H", packet[24:26])[0] == ident:
                    return time.monotonic()
        except TimeoutError:
            continue
        except OSError:  # no route yet
            time.sleep(0.002)
    return None


def echo_request(ident: int, sequence: int) -> bytes:
    payload = b"x" * 16
    packet = struct.pack("!BBHHH", 8, 0, 0, ident, sequence) + payload
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", 8, 0, checksum, ident, sequence) + payload
