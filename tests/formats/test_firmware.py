"""What Linux makes of what firmware says: the memory map, memory blocks, HMAT, dax regions."""

import pytest
from attrs import evolve

from tdxfs.errors import UserError
from tdxfs.formats.firmware.facts import (
    Firmware,
    Hmat,
    Locality,
    MapEntry,
    MapKind,
    MemoryAffinity,
    Metric,
    PersistentRange,
    Processor,
)
from tdxfs.formats.firmware.memory_map import apply_cmdline, of_kind, parse_memory_map, ram_of
from tdxfs.formats.firmware.numa import read_firmware
from tdxfs.formats.firmware.pfn_device import MapMode, devdax_range
from tdxfs.formats.firmware.unsaid import Unsaid, default_base
from tdxfs.model import GIB, KIB, MIB, Driver, Provider, Topology
from tdxfs.ranges import Range

OLD = """
[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
[    0.000000] BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff] reserved
[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000003fffffff] usable
[    0.000000] BIOS-e820: [mem 0x0000000100000000-0x000000013fffffff] soft reserved
[    0.000000] BIOS-e820: [mem 0x0000000200000000-0x000000023fffffff] persistent (type 7)
"""
NEW = OLD.replace("usable", " System RAM").replace("] reserved", "]  device reserved").replace("soft", " soft")
EFI = """
efi: mem00: [Boot Code   |   |  |  |  |  |  |  |  |   |WB|WT|WC|UC] range=[0x0000000000000000-0x000000000009fbff]
efi: mem01: [Conventional|   |  |  |  |  |  |  |  |   |WB|WT|WC|UC] range=[0x0000000000100000-0x000000003fffffff]
efi: mem02: [Conventional|   |  |SP|  |  |  |  |  |   |WB|WT|WC|UC] range=[0x0000000100000000-0x000000013fffffff]
efi: mem03: [Persistent  |   |  |  |NV|  |  |  |  |   |WB|WT|WC|UC] range=[0x0000000200000000-0x000000023fffffff]
"""
IOMEM = """
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-3fffffff : System RAM
  01000000-01ffffff : Kernel code
100000000-13fffffff : Soft Reserved
"""


@pytest.mark.parametrize("text", [OLD, NEW, EFI, IOMEM], ids=["e820", "newer e820", "EFI", "iomem"])
def test_memory_maps(text):
    """All forms in which a kernel prints the map say the same; page 0 and the hole below 1 MiB are no RAM."""
    entries = parse_memory_map(text)

    assert ram_of(entries).parts == (Range(0x1000, 0x9F000), Range(MIB, GIB))
    assert of_kind(entries, MapKind.SOFT_RESERVED).parts == (Range(4 * GIB, 5 * GIB),)


def test_no_memory_map():
    """A file without a map is refused."""
    with pytest.raises(UserError, match="log: has neither"):
        parse_memory_map("nothing\n", "log")


MAP = (MapEntry(Range(0, 4 * GIB), MapKind.RAM),)


@pytest.mark.parametrize(
    ("cmdline", "ram", "soft"),
    [
        ("quiet mem=1G", [Range(0, GIB)], []),
        ("mem=nopentium", [Range(0, 4 * GIB)], []),
        ("memmap=1G$1G", [Range(0, GIB), Range(2 * GIB, 4 * GIB)], []),
        ("memmap=1G!1G memmap=0x40000000#3G", [Range(0, GIB), Range(2 * GIB, 3 * GIB)], []),
        ("memmap=exactmap,1G@1G", [Range(GIB, 2 * GIB)], []),
        ("memmap=512M%0x40000000-1+0xefffffff", [Range(0, GIB), Range(1536 * MIB, 4 * GIB)], [Range(GIB, 1536 * MIB)]),
        ("memmap=1G%4G-1+0xefffffff", [Range(0, 4 * GIB)], []),
        ("memmap=1G%4G+1", [Range(0, 5 * GIB)], []),
        ("memmap=1G%0-1", [Range(GIB, 4 * GIB)], []),
        ("memmap=2G", [Range(0, 2 * GIB)], []),
    ],
)  # fmt: skip
def test_memory_map_parameters(cmdline, ram, soft):
    """memmap= and mem= change the map as Linux documents them."""
    entries = apply_cmdline(MAP, cmdline)

    assert list(of_kind(entries, MapKind.RAM)) == ram
    assert list(of_kind(entries, MapKind.SOFT_RESERVED)) == soft


@pytest.mark.parametrize("word", ["memmap=some", "memmap=1G%1G-x", "mem=many"])
def test_wrong_memory_map_parameters(word):
    """A parameter that cannot be read is named."""
    with pytest.raises(UserError, match=word):
        apply_cmdline(MAP, word)


def machine(*memory, **more):
    """Firmware with one processor and this memory."""
    return Firmware(processors=(Processor(0),), processor_domains={0: 0}, memory=memory, **more)


def block_size(end, kernel="7.3", **more):
    firmware = machine(MemoryAffinity(0, Range(0, end)), **more)
    return read_firmware(firmware, Topology(kernel=kernel)).memory.block_size


def test_block_sizes():
    """Memory blocks are small below 64 GiB, 2 GiB on bare metal, and fit the end of memory in a virtual machine."""
    assert block_size(63 * GIB) == 128 * MIB
    assert block_size(65 * GIB) == 2 * GIB
    assert block_size(65 * GIB, hypervisor=True) == GIB
    assert block_size(65 * GIB + 128 * MIB, hypervisor=True) == 128 * MIB
    window = (Range(128 * GIB + 256 * MIB, 130 * GIB),)
    assert block_size(65 * GIB, windows=window) == 256 * MIB
    assert block_size(65 * GIB, kernel="6.12", windows=window) == 2 * GIB


