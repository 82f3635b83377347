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
LOAD = re.compile("modprobe (device_dax|kmem)")
"""What is loaded comes with the topology: the stage before is mounted again with the module."""
TYPED = re.compile(r"daxctl |echo [a-z_]+ > /sys/devices/system/|numactl -H")
EJECT = re.compile(r"sysfs_semantics .* echo 1 > /sys/bus/acpi/devices/PNP0C80:00/eject")
MODULE = Range(0x100000000, 0x120000000)
"""The memory module that m8b-k612 ejects: blocks 32 to 35."""
BOUND = 'mount --bind "$ROOT/sys" /sys; mount --bind "$ROOT/dev" /dev; exec "$@"'
"""All of /sys and /dev is the machine's: device nodes come and go with their devices."""
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


def chapters(machine, golden=GOLDEN):
    """The chapters of a machine's log in which a replay can type anything."""
    found = []
    before, typed = None, []
    for step in steps(golden / machine / "log.txt"):
        if isinstance(step, Typed):
            typed.append(step)
            continue
        possible = list(takewhile(lambda one: not ELSEWHERE.match(one.command), typed))
        if before and possible:
            found.append(Chapter(before, tuple(possible), step if possible == typed else None))
        before, typed = step, []
    return found


def replays(machine, golden=GOLDEN):
    """Replay the chapters of a machine: each is yielded when its commands were typed."""
    with ExitStack() as stack:
        reached, root = None, None
        for chapter in chapters(machine, golden):
            loads = [typed.command for typed in chapter.typed if LOAD.match(typed.command)]
            if chapter.before != reached or loads:
                stack.close()
                topology = _start(golden / machine / chapter.before, "modprobe kmem" in loads)
                root = stack.enter_context(mounted(topology, tiers={Tier.KERNEL, Tier.EMULATOR}))
            wrong = [problem for typed in chapter.typed for problem in _replay(root, typed)]
            yield Reached(chapter, root, tuple(wrong))
            reached = chapter.after


def _replay(root, typed):
    # types one command of a log
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
    if (_same(typed.printed), typed.status) != (_same(printed), done.returncode):
        yield f"{typed.command}: [rc={done.returncode}, not {typed.status}] {printed!r}, not {typed.printed!r}"


def _same(text):
    # what must be equal of what a command printed: free memory need not be
    return re.sub(r"(node [0-9]+ free:) .*", r"\1", text)


def _start(stage, kmem):
    # the topology of a stage, with what no recording says: which memory is a module, and which driver is loaded
    topology = import_sysfs(stage, "dram")
    nodes = tuple(
        evolve(node, memory=tuple(evolve(part, hotplug=part.range == MODULE) for part in node.memory))
        for node in topology.nodes
    )
    layout = topology.memory
    if any(part.hotplug for node in nodes for part in node.memory):
        blocks = range(MODULE.start // layout.block_size, MODULE.end // layout.block_size)
        layout = evolve(layout, online=format_list(blocks))
    return evolve(topology, nodes=nodes, memory=layout, tdx=None, kmem_driver=topology.kmem_driver or kmem)
