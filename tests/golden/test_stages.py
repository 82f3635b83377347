"""Imports of recorded machines show what the real kernel showed."""

import os
import re
import subprocess
import sys

import pytest
from captures import FIRST, GOLDEN, captured, differences, needs_captures

from tdxfs.boot import boot
from tdxfs.errors import NoEntry
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.formats.topology import dumps, loads
from tdxfs.root import Root
from tdxfs.server import mounted
from tdxfs.sysfs.attribute import ALL_TIERS, Tier
from tdxfs.tree import Tree

pytestmark = needs_captures
KERNEL = frozenset((Tier.KERNEL,))
STAGES = sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in GOLDEN.glob("*/*/sys.jsonl.gz"))
NAMES = {
    "tdx_capable",
    "tdx_convertible_bytes",
    "tdx_incapable",
    "tdx_mixed",
    "tdx_total_bytes",
    "tdx_usable_bytes",
    "target_node_tdx_capable",
    "x86",
}
"""The proposed names in the judge's scope."""


def imported(stage, convertible="dram"):
    """The topology of a stage, through a topology file."""
    return loads(dumps(import_sysfs(GOLDEN / stage, convertible, stage.partition("/")[0])))


@pytest.mark.parametrize("stage", FIRST)
def test_first_stage(stage):
    """Every entry, recorded counters included, is the one that the kernel showed."""
    want = captured(stage)
    assert len(want) > 400

    with mounted(imported(stage), tiers=KERNEL) as root:
        assert {} == differences(root, want, counters=True)


@pytest.mark.parametrize("stage", FIRST)
def test_the_model_says_it(stage):
    """The versions that are emulated have what they had: no file is added to or taken from what they declare."""
    topology = imported(stage)

    assert () == topology.absent
    assert () == topology.present


@pytest.mark.parametrize("stage", ["m2-k73/base", "m5/kmem-online-movable", "m9-k73/ram-devdax"])
def test_other_tiers_only_add(stage):
    """With all tiers there are new names, all of the proposed tier, and nothing else is different."""
    topology = imported(stage)
    kernel = Tree(Root, boot(topology), KERNEL)
    added = set()

    with mounted(topology, tiers=ALL_TIERS) as root:
        for path, wrong in differences(root, want := captured(stage), counters=True).items():
            assert {what.partition(":")[0] for what in wrong} <= {"extra", "nlink"}, path
        for entry in want:
            if entry["t"] == "d":
                for name in set(os.listdir(f"{root}{entry['p']}")) - {name for name, *_ in entry["e"]}:
                    added.add(name)
                    with pytest.raises(NoEntry):
                        kernel.lookup(f"{entry['p']}/{name}")

    assert added <= NAMES
    assert {"tdx_capable", "x86"} <= added


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.startswith(("m4", "m5", "m13"))])
def test_persistent_memory(stage):
    """/proc/iomem shows the NVDIMM, the head of its namespace, its dax device and what kmem took, as it did."""
    tree = Tree(Root, boot(imported(stage)), KERNEL)

    assert persistent((GOLDEN / stage / "proc/iomem").read_text()) == persistent(tree.read("/proc/iomem").decode())


def persistent(text):
    return re.search(r"^[0-9a-f-]+ : Persistent Memory\n(  .*\n)*", text, re.MULTILINE)[0]


def test_judge_on_the_command_line(tmp_path):
    """``tdxfs import``, ``tdxfs mount --abi kernel`` and the judge as programs: no differences."""
    file, where = tmp_path / "m1.toml", tmp_path / "mnt"
    where.mkdir()
    tdxfs = (sys.executable, "-m", "tdxfs")
    subprocess.run([*tdxfs, "import", GOLDEN / "m1/base", "-o", file], check=True)
    subprocess.run([*tdxfs, "mount", "--abi", "kernel", file, where], check=True, capture_output=True)
    try:
        judged = subprocess.run(
            [sys.executable, GOLDEN / "judge.py", where, GOLDEN / "m1/base"],
            check=False,
            capture_output=True,
            text=True,
        )
    finally:
        subprocess.run([*tdxfs, "umount", where], check=True, capture_output=True)

    assert (0, "507 of 507 entries identical") == (judged.returncode, judged.stdout.splitlines()[-1])


class TestLaterStages:
    """A machine that is imported in the middle of its life."""

    @pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in FIRST])
    def test_identical(self, stage):
        """Every entry is the one that the kernel showed."""
        with mounted(imported(stage), tiers=KERNEL) as root:
            assert {} == differences(root, captured(stage), counters=True)

    def test_all_are_there(self):
        """The captures are complete: 39 stages of eleven machines."""
        assert 39 == len(STAGES)
        assert {stage.partition("/")[0] for stage in STAGES} == {stage.partition("/")[0] for stage in FIRST}