def test_movable_node():
    """With movable_node, hotpluggable memory that is there at boot is movable."""
    firmware = machine(
        MemoryAffinity(0, Range(0, GIB)),
        MemoryAffinity(0, Range(GIB, 2 * GIB), hotplug=True),
        memory_map=(MapEntry(Range(0, 2 * GIB), MapKind.RAM),),
    )

    assert [part.movable for part in read_firmware(firmware, Topology()).nodes[0].memory] == [False, False]
    with_it = read_firmware(firmware, Topology(cmdline="movable_node"))
    assert [part.movable for part in with_it.nodes[0].memory] == [False, False, True]


LATENCY, BANDWIDTH = (Metric.WRITE_LATENCY, Metric.READ_LATENCY), (Metric.WRITE_BANDWIDTH, Metric.READ_BANDWIDTH)


def test_best_initiators():
    """Without an attached initiator those that are best in all respects are; access1 has only those with CPUs."""
    values = {(0, 2): 100, (1, 2): 100, (3, 2): 50}
    firmware = Firmware(
        processors=(Processor(0), Processor(16)),
        processor_domains={0: 0, 16: 1},
        initiators=(3,),
        memory=tuple(MemoryAffinity(domain, Range(domain * GIB, (domain + 1) * GIB)) for domain in range(3)),
        hmat=Hmat(
            {}, (Locality(LATENCY, values), Locality((Metric.READ_BANDWIDTH,), {(0, 2): 7, (1, 2): 8, (3, 2): 9}))
        ),
    )
    topology = read_firmware(firmware, Topology())
    node = topology.nodes[3]

    # domains are met in the order 0, 1, 3, 2
    assert topology.generic_initiators == "2"
    assert (node.access0.initiators, node.access0.read_latency, node.access0.read_bandwidth) == ((2,), 50, 9)
    assert (node.access1.initiators, node.access1.read_latency, node.access1.read_bandwidth) == ((1,), 100, 8)
    assert node.access1.write_bandwidth == 0


@pytest.mark.parametrize(("kernel", "tier"), [("7.3", 56), ("6.12", 56), ("6.1", 4)])
def test_memory_tiers(kernel, tier):
    """Memory is put into a tier by its latency and bandwidth against the first DRAM node's."""
    firmware = machine(
        MemoryAffinity(0, Range(0, GIB)),
        MemoryAffinity(1, Range(GIB, 2 * GIB)),
        hmat=Hmat(
            {0: 0, 1: 0},
            (Locality(LATENCY, {(0, 0): 80, (0, 1): 250}), Locality(BANDWIDTH, {(0, 0): 204800, (0, 1): 51200})),
        ),
    )

    assert [node.memory_tier for node in read_firmware(firmware, Topology(kernel=kernel)).nodes] == [4, tier]


def test_namespace_geometry():
    """Page structs on the device take 64 bytes a page from it; 2 MiB are kept for the info block otherwise."""
    region = Range(4 * GIB, 5 * GIB)

    assert devdax_range(region, 2 * MIB, MapMode.MEM) == Range(4 * GIB + 2 * MIB, 5 * GIB)
    assert devdax_range(region, 4 * KIB, MapMode.DEV) == Range(4 * GIB + 18 * MIB, 5 * GIB)


def test_persistent_and_soft_reserved_memory():
    """NVDIMM regions come first, kmem takes soft-reserved memory by itself; numa_node is the nearest online node."""
    firmware = machine(
        MemoryAffinity(0, Range(0, GIB)),
        MemoryAffinity(2, Range(8 * GIB, 9 * GIB), nonvolatile=True),
        MemoryAffinity(1, Range(16 * GIB, 17 * GIB)),
        persistent=(PersistentRange(Range(8 * GIB, 9 * GIB), 2),),
        memory_map=(MapEntry(Range(0, GIB), MapKind.RAM), MapEntry(Range(16 * GIB, 17 * GIB), MapKind.SOFT_RESERVED)),
        distances=((10, 20, 30), (20, 10, 40), (30, 40, 10)),
    )
    raw = read_firmware(firmware, Topology())
    given = read_firmware(firmware, Topology(), Unsaid(devdax=True, driver=Driver.KMEM))

    assert raw.dax_regions[0].devices == ()
    assert [(r.provider, r.target_node, r.numa_node, r.devices[0].driver) for r in given.dax_regions] == [
        (Provider.NVDIMM, 1, 0, Driver.KMEM),
        (Provider.HMEM, 2, 0, Driver.KMEM),
    ]


def test_windows_bring_possible_nodes():
    """A CXL window that SRAT does not describe makes a node of its own possible; one that it does, does not."""
    firmware = machine(
        MemoryAffinity(0, Range(0, GIB)),
        MemoryAffinity(5, Range(8 * GIB, 9 * GIB), hotplug=True),
        windows=(Range(16 * GIB, 20 * GIB), Range(8 * GIB, 12 * GIB), Range(32 * GIB, 36 * GIB)),
    )

    assert read_firmware(firmware, Topology()).possible_nodes == "2-3"


def test_base_for_a_kernel():
    """Memory goes online by itself on newer kernels, unless the command line says something else."""
    assert default_base(kernel="6.1").memory.auto_online == "offline"
    assert default_base(kernel="7.3").memory.auto_online == "online"
    assert default_base(cmdline="memhp_default_state=online_movable").memory.auto_online == "online_movable"
    like = evolve(Topology(), memory=evolve(Topology().memory, auto_online="offline"))
    assert default_base(like).memory.auto_online == "offline"
