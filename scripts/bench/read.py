"""Reading through a mount, against C, naive fusepy and plain files; see scripts/bench/read.

Bound to one CPU, client and server never run at once: what both of them run is the time it takes, and other
load on the machine does not count. Free, it is the time that passes, which is what a user sees.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import floor
from attrs import define, frozen

from tdxfs.boot import boot
from tdxfs.formats.export import export
from tdxfs.model import GIB, MIB, Cpu, DaxDevice, DaxRegion, Memory, Node, Provider, TdxPlatform, Topology
from tdxfs.ranges import Range
from tdxfs.root import Root
from tdxfs.server import launch, stop
from tdxfs.tree import Tree

HERE = Path(__file__).resolve().parent
BLOCK = 128 * MIB
FLOOR, NAIVE, PLAIN, OURS = "C", "fusepy", "plain", "tdxfs"
SYSTEMS = (OURS, FLOOR, NAIVE, PLAIN)
FILES = (
    "devices/system/node/online",
    "devices/system/node/node1/distance",
    "devices/system/node/node2/x86/tdx_capable",
    "devices/system/node/tdx_incapable",
    "devices/system/memory/block_size_bytes",
    "devices/system/memory/memory50/state",
    "devices/system/memory/memory170/x86/tdx_capable",
    "bus/dax/devices/dax7.0/size",
    "bus/dax/devices/dax8.0/target_node",
    "kernel/mm/tdx/conflicts/count",
)
"""What a monitoring agent would read."""
MEMORY, DEVICES = "devices/system/memory", "devices/platform"


@frozen
class Goal:
    """A ratio of medians that must not be exceeded."""

    measure: str
    binding: str
    limit: float
    against: str = FLOOR
    faster: bool = False
    """Whether `against` must take at least `limit` times as long as tdxfs, not the other way round."""


GOALS = (
    Goal("w1", "bound", 1.2),
    Goal("wcat", "bound", 1.25),
    Goal("cold", "bound", 1.2),
    Goal("miss", "bound", 1.2),
    Goal("walk", "bound", 1.2),
    Goal("find", "free", 1.1),
    Goal("ls -lR", "free", 1.1),
    Goal("grep -r", "free", 1.1),
    Goal("four readers", "free", 1.2),
    Goal("w1", "bound", 1.8, NAIVE, faster=True),
)


def machine(blocks: int) -> Topology:
    """Four nodes with `blocks` memory blocks, a hundred dax devices: some 20,000 files when `blocks` is 1,000."""
    each = blocks // 4 * BLOCK
    dax = blocks * BLOCK + 64 * GIB
    return Topology(
        name="bench",
        cpus=tuple(Cpu(number, node=number % 4, core=number) for number in range(8)),
        nodes=tuple(Node(nid, (Memory(Range(nid * each, (nid + 1) * each)),)) for nid in range(4)),
        dax_regions=tuple(
            DaxRegion(number, Provider.HMEM, where, target_node=number % 4, devices=(DaxDevice(0, (where,)),))
            for number in range(100)
            for where in [Range(dax + number * GIB, dax + (number + 1) * GIB)]
        ),
        tdx=TdxPlatform(cmrs=(Range(MIB, blocks * BLOCK * 3 // 4),)),
    )


@define
class Mount:
    """A mounted system, or the plain directory."""

    root: Path
    server: int = 0
    """Pid; 0: none."""

    def ran(self) -> int:
        """Nanoseconds that the server has run, all its threads together."""
        # clock_getcpuclockid(3), which Python lacks
        return time.clock_gettime_ns((~self.server << 3) | 2) if self.server else 0


@define
class Bench:
    """What all measurements share."""

    topology: Topology
    work: Path
    plain: Path
    blocks: int
    effort: int
    """How often each file is read for one sample."""
    bound: bool = False
    """Whether clients and servers are on one CPU."""
    serial: int = 0

    def client(self, mount: Mount, *arguments: object, paths: list[str] | None = None) -> float:
        """Nanoseconds per operation of one run of the C client."""
        text = "".join(f"{path}\n" for path in paths or [])
        before = mount.ran()
        done = subprocess.run(
            [self.work / "client", *map(str, arguments)], input=text, capture_output=True, text=True, check=True
        )
        passed, ran, count = map(int, done.stdout.split())
        return (ran + mount.ran() - before if self.bound else passed) / max(count, 1)

    def tool(self, mount: Mount, command: str) -> float:
        """Nanoseconds that an unmodified tool takes."""
        start, before, children = time.perf_counter_ns(), mount.ran(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        passed, after = time.perf_counter_ns() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        return ran * 1e9 + mount.ran() - before if self.bound else passed

    def parallel(self, mount: Mount) -> float:
        """Nanoseconds per file while four clients read."""
        paths = "".join(f"{mount.root}/sys/{file}\n" for file in FILES).encode()
        start, before = time.perf_counter_ns(), mount.ran()
        readers = [
            subprocess.Popen(
                [self.work / "client", "w1", str(self.effort)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(4)
        ]
        ran = sum(int(reader.communicate(paths)[0].split()[1]) for reader in readers)
        passed = time.perf_counter_ns() - start
        return (ran + mount.ran() - before if self.bound else passed) / (4 * self.effort * len(FILES))

    def cold_names(self, root: Path) -> list[str]:
        return [f"{root}/sys/{MEMORY}/memory{number}{rest}" for number in range(self.blocks) for rest in ("", "/state")]

    def absent_names(self, root: Path) -> list[str]:
        self.serial += 1
        places = (MEMORY, "devices/system/node/node0", "bus/dax/devices", "devices/system/memory/memory1")
        return [f"{root}/sys/{place}/absent{self.serial}-{number}" for number in range(500) for place in places]


Measure = Callable[[Bench, Mount], float]


def reads(what: str) -> Measure:
    """A measurement of the client on `FILES`."""
    return lambda bench, mount: bench.client(
        mount, what, bench.effort, paths=[f"{mount.root}/sys/{file}" for file in FILES]
    )


def tool(command: str) -> Measure:
    """A measurement of an unmodified tool on a directory below ``sys``."""
    return lambda bench, mount: bench.tool(mount, command.format(f"{mount.root}/sys"))


def walk(bench: Bench, mount: Mount) -> float:
    return bench.client(mount, "walk", mount.root / "sys")


MEASURES: dict[str, tuple[str, Measure]] = {
    "cold": ("us", lambda bench, mount: bench.client(mount, "stat", 1, paths=bench.cold_names(mount.root))),
    "ls -l 1000": ("ms", tool("ls -l {}/bus/memory/devices")),
    "walk": ("us", walk),
    "walk again": ("us", walk),
    "miss": ("us", lambda bench, mount: bench.client(mount, "miss", 1, paths=bench.absent_names(mount.root))),
    "w1": ("us", reads("w1")),
    "wcat": ("us", reads("wcat")),
    "pread": ("us", reads("pread")),
    "find": ("ms", tool(f"find {{}}/{DEVICES}")),
    "ls -lR": ("ms", tool(f"ls -lR {{}}/{DEVICES}")),
    "grep -r": ("ms", tool(f"grep -r nothing {{}}/{DEVICES}")),
    "four readers": ("us", lambda bench, mount: bench.parallel(mount)),
}
"""In this order on a fresh mount: what must be cold comes first. Per file of a walk, per operation, or in all."""


@contextmanager
def served(bench: Bench, system: str) -> Iterator[Mount]:
    """A fresh mount of one system."""
    if system == PLAIN:
        yield Mount(bench.plain)
        return
    with tempfile.TemporaryDirectory(prefix="tdxfs-bench-") as temporary, tempfile.TemporaryFile() as errors:
        root = Path(temporary)
        if system != OURS:
            naive = [sys.executable, HERE / "naive.py", bench.plain, root]
            command = floor.command(bench.work, bench.plain, root) if system == FLOOR else naive
            with floor.served(command, root, errors) as pid:
                yield Mount(root, pid)
            return
        server = launch(bench.topology, root, errors)
        try:
            yield Mount(root, server.pid)
        finally:
            stop(server, root)


def measure(bench: Bench, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Samples per measure and system; all systems are mounted at once and measured next to each other."""
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds):
        print(f"\r{number + 1}/{rounds} ", end="", file=sys.stderr, flush=True)
        with ExitStack() as stack:
            mounts = {system: stack.enter_context(served(bench, system)) for system in SYSTEMS}
            for name, (_, run) in MEASURES.items():
                for system in random.sample(SYSTEMS, len(SYSTEMS)):
                    samples[name, system].append(run(bench, mounts[system]))
    print("\r", end="", file=sys.stderr)
    return samples


