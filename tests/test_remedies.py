"""Remedies as a person types them: the command that a conflict's file names, run on the mounted machine."""

import subprocess

import pytest
from attrs import evolve
from machines import MIXED

from tdxfs.formats.topology import find
from tdxfs.model import GIB, MIB, TdxPlatform
from tdxfs.ranges import Range
from tdxfs.server import mounted
from tdxfs.sysfs.tdx import ConflictsDir
from tdxfs.values import Mounted, values

HALF = evolve(MIXED, nodes=MIXED.nodes[:2], distances=(), dax_regions=())
CMRS = (Range(MIB, 2 * GIB), Range(4 * GIB, 7 * GIB), Range(7 * GIB + 256 * MIB, 8 * GIB - 256 * MIB))
PIECES = evolve(HALF, tdx=TdxPlatform(cmrs=CMRS))
"""Node 1 has two runs of blocks that are not capable."""


def enumerated(root):
    """(kind, subject) -> remedy, from the mounted files."""
    found = values(Mounted(root), ConflictsDir.WHAT, ConflictsDir)["all"]
    return {(one["kind"], one["subject"]): one["remedy"] for one in found}


def typed(root, command):
    """Run a command where /sys is the machine's."""
    script = 'mount --bind "$0/sys" /sys && eval "$1"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(root), command], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("topology", "key", "command"),
    [
        (HALF, ("mixed-node", "node1"), "chmem --disable -b 56-63"),
        (HALF, ("incapable-blocks", "memory56-memory63"), "chmem --disable -b 56-63"),
        (
            PIECES,
            ("mixed-node", "node1"),
            "chmem --disable -b 56-57 && chmem --disable -b 62-63",
        ),
        (find("hotplug"), ("hotplug-rejected", "node1"), "echo allow > /sys/kernel/mm/tdx/policy/hotplug"),
        (
            find("mixed"),
            ("bar-in-guest-range", "0000:17:00.0 resource2"),
            "echo file > /sys/kernel/mm/tdx/policy/validate",
        ),
    ],
    ids=["chmem", "chmem blocks", "chmem twice", "hotplug", "validate"],
)
def test_typing_the_remedy_removes_the_conflict(topology, key, command):
    """What the remedy file says is a command that works, and afterwards the conflict is not listed any more."""
    with mounted(topology) as root:
        remedy = enumerated(root)[key]
        assert command == remedy

        done = typed(root, remedy)

        assert (0, "") == (done.returncode, done.stderr)
        assert key not in enumerated(root)


def test_numactl_takes_the_node_list():
    """The list of numactl's remedy is one that it understands on that machine."""
    with mounted(find("mixed")) as root:
        remedy = enumerated(root)["incapable-node", "node2"]
        done = typed(root, f"numactl --hardware && {remedy.replace('COMMAND', 'numactl --show')}")

        assert "available: 3 nodes (0-2)" in done.stdout
        assert "is invalid" not in done.stderr


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
