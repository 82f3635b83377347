"""A very large machine against a small one; see scripts/bench/scale."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tdxfs.server import is_mounted, unmount

SMALL, LARGE = "mixed", "huge"
NODES, TDX = "sys/devices/system/node", "sys/kernel/mm/tdx"
FILES = {
    "nodes online": f"{NODES}/online",
    "node capability": f"{NODES}/node1/x86/tdx_capable",
    "capable nodes": f"{NODES}/tdx_capable",
    "node meminfo": f"{NODES}/node1/meminfo",
    "dax size": "sys/bus/dax/devices/dax0.0/size",
    "dax capability": "sys/bus/dax/devices/dax0.0/x86/target_node_tdx_capable",
    "conflicts": f"{TDX}/conflicts/count",
    "one conflict": f"{TDX}/conflicts/conflict0/reason",
    "block state": "sys/devices/system/memory/memory9/state",
}
BLOCKS = "sys/devices/system/memory"
LIMITS = {"ready": 2.0, "one attribute": 1.5, "memory": 4.0}
"""What the large machine may cost, as a multiple of the small one."""


@contextmanager
def mounted(name: str) -> Iterator[tuple[Path, float]]:
    """A mount by the command, and the seconds until it was ready."""
    with tempfile.TemporaryDirectory(prefix="tdxfs-bench-") as place:
        root = Path(place)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tdxfs", "mount", name, root], check=True)
        os.stat(root / "sys")
        try:
            yield root, time.perf_counter() - start
        finally:
            if is_mounted(root):
                unmount(root)


def server_of(root: Path) -> int:
    """Pid of the server of a mount point."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(root) in (entry / "cmdline").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            continue
    raise RuntimeError(f"no server of {root}")


def memory(pid: int) -> float:
    """Resident bytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * 1024


def read(path: Path, times: int) -> float:
    """Seconds per open, read and close."""
    start = time.perf_counter()
    for _ in range(times):
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 4096)
        os.close(descriptor)
    return (time.perf_counter() - start) / times


def sample() -> dict[str, dict[str, float]]:
    """Every measurement of both machines, once, next to each other; reading bound to one CPU."""
    found: dict[str, dict[str, float]] = {SMALL: {}, LARGE: {}}
    with ExitStack() as stack:
        roots, pids = {}, {}
        for name, mine in found.items():
            roots[name], mine["ready"] = stack.enter_context(mounted(name))
            pids[name] = server_of(roots[name])
            mine["memory when ready"] = memory(pids[name])
        with bound(*pids.values()):
            for what, file in FILES.items():
                for name, mine in found.items():
                    mine[f"first: {what}"] = read(roots[name] / file, 1)
            again: dict[str, list[float]] = {SMALL: [], LARGE: []}
            for what, file in FILES.items():
                for _ in range(5):
                    for name, seconds in again.items():
                        seconds.append(read(roots[name] / file, 100))
                for name, mine in found.items():
                    mine[f"again: {what}"] = statistics.median(again[name][-5:])
            for name, mine in found.items():
                mine["one attribute"] = statistics.median(again[name])
                mine["memory"] = memory(pids[name])
        for name, mine in found.items():
            start = time.perf_counter()
            mine["blocks listed"] = sum(entry.startswith("memory") for entry in os.listdir(roots[name] / BLOCKS))
            mine["list of blocks"] = time.perf_counter() - start
            mine["memory after the list"] = memory(pids[name])
    return found


@contextmanager
def bound(*pids: int) -> Iterator[None]:
    """This process and `pids` on one CPU for the time of a ``with`` block."""
    cpus = os.sched_getaffinity(0)
    for pid in (0, *pids):
        os.sched_setaffinity(pid, {min(cpus)})
    try:
        yield
    finally:
        for pid in (0, *pids):
            os.sched_setaffinity(pid, cpus)


def shown(what: str, value: float) -> str:
    if what.startswith("memory"):
        return f"{value / (1 << 20):.1f} MiB"
    if what == "blocks listed":
        return f"{value:.0f}"
    return f"{value * 1e3:.1f} ms" if value > 1e-3 else f"{value * 1e6:.1f} us"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    rounds = parser.parse_args().rounds
    samples: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in (SMALL, LARGE)}
    for _ in range(rounds):
        for name, found in sample().items():
            for what, value in found.items():
                samples[name][what].append(value)
    medians = {name: {what: statistics.median(values) for what, values in samples[name].items()} for name in samples}
    print(f"{'':28}{SMALL:>14}{LARGE:>14}{'ratio':>8}")
    for what, small in medians[SMALL].items():
        large = medians[LARGE][what]
        print(f"{what:28}{shown(what, small):>14}{shown(what, large):>14}{large / small:8.2f}")
    print()
    for what, limit in LIMITS.items():
        ratio = medians[LARGE][what] / medians[SMALL][what]
        print(f"{'pass' if ratio < limit else 'FAIL'}  {what:14} {ratio:5.2f}  (under {limit})")
    count = medians[LARGE]["blocks listed"]
    print(f"{'pass' if count >= 1_000_000 else 'FAIL'}  {count:.0f} memory blocks listed (at least 1000000)")


if __name__ == "__main__":
    main()
