"""CPU seconds and memory of process trees, and the idle time of cores, from /proc."""
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

HZ = os.sysconf("SC_CLK_TCK")


@dataclass
class CpuUse:
    """CPU seconds so far. `total` counts nanoseconds where the kernel does; user and sys are in ticks of 10 ms."""
    user: float = 0.0
    sys: float = 0.0
    total: float = 0.0

    def __sub__(self, earlier: "CpuUse") -> "CpuUse":
        return CpuUse(self.user - earlier.user, self.sys - earlier.sys, self.total - earlier.total)


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name, the state first."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2:].split()


def pids() -> Iterable[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def process_tree(root: int) -> list[int]:
    """`root` and its live descendants."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        try:
            children.setdefault(int(stat_fields(pid)[1]), []).append(pid)
        except OSError:
            continue
    tree, todo = [], [root]
    while todo:
        pid = todo.pop()
        if os.path.exists(f"/proc/{pid}"):
            tree.append(pid)
        todo += children.get(pid, [])
    return tree


def cpu_of_tree(root: int | None) -> CpuUse:
    """A process with its threads, its live descendants and its reaped children. No process: zero."""
    use = CpuUse()
    for pid in process_tree(root) if root else []:
        try:
            field = stat_fields(pid)
            threads = [Path(f"/proc/{pid}/task/{tid}/schedstat").read_text() for tid in os.listdir(f"/proc/{pid}/task")]
        except OSError:
            continue
        reaped = (int(field[13]) + int(field[14])) / HZ
        use.user += (int(field[11]) + int(field[13])) / HZ
        use.sys += (int(field[12]) + int(field[14])) / HZ
        use.total += sum(int(thread.split()[0]) for thread in threads) / 1e9 + reaped
    return use


def foreign_cpu() -> float:
    """CPU seconds so far of every process that is neither ours nor a kernel thread: what disturbs a measurement."""
    ours, kthreadd, ticks = set(process_tree(os.getpid())), 2, 0
    for pid in pids():
        try:
            field = stat_fields(pid)
        except OSError:
            continue
        if pid not in ours and kthreadd not in (pid, int(field[1])):
            ticks += sum(map(int, field[11:15]))
    return ticks / HZ


def memory_of_tree(root: int | None) -> dict[str, float]:
    """Resident and proportional MB and threads of a process tree."""
    if root is None:
        return {}
    kib = dict(VmRSS=0, Pss=0, Threads=0)
    for pid in process_tree(root):
        for source in ("status", "smaps_rollup"):
            try:
                lines = Path(f"/proc/{pid}/{source}").read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                key, _, value = line.partition(":")
                if key in kib:
                    kib[key] += int(value.split()[0])
    return dict(rss_mb=kib["VmRSS"] / 1024, pss_mb=kib["Pss"] / 1024, threads=kib["Threads"])


def idle_seconds() -> dict[int, float]:
    """Idle seconds of each core so far. Busy time is wall time less this: the kernel counts idle time exactly, while its
    user, system and softirq columns are sampled by ticks and miss short bursts."""
    idle = {}
    for line in Path("/proc/stat").read_text().splitlines():
        core = re.match(r"cpu(\d+) (.*)", line)
        if core:
            field = core[2].split()
            idle[int(core[1])] = (int(field[3]) + int(field[4])) / HZ
    return idle
