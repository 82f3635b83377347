"""Reading through a mount, against C, naive fusepy and plain files; see scripts/bench/read."""

from __future__ import annotations

import argparse
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import define, frozen

from tdxfs.boot import boot
from tdxfs.formats.export import export
from tdxfs.model import GIB, MIB, Cpu, DaxDevice, DaxRegion, Memory, Node, Provider, TdxPlatform, Topology
from tdxfs.ranges import Range
from tdxfs.root import Root
from tdxfs.server import detach, is_mounted, launch, stop
from tdxfs.tree import Tree

HERE = Path(__file__).resolve().parent
BLOCK = 128 * MIB
FLOOR, NAIVE, PLAIN, OURS = "C", "fusepy", "plain", "tdxfs"
SYSTEMS = (OURS, FLOOR, NAIVE, PLAIN)
C_OPTIONS = "direct_io,default_permissions,use_ino,entry_timeout=3600,attr_timeout=3600,negative_timeout=3600"
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
class Bench:
    """What all measurements share."""

    topology: Topology
    work: Path
    plain: Path
    blocks: int
    effort: int
    """How often each file is read for one sample."""
    serial: int = 0

    def client(self, *arguments: object, paths: list[str] | None = None) -> float:
        """Nanoseconds per operation of one run of the C client."""
        text = "".join(f"{path}\n" for path in paths or [])
        done = subprocess.run(
            [self.work / "client", *map(str, arguments)], input=text, capture_output=True, text=True, check=True
        )
        spent, count = map(int, done.stdout.split())
        return spent / max(count, 1)

    def tool(self, command: str) -> float:
        """Nanoseconds that an unmodified tool takes."""
        start = time.perf_counter_ns()
        subprocess.run(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return time.perf_counter_ns() - start

    def parallel(self, root: Path) -> float:
        """Nanoseconds per file while four clients read."""
        paths = [f"{root}/sys/{file}" for file in FILES]
        start = time.perf_counter_ns()
        readers = [
            subprocess.Popen(
                [self.work / "client", "w1", str(self.effort)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            for _ in range(4)
        ]
        for reader in readers:
            reader.communicate("".join(f"{path}\n" for path in paths).encode())
        return (time.perf_counter_ns() - start) / (4 * self.effort * len(paths))

    def cold_names(self, root: Path) -> list[str]:
        return [f"{root}/sys/{MEMORY}/memory{number}{rest}" for number in range(self.blocks) for rest in ("", "/state")]

    def absent_names(self, root: Path) -> list[str]:
        self.serial += 1
        places = (MEMORY, "devices/system/node/node0", "bus/dax/devices", "devices/system/memory/memory1")
        return [f"{root}/sys/{place}/absent{self.serial}-{number}" for number in range(500) for place in places]


def reads(what: str) -> Callable[[Bench, Path], float]:
    """A measurement of the client on `FILES`."""
    return lambda bench, root: bench.client(what, bench.effort, paths=[f"{root}/sys/{file}" for file in FILES])


MEASURES: dict[str, tuple[str, Callable[[Bench, Path], float]]] = {
    "cold": ("us", lambda bench, root: bench.client("stat", 1, paths=bench.cold_names(root))),
    "ls -l 1000": ("ms", lambda bench, root: bench.tool(f"ls -l {root}/sys/bus/memory/devices")),
    "walk": ("us", lambda bench, root: bench.client("walk", root / "sys")),
    "walk again": ("us", lambda bench, root: bench.client("walk", root / "sys")),
    "miss": ("us", lambda bench, root: bench.client("miss", 1, paths=bench.absent_names(root))),
    "w1": ("us", reads("w1")),
    "wcat": ("us", reads("wcat")),
    "pread": ("us", reads("pread")),
    "find": ("ms", lambda bench, root: bench.tool(f"find {root}/sys/{DEVICES}")),
    "ls -lR": ("ms", lambda bench, root: bench.tool(f"ls -lR {root}/sys/{DEVICES}")),
    "grep -r": ("ms", lambda bench, root: bench.tool(f"grep -r nothing {root}/sys/{DEVICES}")),
    "four readers": ("us", lambda bench, root: bench.parallel(root)),
}
"""In this order on a fresh mount: what must be cold comes first. Per file of a walk, per operation, or in all."""


@contextmanager
def served(bench: Bench, system: str) -> Iterator[Path]:
    """A fresh mount of one system."""
    if system == PLAIN:
        yield bench.plain
        return
    with tempfile.TemporaryDirectory(prefix="tdxfs-bench-") as place, tempfile.TemporaryFile() as errors:
        root = Path(place)
        if system == OURS:
            server = launch(bench.topology, root, errors)
        else:
            allow = ",allow_other" if os.geteuid() == 0 else ""
            command = {
                FLOOR: [bench.work / "server", bench.plain, root, "-f", "-s", "-o", C_OPTIONS + allow],
                NAIVE: [sys.executable, HERE / "naive.py", bench.plain, root],
            }[system]
            server = subprocess.Popen(command, stderr=errors)
            while not os.path.ismount(root):
                if server.poll() is not None:
                    errors.seek(0)
                    raise RuntimeError(f"{system}: {errors.read().decode()}")
                time.sleep(0.01)
            os.stat(root)
        try:
            yield root
        finally:
            if system == OURS:
                stop(server, root)
            else:
                subprocess.run(["umount", root], check=False)
                server.terminate()
                server.wait(20)
            if is_mounted(root):
                detach(root)


def measure(bench: Bench, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Samples per measure and system; all systems are mounted at once and measured next to each other."""
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds):
        print(f"\r{number + 1}/{rounds} ", end="", file=sys.stderr, flush=True)
        with ExitStack() as stack:
            roots = {system: stack.enter_context(served(bench, system)) for system in SYSTEMS}
            for name, (_, run) in MEASURES.items():
                for system in random.sample(SYSTEMS, len(SYSTEMS)):
                    samples[name, system].append(run(bench, roots[system]))
    print("\r", end="", file=sys.stderr)
    return samples


def build(work: Path) -> None:
    """Compile server and client."""
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse"], capture_output=True, text=True, check=True)
    for name, more in (("server", flags.stdout.split()), ("client", [])):
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", work / name, HERE / f"{name}.c", *more], check=True)


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
    cpus = os.sched_getaffinity(0)
    medians: dict[str, dict[tuple[str, str], float]] = {}
    with tempfile.TemporaryDirectory(prefix="tdxfs-bench-") as temporary:
        work = Path(temporary)
        build(work)
        topology = machine(blocks)
        export(Tree(Root, boot(topology)), work / "plain")
        bench = Bench(topology, work, work / "plain", blocks, effort)
        for binding, allowed in (("bound", {min(cpus)}), ("free", cpus)):
            os.sched_setaffinity(0, allowed)
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
