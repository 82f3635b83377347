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
from tdxfs.model import GIB, Bar, Memory, PciDevice
from tdxfs.policy import Boot, Policies, Report
from tdxfs.ranges import Range
from tdxfs.root import Root
from tdxfs.server import mounted
from tdxfs.sysfs.tdx import ConflictsDir
from tdxfs.tree import Tree
from tdxfs.values import Emulated, Mounted, values

LATER = evolve(MIXED.nodes[1], memory=(*MIXED.nodes[1].memory, Memory(Range(16 * GIB, 17 * GIB), hotplug=True)))
GPU = PciDevice("0000:3a:00.0", 0x10DE, 0x2901, 0x030200, 1, (Bar(0, Range(30 * GIB, 31 * GIB)),))
MACHINES = {
    "mixed": MIXED,
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
