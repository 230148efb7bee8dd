"""Three network namespaces and the processes in them.

    pb-cli ──wan0 (10.99.0.0/24)── pb-gw ──lan0 (10.98.0.0/24)── pb-srv        tunnel addresses: 10.97.0.0/24

Everything is called pb-*, so that a run after a crash first removes what is left. Needs root and iproute2.
"""
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Optional, Sequence, TypeVar

from accounting import process_tree

PREFIX = "pb"
CLI, GW, SRV = f"{PREFIX}-cli", f"{PREFIX}-gw", f"{PREFIX}-srv"
CLI_WAN, GW_WAN = "10.99.0.2", "10.99.0.1"
GW_LAN, SRV_LAN = "10.98.0.1", "10.98.0.2"
TUN_GW, TUN_CLI = "10.97.0.1", "10.97.0.2"
LAN_NET, TUN_NET = "10.98.0.0/24", "10.97.0.0/24"

# What a link does to large frames. "gso": veth as it comes, frames of 64 KiB cross whole, which flatters. "nic": the
# sender's kernel cuts to the MTU and the receiver has GRO, as with a plain network card. "mtu": cut and no GRO.
WIRES = {
    "gso": ("tso on", "gso on", "tx-udp-segmentation on", "gro off"),
    "nic": ("tso off", "gso off", "tx-udp-segmentation off", "gro on"),
    "mtu": ("tso off", "gso off", "tx-udp-segmentation off", "gro off"),
}

T = TypeVar("T")


def sh(command: str, check: bool = True) -> str:
    """Runs a shell command and returns what it printed."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(probe: Callable[[], T], timeout: float, what: str, step: float = 0.02) -> T:
    """Calls `probe` until it returns something true; an exception counts as not yet."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            value = probe()
        except Exception:  # noqa: BLE001 - the thing that is waited for may fail in any way before it is there
            value = None
        if value:
            return value
        time.sleep(step)
    raise TimeoutError(f"no {what} within {timeout} s")


class Lab:
    """The namespaces, and every process that was started in them."""

    def __init__(self, work: Path, gateway_cpus: str, client_cpus: str):
        self.work, self.gateway_cpus, self.client_cpus = work, gateway_cpus, client_cpus
        self.processes: list[subprocess.Popen] = []
        work.mkdir(parents=True, exist_ok=True)

    def up(self, wan: str, lan: str) -> None:
        """Builds the namespaces; `wan` and `lan` are keys of WIRES."""
        self.down()
        for ns in (CLI, GW, SRV):
            sh(f"ip netns add {ns} && ip -n {ns} link set lo up")
        sh(f"ip link add wan0 netns {CLI} type veth peer name wan0 netns {GW}")
        sh(f"ip link add lan0 netns {GW} type veth peer name lan0 netns {SRV}")
        for ns, device, address, wire in (
            (CLI, "wan0", CLI_WAN, wan), (GW, "wan0", GW_WAN, wan), (GW, "lan0", GW_LAN, lan), (SRV, "lan0", SRV_LAN, lan),
        ):
            self.ip(ns, f"addr add {address}/24 dev {device}")
            self.ip(ns, f"link set {device} up")
            for option in WIRES[wire]:
                self.run(ns, f"ethtool -K {device} {option}", check=False)
        self.ip(SRV, f"route add default via {GW_LAN}")
        for ns in (CLI, GW, SRV):
            self.run(ns, "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 "
                         "net.ipv4.conf.default.rp_filter=0 net.ipv6.conf.all.disable_ipv6=1")

    def down(self) -> None:
        """Ends every process and removes the namespaces, also those of an earlier run."""
        for process in reversed(self.processes[:]):
            self.stop(process)
        for ns in (CLI, GW, SRV):
            for pid in sh(f"ip netns pids {ns} 2>/dev/null", check=False).split():
                kill(int(pid))
            sh(f"ip netns del {ns} 2>/dev/null", check=False)

    def spawn(self, ns: str, argv: Sequence[object], log: str) -> subprocess.Popen:
        """Starts a process on the cores of its side; its output goes to `log` in the work folder."""
        cpus = self.gateway_cpus if ns == GW else self.client_cpus
        command = ["ip", "netns", "exec", ns, "taskset", "-c", cpus, *map(str, argv)]
        path = self.work / log
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.work,
                                       start_new_session=True)
        self.processes.append(process)
        return process

    def stop(self, process: Optional[subprocess.Popen]) -> None:
        """Ends a process, first kindly, and whatever it started."""
        if process is None:
            return
        tree = process_tree(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in tree:
            kill(pid)
        if process in self.processes:
            self.processes.remove(process)

    def ip(self, ns: str, command: str, check: bool = True) -> str:
        return sh(f"ip -n {ns} {command}", check)

    def run(self, ns: str, command: str, check: bool = True) -> str:
        return sh(f"ip netns exec {ns} {command}", check)

    def tunnel_device(self) -> str:
        """The client's device towards the server behind the gateway."""
        return re.search(r" dev (\S+)", self.ip(CLI, f"route get {SRV_LAN}"))[1]

    def tunnel_mtu(self) -> int:
        return int(re.search(r"mtu (\d+)", self.ip(CLI, f"link show {self.tunnel_device()}"))[1])

    def device_counters(self, ns: str, device: str) -> dict[str, int]:
        """Frames and bytes of a device: rxp, rxb, txp, txb."""
        for line in self.run(ns, "cat /proc/net/dev").splitlines():
            name, _, counters = line.strip().partition(":")
            if name == device:
                field = counters.split()
                return dict(rxb=int(field[0]), rxp=int(field[1]), txb=int(field[8]), txp=int(field[9]))
        raise KeyError(device)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
