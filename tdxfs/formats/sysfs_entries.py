"""What a recorded kernel shows more and less than the version that is emulated.

Configuration, back-ports and the versions in between decide which files there are. A complete recording says it
by the names in its directories; they are held against those that the topology itself would show.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from attrs import evolve

from tdxfs.boot import boot
from tdxfs.errors import NoEntry
from tdxfs.formats.snapshot import Snapshot
from tdxfs.model import Topology
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Directories, Directory, Tier
from tdxfs.tree import Tree

TOPS = (
    "sys/bus/cpu",
    "sys/bus/dax",
    "sys/bus/memory",
    "sys/bus/node",
    "sys/devices/system/cpu",
    "sys/devices/system/memory",
    "sys/devices/system/node",
    "sys/devices/virtual/memory_tiering",
)
ALWAYS = ("sys/bus/cpu", "sys/devices/system/cpu")
COMPLETE = "uevent"
"""In every one of these directories of a kernel; recordings of what some program reads lack it."""
SAMPLES = 16
"""How many members of a family are looked at."""


def read_entries(snapshot: Snapshot, topology: Topology) -> Topology:
    """`topology` with the `absent` and `present` entries of the snapshot, where that is a complete recording."""
    whole = all(COMPLETE in snapshot.names(top) for top in ALWAYS)
    tree = Tree(Root, boot(topology), frozenset((Tier.KERNEL,)))
    absent: dict[str, bool] = {}
    """ABI path -> whether every directory that was looked at lacks it."""
    present: dict[str, None] = {}
    for top in TOPS:
        if COMPLETE not in snapshot.names(top):
            absent[f"/{top}"] = whole and not snapshot.names(top)
            continue
        for directory in _directories(tree, f"/{top}"):
            names = set(snapshot.names(directory.path.lstrip("/")))
            for name, declared in directory.DECLARED.items():
                what = f"{directory.WHAT}/{declared.label}"
                if declared.tier is not Tier.KERNEL:
                    continue
                if name in directory:
                    absent[what] = absent.get(what, True) and name not in names
                elif name in names and not declared.on(type(directory), tree.machine.build, tree.tiers):
                    present[what] = None
    return evolve(
        topology, absent=tuple(what for what, everywhere in absent.items() if everywhere), present=tuple(present)
    )


def _directories(tree: Tree, path: str) -> Iterator[Directory[Any]]:
    # those of the tree below `path`, of a large family the first ones
    try:
        directory = tree.lookup(path)
    except NoEntry:
        return
    assert isinstance(directory, Directory)
    yield directory
    for name in directory.DECLARED:
        yield from _below(tree, directory, name)
    for family in directory.FAMILIES:
        if isinstance(family, Directories):
            for name in islice(family.names(directory), SAMPLES):
                yield from _below(tree, directory, name)


def _below(tree: Tree, directory: Directory[Any], name: str) -> Iterator[Directory[Any]]:
    if isinstance(directory.lookup(name, tree.tiers), Directory):
        yield from _directories(tree, f"{directory.path}/{name}")