def table(binding: str, medians: dict[tuple[str, str], float]) -> None:
    """Medians, and their ratios to the floor."""
    print(f"\n{binding:14}" + "".join(f"{system:>18}" for system in SYSTEMS) + "   (ratio to C)")
    for name, (unit, _) in MEASURES.items():
        floor = medians[name, FLOOR]
        scale = {"us": 1e3, "ms": 1e6}[unit]
        cells = (f"{medians[name, s] / scale:8.1f} {unit} {medians[name, s] / floor:5.2f}" for s in SYSTEMS)
        print(f"{name:14}" + "".join(f"{cell:>18}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each kind (default 7)")
    parser.add_argument("--quick", action="store_true", help="a smaller tree and three rounds")
    arguments = parser.parse_args()
    rounds, blocks, effort = (3, 200, 50) if arguments.quick else (arguments.rounds, 1000, 200)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through what unmounts
    cpus = os.sched_getaffinity(0)
    medians: dict[str, dict[tuple[str, str], float]] = {}
    with tempfile.TemporaryDirectory(prefix="tdxfs-bench-") as temporary:
        work = Path(temporary)
        floor.build(work, "server", "client")
        topology = machine(blocks)
        export(Tree(Root, boot(topology)), work / "plain")
        bench = Bench(topology, work, work / "plain", blocks, effort)
        for binding, allowed in (("bound", {min(cpus)}), ("free", cpus)):
            os.sched_setaffinity(0, allowed)
            bench.bound = binding == "bound"
            samples = measure(bench, rounds)
            medians[binding] = {key: statistics.median(values) for key, values in samples.items()}
            table(binding, medians[binding])
        os.sched_setaffinity(0, cpus)
    print()
    for goal in GOALS:
        ours, other = medians[goal.binding][goal.measure, OURS], medians[goal.binding][goal.measure, goal.against]
        ratio = other / ours if goal.faster else ours / other
        met = ratio >= goal.limit if goal.faster else ratio <= goal.limit
        words = f"{goal.against} / tdxfs, at least" if goal.faster else f"tdxfs / {goal.against}, at most"
        print(f"{'pass' if met else 'FAIL'}  {goal.binding:6} {goal.measure:14} {ratio:5.2f}  ({words} {goal.limit})")


if __name__ == "__main__":
    main()
