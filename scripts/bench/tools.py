"""Unmodified tools in a run, on a mount without a supervisor, and on plain files; see scripts/bench/tools.

Three workers, each with /sys, /proc and /dev of its own, take turns. A time is what the tool, the server and the
supervisor run on a CPU together: nobody runs while another does, so that this is what passes on an idle machine, and
other load does not count. What is compared is the median of the ratios of neighbours in time.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tdxfs.boot import boot
from tdxfs.formats.export import export
from tdxfs.formats.topology import find
from tdxfs.root import Root
from tdxfs.sandbox import linux, overlay
from tdxfs.server import launch, stop
from tdxfs.tree import Tree

TOOLS = (["numactl", "-H"], ["lscpu"], ["lstopo-no-graphics"], ["daxctl", "list"], ["true"])
RUN, MOUNT, PLAIN = "run", "mount", "plain"
GOAL = 3.0
"""How many times as long as on plain files a tool may take in a run."""


def work() -> None:
    """Run the commands that are read, one per line, and write how long each ran, in seconds."""
    for line in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(json.loads(line), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, flush=True)


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

    def time(self, command: list[str]) -> float:
        before = ran(self.helpers)
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        own = float(self.process.stdout.readline())
        return own + ran(self.helpers) - before


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
    myself = [sys.executable, __file__, "--work"]
    with tempfile.TemporaryDirectory(prefix="tdxfs-bench-") as temporary, ExitStack() as stack:
        plain = Path(temporary) / "plain"
        export(Tree(Root, boot(topology)), plain)
        root = Path(temporary) / "mnt"
        root.mkdir()
        server = launch(topology, root, stack.enter_context(tempfile.TemporaryFile()))
        stack.callback(stop, server, root)
        pids = [server.pid]
        workers = {
            RUN: Worker(stack, pids, sys.executable, "-m", "tdxfs", "run", str(root), "--", *myself, launcher=True),
            MOUNT: Worker(stack, pids, *myself, str(root)),
            PLAIN: Worker(stack, [], *myself, str(plain)),
        }
        measured = {name: measure(workers, name.split(), arguments.rounds) for name in map(" ".join, TOOLS)}
    print(f"{'ms':20}{RUN:>9}{MOUNT:>9}{PLAIN:>9}{'ratio':>9}")
    for name, (times, ratio) in measured.items():
        print(f"{name:20}" + "".join(f"{times[kind] * 1e3:9.1f}" for kind in workers) + f"{ratio:9.2f}")
    print()
    for name, (_, ratio) in measured.items():
        if name != "true":
            print(f"{'pass' if ratio <= GOAL else 'FAIL'}  {name:20} {ratio:5.2f}  (run / plain, at most {GOAL:g})")


def measure(workers: dict[str, Worker], command: list[str], rounds: int) -> tuple[dict[str, float], float]:
    """Median seconds of a command for each worker, and the median of the ratios of run to plain."""
    samples: dict[str, list[float]] = {kind: [] for kind in workers}
    for _ in range(rounds + 1):
        for kind, worker in workers.items():
            samples[kind].append(worker.time(command))
    kept = {kind: times[1:] for kind, times in samples.items()}  # the first finds every cache cold
    ratios = [a / b for a, b in zip(kept[RUN], kept[PLAIN], strict=True)]
    return {kind: statistics.median(times) for kind, times in kept.items()}, statistics.median(ratios)


if __name__ == "__main__":
    main()
