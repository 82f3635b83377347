"""Small machines, built by hand, that several tests look at."""

import errno
from collections.abc import Collection

from tdxfs.boot import boot
from tdxfs.errors import Refusal
from tdxfs.model import (
    GIB,
    MIB,
    Access,
    Cpu,
    DaxDevice,
    DaxRegion,
    Machine,
    Memory,
    MemoryKind,
    Node,
    Provider,
    SideCache,
    TdxPlatform,
    Topology,
)
from tdxfs.ranges import Range
from tdxfs.root import Root
from tdxfs.sysfs.attribute import ALL_TIERS, Directory, Tier
from tdxfs.tree import Tree

MIXED = Topology(
    name="small",
    cpus=tuple(Cpu(n, node=n // 2, package=n // 2, core=n % 2) for n in range(4)),
    nodes=(
        Node(0, (Memory(Range(0, 2 * GIB)), Memory(Range(4 * GIB, 6 * GIB)))),
        Node(1, (Memory(Range(6 * GIB, 8 * GIB)),)),
        Node(
            2,
            (Memory(Range(8 * GIB, 10 * GIB)),),
            kind=MemoryKind.CXL,
            access0=Access((0,), 1000, 900, 300, 310),
            side_caches=(SideCache(1, 64 * MIB, 64),),
        ),
    ),
    distances=((10, 21, 30), (21, 10, 31), (30, 31, 10)),
    dax_regions=(
        DaxRegion(
            0,
            Provider.HMEM,
            Range(12 * GIB, 13 * GIB),
            target_node=3,
            numa_node=0,
            devices=(DaxDevice(0, (Range(12 * GIB, 13 * GIB),)),),
        ),
    ),
    tdx=TdxPlatform(cmrs=(Range(MIB, 2 * GIB), Range(4 * GIB, 7 * GIB))),
)
"""Node 0 capable, node 1 half, node 2 not; a dax device whose target node has no directory."""


def tree(topology: Topology = MIXED, tiers: Collection[Tier] = ALL_TIERS) -> Tree:
    """The tree of a topology under its own policies."""
    return Tree(Root, booted(topology), tiers)


def booted(topology: Topology = MIXED) -> Machine:
    return boot(topology)


def wrote(machine: Tree, path: str, text: str) -> str:
    """What write(2) returns: ok for all of it, else the errno's name."""
    try:
        count = machine.write(path, text.encode())
    except Refusal as refusal:
        return errno.errorcode[refusal.errno]
    assert count == len(text), f"{count} of {len(text)} bytes"
    return "ok"


def everything(tree):
    """The whole tree as text, and the machine's own fields."""
    files = {}
    for path, entry in tree.walk():
        if not isinstance(entry, Directory) and entry.mode & 0o444 and not path.startswith("/sys/kernel/debug"):
            try:
                files[path] = tree.read(path)
            except OSError as error:
                files[path] = error.errno
    machine = tree.machine
    return files, machine.blocks, machine.dax, machine.cpus_online, machine.log, machine.uevents, machine.generation
