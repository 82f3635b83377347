"""A remedy that is typed does what the model says it does."""

import os
import shutil
import subprocess
import sys

import pytest
from attrs import evolve
from machines import MIXED, booted

from tdxfs import remedies
from tdxfs.conflicts import conflicts
from tdxfs.formats.topology import find
from tdxfs.model import GIB, MIB, Bar, Memory, PciDevice, TdxPlatform
from tdxfs.policy import Boot, Policies, Report
from tdxfs.ranges import Range
from tdxfs.root import Root
from tdxfs.server import mounted
from tdxfs.sysfs.tdx import ConflictsDir
from tdxfs.tree import Tree
from tdxfs.values import Emulated, Mounted, values

LATER = evolve(MIXED.nodes[1], memory=(*MIXED.nodes[1].memory, Memory(Range(16 * GIB, 17 * GIB), hotplug=True)))
GPU = PciDevice("0000:3a:00.0", 0x10DE, 0x2901, 0x030200, 1, (Bar(0, Range(30 * GIB, 31 * GIB)),))
HALF = evolve(MIXED, nodes=MIXED.nodes[:2], distances=(), dax_regions=())
CMRS = (Range(MIB, 2 * GIB), Range(4 * GIB, 7 * GIB), Range(7 * GIB + 256 * MIB, 8 * GIB - 256 * MIB))
MACHINES = {
    "mixed": MIXED,
    "half": HALF,
    "pieces": evolve(HALF, tdx=TdxPlatform(cmrs=CMRS)),
    "hotplug": evolve(MIXED, nodes=(MIXED.nodes[0], LATER, MIXED.nodes[2]), pci_devices=(GPU,)),
    "strict": evolve(MIXED, policies=Policies(boot=Boot.STRICT)),
    "silent": evolve(MIXED, policies=Policies(report=Report.SILENT)),
}
TYPED = ("chmem ", "echo ", "tdxfs reboot ")


def typed():
    """(machine, kind, subject) of every finding whose remedy a shell can do, each kind of command once per machine."""
    for name, topology in MACHINES.items():
        seen = set()
        for finding in conflicts(booted(topology)):
            verb = next((verb for verb in TYPED if finding.remedy.command.startswith(verb)), None)
            if verb and (verb, finding.kind) not in seen:
                seen.add((verb, finding.kind))
                yield name, finding.kind, finding.subject


@pytest.mark.parametrize(("name", "kind", "subject"), list(typed()))
def test_typed(name, kind, subject):
    """The command that a conflict prints, typed, leaves the conflicts that its action leaves, and not this one."""
    machine = booted(MACHINES[name])
    finding = next(found for found in conflicts(machine) if (found.kind, found.subject) == (kind, subject))
    after = remedies.apply(machine, finding.remedy)
    expected = values(Emulated(Tree(Root, after)), ConflictsDir.WHAT, ConflictsDir)
    assert (kind, subject) not in {(found.kind, found.subject) for found in conflicts(after)}

    with mounted(MACHINES[name]) as root:
        run(root, finding.remedy.command)
        shown = values(Mounted(root), ConflictsDir.WHAT, ConflictsDir)
    assert expected["all"] == shown["all"]


def enumerated(topology):
    """(kind, subject) -> the command of its remedy."""
    return {(found.kind, found.subject): found.remedy.command for found in conflicts(booted(topology))}


@pytest.mark.parametrize(
    ("topology", "key", "command"),
    [
        (MACHINES["half"], ("mixed-node", "node1"), "chmem --disable -b 56-63"),
        (MACHINES["half"], ("incapable-blocks", "memory56-memory63"), "chmem --disable -b 56-63"),
        (MACHINES["pieces"], ("mixed-node", "node1"), "chmem --disable -b 56-57 && chmem --disable -b 62-63"),
        (find("hotplug"), ("hotplug-rejected", "node1"), "echo allow > /sys/kernel/mm/tdx/policy/hotplug"),
        (
            find("mixed"),
            ("bar-in-guest-range", "0000:17:00.0 resource2"),
            "echo file > /sys/kernel/mm/tdx/policy/validate",
        ),
    ],
    ids=["chmem", "chmem blocks", "chmem twice", "hotplug", "validate"],
)
def test_command(topology, key, command):
    """What is to be typed, to the letter."""
    assert command == enumerated(topology)[key]


def test_numactl_takes_the_node_list():
    """numactl's remedy, typed in a run, binds the command to nodes that can back a guest."""
    with mounted(find("mixed")) as root:
        remedy = enumerated(find("mixed"))["incapable-node", "node2"].replace("COMMAND", "numactl --show")
        shell = [sys.executable, "-m", "tdxfs", "run", str(root), "--", "sh", "-c", remedy]
        done = subprocess.run(shell, check=True, capture_output=True, text=True)

    assert "membind: 0 1 \n" in done.stdout
    assert "invalid" not in done.stderr


@pytest.mark.parametrize("word", ["always", "[allow]", "allow reject"])
def test_policies_take_their_words_only(word):
    """Any other word is EINVAL, an axis that only a boot decides cannot be written, and nothing changes."""
    with mounted(find("hotplug")) as root:
        policy = root / "sys/kernel/mm/tdx/policy"
        with pytest.raises(OSError, match="Invalid argument"), (policy / "hotplug").open("wb", buffering=0) as axis:
            axis.write(word.encode())
        with pytest.raises(OSError), (policy / "boot").open("wb", buffering=0) as axis:
            axis.write(b"off")

        assert (policy / "hotplug").read_text() == "[reject] reject-range allow\n"
        assert (policy / "boot").read_text() == "off strict [mixed]\n"


def run(root, command):
    """Type a command where /sys is the machine's, or on its mount point."""
    if command.startswith("tdxfs "):
        words = command.replace("MOUNTPOINT", str(root)).split()[1:]
        subprocess.run([sys.executable, "-m", "tdxfs", *words], check=True)
        return
    if os.geteuid() != 0 or shutil.which(command.split()[0]) is None:
        pytest.skip("only root, with util-linux, may bind a tree over /sys")
    script = f'mount --bind "$1/sys" /sys; {command}'
    subprocess.run(["unshare", "-m", "sh", "-ec", script, "sh", root], check=True, stdout=subprocess.DEVNULL)


def test_every_command_is_typed():
    """chmem, echo and reboot occur."""
    commands = {
        finding.remedy.command.partition(" ")[0] for name in MACHINES for finding in conflicts(booted(MACHINES[name]))
    }

    assert {"chmem", "echo", "tdxfs"} <= commands
