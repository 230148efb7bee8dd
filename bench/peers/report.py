"""Joins records of the results file and prints them as Markdown tables."""
import statistics
from typing import Callable, Iterable, Optional

Record = dict


def merge(records: Iterable[Record]) -> list[Record]:
    """One record for each peer and wire: of several (a run of some tests only, a rerun) the later value wins, test by
    test, unless it is an error."""
    merged: dict[tuple, Record] = {}
    for record in records:
        key = (record["peer"], record["wire"])
        earlier = merged.get(key)
        if earlier:
            good = {name: runs for name, runs in record["tests"].items() if any("error" not in run for run in runs)}
            known = {name: value for name, value in record.items() if value or name == "error"}
            record = {**earlier, **known, "tests": {**earlier["tests"], **good},
                      "setup_ms": earlier["setup_ms"] + record["setup_ms"]}
        merged[key] = record
    return list(merged.values())


def gateway_per_gb(run: dict, _: Record) -> Optional[float]:
    return run["gw_cpu"] / (run["bytes"] / 1e9) if run.get("bytes") and run["gw_cpu"] else None


def gateway_core_per_gb(run: dict, record: Record) -> Optional[float]:
    cores = record["gw_cpus"].split(",")
    busy = sum(seconds for core, seconds in run["core_busy"].items() if str(core) in cores)
    return busy / (run["bytes"] / 1e9) if run.get("bytes") else None


def machine_per_gb(run: dict, _: Record) -> Optional[float]:
    return sum(run["core_busy"].values()) / (run["bytes"] / 1e9) if run.get("bytes") else None


def field(name: str, scale: float = 1.0) -> Callable[[dict, Record], Optional[float]]:
    return lambda run, _: run[name] * scale if run.get(name) is not None else None


def median(record: Record, test: str, value: Callable[[dict, Record], Optional[float]]) -> Optional[float]:
    """The median over the good runs of a test."""
    runs = [value(run, record) for run in record["tests"].get(test, []) if "error" not in run]
    known = [run for run in runs if run is not None]
    return statistics.median(known) if known else None


def number(value: Optional[float], digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def pair(record: Record, first: str, second: str, value: Callable, digits: int = 2) -> str:
    return " / ".join(number(median(record, test, value), digits) for test in (first, second))


BULK = [
    ("down, 1 / 4 streams, Gbit/s", "tcp_down_1", "tcp_down_4", field("gbps"), 2),
    ("up, 1 / 4", "tcp_up_1", "tcp_up_4", field("gbps"), 2),
    ("gateway process s/GB, down / up", "tcp_down_1", "tcp_up_1", gateway_per_gb, 2),
    ("gateway core s/GB, down / up", "tcp_down_1", "tcp_up_1", gateway_core_per_gb, 2),
    ("whole machine s/GB, down / up", "tcp_down_1", "tcp_up_1", machine_per_gb, 2),
    ("UDP 1300 B flood received Gbit/s, down / up", "udp1300_down", "udp1300_up", field("gbps"), 2),
]
PACKETS = [
    ("UDP 64 B at ≤ 1 % loss, kpps, down / up", "ndr64_down", "ndr64_up", field("pps", 1e-3), 0),
    ("its gateway µs per packet", "ndr64_down", "ndr64_up", field("gw_us_per_packet"), 2),
    ("UDP 64 B flood received, kpps, down / up", "udp64_down", "udp64_up", field("pps", 1e-3), 0),
]


def table(records: Iterable[Record]) -> str:
    """Two tables: bulk transfer, then small packets, latency and memory. Medians over the runs."""
    records = list(records)
    lines = row("peer", "wire", *(column[0] for column in BULK)) + row(*["--"] * (len(BULK) + 2))
    for record in records:
        cells = [pair(record, *column[1:]) for column in BULK]
        lines += row(record["peer"], record["wire"], *cells) + ([f"{record['peer']}: {record['error']}"] if record.get("error") else [])
    more = ("ping min / avg ms", "set-up ms", "gateway RSS MB idle / after", "threads", "cipher, MTU, version")
    lines += [""] + row("peer", *(column[0] for column in PACKETS), *more) + row(*["--"] * (len(PACKETS) + 1 + len(more)))
    for record in records:
        idle, after = record.get("mem_idle", {}), record.get("mem_after", {})
        trip, facts = record.get("ping", {}), record.get("facts", {})
        setup = statistics.median(record["setup_ms"]) if record["setup_ms"] else None
        lines += row(
            record["peer"], *(pair(record, *column[1:]) for column in PACKETS),
            f"{number(trip.get('min'), 3)} / {number(trip.get('avg'), 3)}", number(setup, 0),
            f"{number(idle.get('rss_mb'), 1)} / {number(after.get('rss_mb'), 1)}", str(after.get("threads", "–")),
            ", ".join(str(facts[name]) for name in ("cipher", "mtu", "version") if facts.get(name)),
        )
    return "\n".join(lines)


def row(*cells: str) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]
