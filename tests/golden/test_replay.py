"""The golden logs, replayed by unmodified programs, make the stages that real kernels showed."""

import os

import pytest
from captures import captured, differences, needs_captures
from replaying import chapters, replays
from tools import need

pytestmark = needs_captures

KMEM = ["kmem-one-block-movable", "kmem-online-movable", "kmem-offlined", "kmem-online-kernel", "back-to-devdax"]
MACHINES = {
    "m4-k73": ["devdax-disabled"],
    "m5": KMEM,
    "m5-k612": KMEM,
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
    "m9-k73": ["ram-region", "ram-devdax", "ram-kmem"],
    "m13-k73": ["kmem"],
}
"""Machine -> its stages that are reached by typing the log's commands over the stage before."""


def test_chapters():
    """Every stage that the logs' commands reach is replayed."""
    assert MACHINES == {
        machine: [chapter.after for chapter in chapters(machine) if chapter.after] for machine in MACHINES
    }


@pytest.mark.parametrize("machine", MACHINES)
def test_replay(machine):
    """Each command prints and ends as it did, and each stage's every entry is the one that the kernel showed."""
    need("daxctl", "numactl", "unshare")
    if os.geteuid() != 0:
        pytest.skip("only root may bind a tree over /sys")
    for reached in replays(machine):
        assert () == reached.wrong
        if reached.chapter.after:
            want = captured(f"{machine}/{reached.chapter.after}")
            assert {} == differences(reached.root, want), reached.chapter.after
