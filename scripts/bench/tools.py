"""Unmodified tools in a run, on a mount without a supervisor, on one by C (server.c), and on plain files; see
scripts/bench/tools.

Four workers, each with /sys, /proc and /dev of its own, take turns. What is compared is the time that passes from
fork to wait, as a user sees it, twice: with tool, server and supervisor bound to one CPU, and free. The CPU time of
the three together is shown, too; free, it includes looking for the next request before going to sleep. A ratio is
the median of the ratios of neighbours in time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import floor
from attrs import frozen

from tdxfs.boot import boot
from tdxfs.formats.export import export
from tdxfs.formats.topology import find
from tdxfs.model import Topology
from tdxfs.root import Root
from tdxfs.sandbox import linux, overlay
from tdxfs.server import launch, stop
from tdxfs.tree import Tree

TOOLS = ("numactl -H", "lscpu", "lstopo-no-graphics", "daxctl list")
NOTHING = "true"
"""What it costs to run anything at all."""
RUN, MOUNT, FLOOR, PLAIN = KINDS = "run", "mount", "C", "plain"
GOAL = 3.0
"""How many times as long as on plain files a tool may take in a run."""


@frozen
class Sample:
    """One run of a tool."""

    passed: float
    """Seconds from fork to wait."""
    ran: float
    """Seconds that the tool, the server and the supervisor ran on a CPU."""


def work() -> None:
    """Run the commands that are read, one per line, and write what each took: nanoseconds passed, seconds run."""
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    for line in sys.stdin:
        command = json.loads(line)
        program = shutil.which(command[0]) or command[0]
        start = time.monotonic_ns()
        _, status, usage = os.wait4(os.posix_spawn(program, command, os.environ, file_actions=nowhere), 0)
        passed = time.monotonic_ns() - start
        if status:
            raise RuntimeError(f"{line.strip()}: {os.waitstatus_to_exitcode(status)}")
        print(passed, usage.ru_utime + usage.ru_stime, flush=True)


def work_on(machine: str) -> None:
    """The same, with the files below a directory laid over this process's /sys, /proc and /dev."""
    linux.enter_private_namespace()
    overlay.lay(machine)
    work()


def ran(pids: list[int]) -> float:
    """Seconds that processes have run on a CPU."""
    files = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[0]) for path in files) / 1e9


class Worker:
    """A process that runs commands; `helpers` are those that run because of it."""

    def __init__(self, stack: ExitStack, helpers: list[int], *command: str, launcher: bool = False) -> None:
        self.process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(self.process.stdin.close)
        self.helpers = [*helpers, self.process.pid] if launcher else helpers

    def run(self, command: list[str]) -> Sample:
        before = ran(self.helpers)
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        passed, own = self.process.stdout.readline().split()
        return Sample(int(passed) / 1e9, float(own) + ran(self.helpers) - before)


def measure(topology: Topology, rounds: int) -> dict[str, dict[str, list[Sample]]]:
    """Samples of each tool by worker, on mounts of their own: the nth of each kind were taken next to each other."""
    myself = [sys.executable, __file__, "--work"]
    samples: dict[str, dict[str, list[Sample]]] = {}
    with tempfile.TemporaryDirectory(prefix="tdxfs-bench-") as temporary, ExitStack() as stack:
        plain, root = Path(temporary) / "plain", Path(temporary) / "mnt"
        export(Tree(Root, boot(topology)), plain)
        root.mkdir()
        server = launch(topology, root, stack.enter_context(tempfile.TemporaryFile()))
        stack.callback(stop, server, root)
        pids = [server.pid]
        beside = Path(temporary) / "C"
        beside.mkdir()
        floor.build(Path(temporary), "server")
        errors = stack.enter_context(tempfile.TemporaryFile())
        pid = stack.enter_context(floor.served(floor.command(Path(temporary), plain, beside), beside, errors))
        workers = {
            RUN: Worker(stack, pids, sys.executable, "-m", "tdxfs", "run", str(root), "--", *myself, launcher=True),
            MOUNT: Worker(stack, pids, *myself, str(root)),
            FLOOR: Worker(stack, [pid], *myself, str(beside)),
            PLAIN: Worker(stack, [], *myself, str(plain)),
        }
        for tool in (*TOOLS, NOTHING):
            taken = samples[tool] = {kind: [] for kind in KINDS}
            for _ in range(rounds + 1):
                for kind in random.sample(KINDS, len(KINDS)):
                    taken[kind].append(workers[kind].run(tool.split()))
            for first in taken.values():
                del first[0]  # it found every cache cold
    return samples


def ratio(over: list[Sample], under: list[Sample], what: str) -> float:
    """The median of the ratios of neighbours."""
    return statistics.median(getattr(a, what) / getattr(b, what) for a, b in zip(over, under, strict=True))


def table(binding: str, samples: dict[str, dict[str, list[Sample]]]) -> None:
    """Medians in milliseconds, and the ratios to plain files."""
    kinds = "".join(f"{kind:>8}" for kind in KINDS)
    ratios = "".join(f"{kind + '/plain':>12}" for kind in KINDS[:-1])
    print(f"{binding + ', ms':20}{kinds}{ratios}   CPU time:{kinds}{'run/plain':>12}")
    for tool, taken in samples.items():
        passed, busy = (
            [statistics.median(getattr(sample, what) for sample in taken[kind]) * 1e3 for kind in KINDS]
            for what in ("passed", "ran")
        )
        reached = "".join(f"{ratio(taken[kind], taken[PLAIN], 'passed'):12.2f}" for kind in KINDS[:-1])
        print(f"{tool:20}" + "".join(f"{value:8.2f}" for value in passed) + reached, end=" " * 12)
        print("".join(f"{value:8.2f}" for value in busy) + f"{ratio(taken[RUN], taken[PLAIN], 'ran'):12.2f}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="how often each tool runs (default 40)")
    parser.add_argument("--topology", default="mixed", help="the machine (default mixed)")
    parser.add_argument("--work", nargs="?", const="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work_on(arguments.work) if arguments.work else work()
        return
    topology = find(arguments.topology)
    cpus = os.sched_getaffinity(0)
    samples = {}
    for binding, allowed in (("bound", {min(cpus)}), ("free", cpus)):
        os.sched_setaffinity(0, allowed)
        samples[binding] = measure(topology, arguments.rounds)
        table(binding, samples[binding])
    for binding, found in samples.items():
        for tool in TOOLS:
            reached, least = (ratio(found[tool][kind], found[tool][PLAIN], "passed") for kind in (RUN, FLOOR))
            verdict = "pass" if reached <= GOAL else "FAIL"
            against = f"run / plain, at most {GOAL:g}; C without a supervisor {least:.2f}"
            print(f"{verdict}  {binding:6} {tool:20} {reached:6.2f}  ({against})")


if __name__ == "__main__":
    main()
