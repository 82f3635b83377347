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

ELSEWHERE = re.compile("ndctl (create|destroy)-namespace|cxl create")
"""Namespaces, and persistent memory regions of CXL devices, are fixed."""
NAMESPACE = re.compile("ndctl create-namespace")
LOAD = re.compile("modprobe (-r )?kmem|modprobe device_dax")
"""Whether kmem is loaded comes with the topology: the stage before is mounted again; device_dax always is."""
TYPED = re.compile(r"daxctl |echo [a-z_]+ > /sys/devices/system/|numactl -H")
EJECT = re.compile(r"sysfs_semantics .* echo 1 > /sys/bus/acpi/devices/PNP0C80:00/eject")
MODULE = Range(0x100000000, 0x120000000)
"""The memory module that m8b-k612 ejects: blocks 32 to 35."""
CXL_REGION = re.compile("echo region0 > /sys/bus/cxl/drivers/cxl_region/bind")
WINDOW = "plug kind=cxl node=2 base=0x3d0000000 size=0x40000000"
"""The RAM region that m9-k73 makes of its CXL device and binds: it is plugged whole, decoders are fixed."""
DECODERS = re.compile("echo [a-z0-9.]+ > (region|decoder)[0-9.]+/")
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
            # whether it is loaded, if that changes
            loaded = {
                not found[1] for typed in chapter.typed if (found := LOAD.match(typed.command)) and "kmem" in found[0]
            }
            if chapter.before != reached or loaded:
                stack.close()
                stage = golden / machine / chapter.before
                topology = make(chapter.before) if make else _module_added(import_sysfs(stage, "dram"))
                if topology is None:
                    reached = None
                    continue
                kmem = loaded.pop() if loaded else topology.kmem_driver
                topology = evolve(topology, tdx=None, kmem_driver=kmem)
                root = stack.enter_context(mounted(topology, tiers={Tier.KERNEL, Tier.EMULATOR}))
            other = FREE if make is None else FREE_AND_SIZE
            wrong = [problem for typed in chapter.typed for problem in _replay(root, typed, other)]
            yield Reached(chapter, root, tuple(wrong))
            reached = chapter.after


def _replay(root, typed, other):
    # types one command of a log; `other`: what need not be the same of what it prints
    if any(known.match(typed.command) for known in (SHOWN_ONLY, LOAD, DECODERS)):
        return
    for known, request in ((EJECT, f"unplug base={MODULE.start:#x}"), (CXL_REGION, WINDOW)):
        if known.match(typed.command):
            (root / "sys/kernel/debug/tdxfs/hotplug").write_text(request)
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
    if typed.command.startswith("echo ") and done.returncode == typed.status:
        return  # shells word what they were refused as they like
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
