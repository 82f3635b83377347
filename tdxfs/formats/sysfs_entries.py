"""What a recorded kernel shows more and less than the version that is emulated.

Configuration, back-ports and the versions in between decide which files there are. A recording says it by the names
in its directories; they are held against those that the topology itself would show. One of what hwloc reads has no
links and no unreadable files, of a directory all others or none.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from itertools import islice
from typing import Any

from attrs import evolve

from tdxfs.boot import boot
from tdxfs.errors import NoEntry
from tdxfs.formats.snapshot import Snapshot
from tdxfs.formats.sysfs_cache import ROOT
from tdxfs.formats.sysfs_node import NODES
from tdxfs.model import Topology
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Attribute, Declared, Directories, Directory, Subdirectory, Tier
from tdxfs.tree import Tree

TOPS = (
    "sys/bus/cpu",
    "sys/bus/dax",
    "sys/bus/memory",
    "sys/bus/node",
    ROOT,
    "sys/devices/system/memory",
    NODES,
    "sys/devices/virtual/memory_tiering",
)
ALWAYS = ("sys/bus/cpu", ROOT)
COMPLETE = "uevent"
"""In every one of these directories of a kernel; recordings of what some program reads lack it."""
GATHERED = (ROOT, NODES)
"""Of these, recordings of what hwloc reads hold every file or none."""
ELSEWHERE = (f"/{ROOT}/cpufreq",)
"""What older kernels lack although they have what is in it: below each CPU."""
OF_NODES = (
    f"/{NODES}",
    "/sys/bus/node",
    f"/{ROOT}/cpu<id>/node<id>",
    "/sys/devices/system/memory/memory<id>/node<id>",
    "/sys/bus/memory_tiering",
    "/sys/devices/virtual/memory_tiering",
    "/sys/kernel/mm/mempolicy",
    "/sys/kernel/mm/numa",
)
"""What a kernel has that knows of nodes."""
PROC = ("proc/cpuinfo", "proc/meminfo")
"""What a recording of a root directory holds if the kernel has it."""
SAMPLES = 16
"""How many members of a family are looked at."""


def read_entries(snapshot: Snapshot, topology: Topology) -> Topology:
    """`topology` with the `absent` and `present` entries of the snapshot, as far as it shows them."""
    whole = all(COMPLETE in snapshot.names(top) for top in ALWAYS)
    tree = Tree(Root, boot(topology), frozenset((Tier.KERNEL,)))
    absent: dict[str, bool] = {}
    """ABI path -> whether every directory that was looked at lacks it."""
    present: dict[str, None] = {}
    for top in TOPS:
        names = snapshot.names(top)
        if not names:
            absent[f"/{top}"] = whole
        elif COMPLETE in names or top in GATHERED:
            _compare(snapshot, tree, top, absent, present)
    if not snapshot.names(NODES):
        absent |= dict.fromkeys(OF_NODES, True)
    if snapshot.whole:
        absent |= {f"/{file}": not snapshot.read(file) for file in PROC}
    return evolve(
        topology, absent=tuple(what for what, everywhere in absent.items() if everywhere), present=tuple(present)
    )


def _compare(snapshot: Snapshot, tree: Tree, top: str, absent: dict[str, bool], present: dict[str, None]) -> None:
    complete = COMPLETE in snapshot.names(top)
    for directory in _directories(tree, f"/{top}"):
        path = directory.path.lstrip("/")
        names = set(snapshot.names(path))
        if not complete and not (names or posixpath.basename(path) in snapshot.names(posixpath.dirname(path))):
            # said of the directory itself
            continue
        for name, declared in directory.DECLARED.items():
            what = f"{directory.WHAT}/{declared.label}"
            if declared.tier is not Tier.KERNEL or not (complete or (_gathered(declared) and what not in ELSEWHERE)):
                continue
            if name in directory:
                absent[what] = absent.get(what, True) and name not in names
            elif name in names and not declared.on(type(directory), tree.machine.build, tree.tiers):
                present[what] = None


def _gathered(declared: Declared) -> bool:
    # programs that record what another program reads leave out links and what cannot be read
    return isinstance(declared, Subdirectory) or (isinstance(declared, Attribute) and bool(declared.mode & 0o444))


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
