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

import pytest
from attrs import evolve
from captures import GOLDEN, captured, differences, needs_captures
from tools import need

from tdxfs.formats.sysfs import import_sysfs
from tdxfs.idlist import format_list
from tdxfs.ranges import Range
from tdxfs.server import mounted
from tdxfs.sysfs.attribute import Tier

pytestmark = needs_captures

MACHINES = {
    "m4-k73": ["devdax-disabled"],
    "m5": ["kmem-one-block-movable", "kmem-online-movable", "kmem-offlined", "kmem-online-kernel", "back-to-devdax"],
    "m5-k612": [
        "kmem-one-block-movable",
        "kmem-online-movable",
        "kmem-offlined",
        "kmem-online-kernel",
        "back-to-devdax",
    ],
    "m7-k73": [
        "region-dax0.0",
        "destroyed",
        "three-devices",
        "hole",
        "shrunk",
        "resized",
        "kmem",
        "kmem-two-mappings",
    ],
    "m8b-k612": ["ejected"],
    "m9-k73": ["ram-devdax", "ram-kmem"],
    "m13-k73": ["kmem"],
}
"""Machine -> its stages that are reached by typing the log's commands over the stage before."""
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


def steps(machine):
    """The log of a machine: ("stage", name), and ("typed", command, what it printed, status)."""
    command, printed = None, []
    for line in (GOLDEN / machine / "log.txt").read_text().splitlines():
        if line.startswith("CAPTURE "):
            yield "stage", line.split()[1]
        elif line.startswith("$ "):
            command, printed = line.removeprefix("$ "), []
        elif (ended := re.fullmatch(r"\[rc=([0-9]+)\]", line)) and command:
            yield "typed", command, "\n".join(printed), int(ended[1])
            command = None
        else:
            printed.append(line)


def chapters(machine):
    """Of each stage: its name, the commands after it that a replay can type, and the stage that they reach, if any."""
    found = []
    before, typed = None, []
    for step in steps(machine):
        if step[0] == "typed":
            typed.append(step[1:])
            continue
        possible = list(takewhile(lambda command: not ELSEWHERE.match(command[0]), typed))
        if before and possible:
            found.append((before, possible, step[1] if possible == typed else None))
        before, typed = step[1], []
    return found


def run(root, command):
    """What a shell prints for a command, both streams, and its status, where /sys and /dev are the machine's."""
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", BOUND, "sh", "sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C", "ROOT": str(root)},
    )
    return done.stdout.removesuffix("\n"), done.returncode


def same(text):
    """What must be equal of what a command printed: free memory need not be."""
    return re.sub(r"(node [0-9]+ free:) .*", r"\1", text)


def replay(root, command, printed, status):
    """Type one command of a log."""
    if SHOWN_ONLY.match(command) or LOAD.match(command):
        return
    if EJECT.match(command):
        (root / "sys/kernel/debug/tdxfs/hotplug").write_text(f"unplug base={MODULE.start:#x}")
        return
    assert TYPED.match(command), command
    shown, ended = run(root, command)
    assert same(printed) == same(shown), command
    assert status == ended, command


def start(machine, stage, kmem):
    """The topology of a stage, with what no recording says: which memory is a module, and which module is loaded."""
    topology = import_sysfs(GOLDEN / machine / stage, "dram")
    nodes = tuple(
        evolve(node, memory=tuple(evolve(part, hotplug=part.range == MODULE) for part in node.memory))
        for node in topology.nodes
    )
    layout = topology.memory
    if any(part.hotplug for node in nodes for part in node.memory):
        blocks = range(MODULE.start // layout.block_size, MODULE.end // layout.block_size)
        layout = evolve(layout, online=format_list(blocks))
    return evolve(topology, nodes=nodes, memory=layout, tdx=None, kmem_driver=topology.kmem_driver or kmem)


def test_chapters():
    """Every stage that the logs' commands reach is replayed."""
    assert MACHINES == {machine: [after for *_, after in chapters(machine) if after] for machine in MACHINES}


@pytest.mark.parametrize("machine", MACHINES)
def test_replay(machine):
    """From the first stage on, after each command's stage, every entry is the one that the kernel showed."""
    need("daxctl", "numactl", "unshare")
    if os.geteuid() != 0:
        pytest.skip("only root may bind a tree over /sys")
    with ExitStack() as stack:
        reached, root = None, None
        for before, typed, after in chapters(machine):
            loads = [command for command, *_ in typed if LOAD.match(command)]
            if before != reached or loads:
                stack.close()
                topology = start(machine, before, "modprobe kmem" in loads)
                root = stack.enter_context(mounted(topology, tiers={Tier.KERNEL, Tier.EMULATOR}))
            for step in typed:
                replay(root, *step)
            if after:
                assert {} == differences(root, captured(f"{machine}/{after}")), after
            reached = after
