"""dax devices, their regions and the buses, held against what real kernels showed."""

import errno
import stat

import pytest
from attrs import evolve
from captures import GOLDEN, load_judge, needs_captures
from machines import tree

from tdxfs.errors import Refusal
from tdxfs.model import (
    GIB,
    MIB,
    Cpu,
    DaxDevice,
    DaxRegion,
    Driver,
    Memory,
    MemoryKind,
    MemoryLayout,
    Node,
    Provider,
    Topology,
)
from tdxfs.ranges import Range
from tdxfs.sysfs.attribute import Directory, Link
from tdxfs.tree import content, stat_of

PARTS = ("/sys/bus/", "/dax_region", "/dax0.", "/dax1.")

PLAIN = Topology(
    cpus=tuple(Cpu(n, node=n // 2, package=n // 2, core=n % 2) for n in range(4)),
    nodes=(Node(0, (Memory(Range(0, 512 * MIB)),)), Node(1, (Memory(Range(512 * MIB, GIB)),))),
    memory=MemoryLayout(auto_online="offline"),
)
WITH_HOLE = evolve(
    PLAIN,
    nodes=(
        *PLAIN.nodes,
        Node(2, (Memory(Range(GIB, 0x50000000)), Memory(Range(0x70000000, 0x80000000)))),
    ),
)
NAMESPACE, SOFT, CXL, CXL_PMEM = (
    Range(0x100200000, 0x140000000),
    Range(0x50000000, 0x70000000),
    Range(0x3D0000000, 0x410000000),
    Range(0x410200000, 0x430000000),
)


def nvdimm(driver, target=2, near=0):
    device = DaxDevice(0, (NAMESPACE,), driver)
    return DaxRegion(0, Provider.NVDIMM, Range(4 * GIB, 5 * GIB), target, near, devices=(device,))


def soft(*devices, **changes):
    return DaxRegion(0, Provider.HMEM, SOFT, 2, 2, devices=devices, **changes)


def cxl(driver):
    device = DaxDevice(0, (CXL,), driver, memmap_on_memory=True)
    return DaxRegion(0, Provider.CXL, CXL, 2, devices=(device,), kind=MemoryKind.CXL)


RAW = evolve(nvdimm(None), devices=())
PMEM = DaxRegion(1, Provider.NVDIMM, CXL_PMEM, 2, 0, devices=(DaxDevice(0, (CXL_PMEM,)),), kind=MemoryKind.CXL)
THREE = (
    DaxDevice(0, driver=None),
    DaxDevice(1, (Range(0x50000000, 0x58000000),)),
    DaxDevice(2, (Range(0x58000000, 0x5C000000),)),
    DaxDevice(3, (Range(0x5C000000, 0x70000000),)),
)
RESIZED = (
    DaxDevice(0, driver=None),
    DaxDevice(1, (Range(0x50000000, 0x5C000000), Range(0x6C000000, 0x70000000)), None),
    DaxDevice(3, (Range(0x5C000000, 0x6C000000),), None, minor=3),
)
STAGES = {
    "m4-k73/base": evolve(PLAIN, dax_regions=(RAW,)),
    "m4-k73/devdax": evolve(PLAIN, dax_regions=(nvdimm(Driver.DEVICE_DAX),)),
    "m4-k73/devdax-disabled": evolve(PLAIN, dax_regions=(nvdimm(None),)),
    "m5/kmem-offline": evolve(PLAIN, kernel="6.1", dax_regions=(nvdimm(Driver.KMEM),)),
    "m5-k612/kmem-offline": evolve(PLAIN, kernel="6.12", dax_regions=(nvdimm(Driver.KMEM),)),
    "m13-k73/kmem": evolve(PLAIN, dax_regions=(nvdimm(Driver.KMEM, 1, 1),)),
    "m7-k73/base": evolve(WITH_HOLE, dax_regions=(soft(DaxDevice(0, (SOFT,), Driver.KMEM)),)),
    "m7-k73/three-devices": evolve(WITH_HOLE, dax_regions=(soft(*THREE, youngest=3),)),
    "m7-k73/resized": evolve(WITH_HOLE, dax_regions=(soft(*RESIZED, youngest=3),)),
    "m9-k73/ram-region": evolve(PLAIN, dax_regions=(cxl(None),), kmem_driver=False),
    "m9-k73/ram-devdax": evolve(PLAIN, dax_regions=(cxl(Driver.DEVICE_DAX),), kmem_driver=False),
    "m9-k73/ram-kmem": evolve(PLAIN, dax_regions=(cxl(Driver.KMEM),)),
    "m9-k73/pmem-devdax": evolve(PLAIN, dax_regions=(cxl(Driver.KMEM), PMEM)),
}


def shown(entry):
    """What a reader gets, in the captures' form."""
    try:
        return content(entry)
    except Refusal as refusal:
        return ("err", errno.errorcode[refusal.errno])


@needs_captures
@pytest.mark.parametrize("stage", STAGES)
def test_as_the_kernel_showed_it(stage):
    """Names and their order, types, modes, sizes, link counts, link texts and contents are the same."""
    judge = load_judge()
    emulated = tree(STAGES[stage])
    compared = 0

    for path, want in judge.capture(str(GOLDEN / stage)):
        if not any(part in path for part in PARTS) or path.endswith("/uuid"):
            continue
        compared += 1
        entry = emulated.lookup(path)
        found = stat_of(entry)
        assert (want["t"], want["m"], want["sz"], want["nl"]) == (
            judge.KIND[stat.S_IFMT(found.mode)],
            f"{stat.S_IMODE(found.mode):04o}",
            found.size,
            emulated.nlink(entry),
        ), path
        if isinstance(entry, Link):
            assert want["l"] == entry.target, path
        elif isinstance(entry, Directory):
            names = [name for name, *_ in want["e"][2:] if not judge.OUT.search(f"{path}/{name}")]
            assert names == [name for name in emulated.list(path).names if not judge.OUT.search(f"{path}/{name}")], path
        elif stat.S_IMODE(found.mode) & 0o444:
            assert judge.content(want) == shown(entry), path

    assert compared > 50
