"""Replays of the golden logs: the same commands, typed over the first stage, make the later ones.

What a log's daxctl, numactl or shell did is done again, by the unmodified program in a mount namespace of its
own, and must print the same and end the same way. `ELSEWHERE` lists what no write to these directories can do:
there the replay goes on from the next stage that was captured.
"""

import os
import re
import subprocess
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

from attrs import evolve, frozen
from captures import GOLDEN

from tdxfs.formats.sysfs import import_sysfs
from tdxfs.idlist import format_list
from tdxfs.ranges import Range
from tdxfs.server import mounted
from tdxfs.sysfs.attribute import Tier

ELSEWHERE = re.compile(
    r"ndctl (create|destroy)-namespace"  # nd namespaces are fixed
    r"|cxl create|modprobe -r|echo .*(region0|decoder|ram >)"  # so are CXL regions and what is loaded
)
NAMESPACE = re.compile("ndctl create-namespace")
LOAD = re.compile("modprobe (device_dax|kmem)")
"""What is loaded comes with the topology: the stage before is mounted again with the module."""
TYPED = re.compile(r"daxctl |echo [a-z_]+ > /sys/devices/system/|numactl -H")
EJECT = re.compile(r"sysfs_semantics .* echo 1 > /sys/bus/acpi/devices/PNP0C80:00/eject")
MODULE = Range(0x100000000, 0x120000000)
"""The memory module that m8b-k612 ejects: blocks 32 to 35."""
BOUND = 'mount --bind "$ROOT/sys" /sys; mount --bind "$ROOT/dev" /dev; exec "$@"'
"""All of /sys and /dev is the machine's: device nodes come and go with their devices."""
FREE = re.compile("(node [0-9]+ free:) .*")
"""What is another machine's in what numactl prints."""
FREE_AND_SIZE = re.compile("(node [0-9]+ (?:free|size):) .*")
"""The same where nobody knows what the kernel kept of the memory."""
SHOWN_ONLY = re.compile(r"ls |ndctl list|cxl list")
"""Commands that change nothing and that other tests look at, or that read what is not emulated."""


@frozen
class Typed:
    """A command of a log, and what it printed (both streams) and ended with."""

    command: str
    printed: str
    status: int


@frozen
class Chapter:
    """What was done between two captures, as far as a replay can type it."""

    before: str
    """The stage that it begins with."""
    typed: tuple[Typed, ...]
    after: str | None
    """The stage that it reaches; None: something that no replay can type lies between."""


@frozen
class Reached:
    """A chapter that was replayed."""

    chapter: Chapter
    root: Path
    """Where the machine is mounted, for as long as the next chapter is not asked for."""
    wrong: tuple[str, ...]
    """The commands that printed or ended otherwise, with what they did."""


def steps(log):
    """A log: the name of each stage where it was captured, and what was `Typed`."""
    command, printed = None, []
    for line in log.read_text().splitlines():
        if line.startswith("CAPTURE "):
            yield line.split()[1]
        elif line.startswith("$ "):
            command, printed = line.removeprefix("$ "), []
        elif (ended := re.fullmatch(r"\[rc=([0-9]+)\]", line)) and command:
            yield Typed(command, "\n".join(printed), int(ended[1]))
            command = None
        else:
            printed.append(line)


def chapters(machine, golden=GOLDEN, booted=None):
    """
    The chapters of a machine's log in which a replay can type anything. With `booted`, the stage that the machine is
    when it has booted, from the boot on: what is on the NVDIMMs comes with the machine then.
    """
    found = []
    before, typed = booted, []
    for step in steps(golden / machine / "log.txt"):
        if isinstance(step, Typed):
            if found or before != booted or not NAMESPACE.match(step.command):
                typed.append(step)
            continue
        possible = list(takewhile(lambda one: not ELSEWHERE.match(one.command), typed))
        if before and possible:
            found.append(Chapter(before, tuple(possible), step if possible == typed else None))
        before, typed = step, []
    return found


def replays(machine, golden=GOLDEN, booted=None, make=None):
    """
    Replay the chapters of a machine: each is yielded when its commands were typed. What is mounted is imported from the
    recorded sysfs of a stage; or, with `booted` as in `chapters`, what `make` makes of a stage's firmware, None where
    that does not know the stage: what cannot be reached without a recording is left out.
    """
    with ExitStack() as stack:
        reached, root = None, None
        for chapter in chapters(machine, golden, booted):
            loads = [typed.command for typed in chapter.typed if LOAD.match(typed.command)]
            if chapter.before != reached or loads:
                stack.close()
                stage = golden / machine / chapter.before
                topology = make(chapter.before) if make else _module_added(import_sysfs(stage, "dram"))
                if topology is None:
                    reached = None
                    continue
                kmem = topology.kmem_driver or "modprobe kmem" in loads
                topology = evolve(topology, tdx=None, kmem_driver=kmem)
                root = stack.enter_context(mounted(topology, tiers={Tier.KERNEL, Tier.EMULATOR}))
            other = FREE if make is None else FREE_AND_SIZE
            wrong = [problem for typed in chapter.typed for problem in _replay(root, typed, other)]
            yield Reached(chapter, root, tuple(wrong))
            reached = chapter.after


def _replay(root, typed, other):
    # types one command of a log; `other`: what need not be the same of what it prints
    if SHOWN_ONLY.match(typed.command) or LOAD.match(typed.command):
        return
    if EJECT.match(typed.command):
        (root / "sys/kernel/debug/tdxfs/hotplug").write_text(f"unplug base={MODULE.start:#x}")
        return
    if not TYPED.match(typed.command):
        yield f"cannot be typed: {typed.command}"
        return
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", BOUND, "sh", "sh", "-c", typed.command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C", "ROOT": str(root)},
    )
    printed = done.stdout.removesuffix("\n")
    if (other.sub(r"\1", typed.printed), typed.status) != (other.sub(r"\1", printed), done.returncode):
        yield f"{typed.command}: [rc={done.returncode}, not {typed.status}] {printed!r}, not {typed.printed!r}"


def _module_added(topology):
    # with what no recording says: that memory is a module, which went online by hand
    nodes = tuple(
        evolve(node, memory=tuple(evolve(part, hotplug=part.range == MODULE) for part in node.memory))
        for node in topology.nodes
    )
    layout = topology.memory
    if any(part.hotplug for node in nodes for part in node.memory):
        blocks = range(MODULE.start // layout.block_size, MODULE.end // layout.block_size)
        layout = evolve(layout, online=format_list(blocks))
    return evolve(topology, nodes=nodes, memory=layout)
