"""Every kind of machine there can be, as hypothesis strategies: the one place where tests get theirs.

Each topology is valid by construction (`validate.problems` finds nothing), small, and realistic in what matters:
its memory falls into blocks as real memory does, and is large enough that the 1 GiB rounding of TDMRs shows.
"""

from __future__ import annotations

from itertools import pairwise

from attrs import evolve, fields_dict
from hypothesis import strategies as st

from tdxfs import policy
from tdxfs.boot import boot
from tdxfs.idlist import format_list
from tdxfs.model import (
    GIB,
    HUGEPAGE_SIZES,
    KERNELS,
    MIB,
    NO_CACHE,
    NO_DIE,
    PAGE_SIZE,
    Access,
    Bar,
    Cache,
    Cgroup,
    Cpu,
    DaxDevice,
    DaxRegion,
    Driver,
    Memory,
    MemoryKind,
    MemoryLayout,
    MemoryModule,
    Node,
    PciDevice,
    Provider,
    SideCache,
    TdxPlatform,
    Topology,
    Uname,
)
from tdxfs.policy import Boot, Policies
from tdxfs.ranges import Range, Ranges, RunMap, align_down, align_up

# --- ranges -------------------------------------------------------------------------

SPACE = 48
"""Addresses that the small ranges below are made of."""

small_ranges = st.builds(
    lambda start, size: Range(start, start + size), st.integers(0, SPACE - 1), st.integers(1, SPACE // 3)
)
small_range_sets = st.lists(small_ranges, max_size=8).map(Ranges.of)


@st.composite
def run_maps(draw):
    """A RunMap of letters over `SPACE`, runs that touch included."""
    edges = sorted(draw(st.sets(st.integers(0, SPACE), max_size=10)))
    values = draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=len(edges), max_size=len(edges)))
    runs = zip(pairwise(edges), values, strict=False)
    return RunMap.of((start, end, value) for (start, end), value in runs if value)


# --- policies -----------------------------------------------------------------------

axes = {name: st.sampled_from(axis) for name, axis in policy.axes().items()}
boots = st.sampled_from([Boot.MIXED] * 4 + [Boot.STRICT, Boot.OFF])
policies = st.builds(Policies, **{**axes, "boot": boots})
"""All of them; most boot mixed, because then there is most to see."""

# --- topologies ---------------------------------------------------------------------

BLOCK_SIZES = (128 * MIB, 256 * MIB, 2 * GIB)
NODE_IDS = range(6)
TARGET_IDS = range(9)
"""Target nodes of dax regions: some of them no other memory has."""

odd_pages = st.sampled_from([1, 3, 64, 257, 5000]).map(lambda pages: pages * PAGE_SIZE)
gaps = st.one_of(st.just(0), st.sampled_from([128 * MIB, GIB, 3 * GIB]), odd_pages)


def sizes(unit, most=4 * GIB):
    """Whole multiples of `unit`, from one to what `most` allows."""
    return st.integers(1, max(1, min(8, most // unit))).map(lambda count: count * unit)


class Layout:
    """Physical memory while it is being handed out, from the bottom up."""

    def __init__(self, draw):
        self.draw = draw
        self.at = 0
        self.taken = []

    def take(self, unit, size):
        """The next `size` bytes at a multiple of `unit`, some way after what is taken."""
        start = align_up(self.at + self.draw(gaps), unit)
        return self.place(Range(start, start + size))

    def place(self, part):
        self.at = part.end
        self.taken.append(part)
        return part


@st.composite
def topologies(draw, tdx=(True, True, True, False)):
    """A machine of any kind; `tdx`: what to choose from whether its platform has TDX."""
    layout = Layout(draw)
    block_size = draw(st.sampled_from(BLOCK_SIZES))
    ids = draw(st.lists(st.sampled_from(NODE_IDS), min_size=1, max_size=4, unique=True))
    memory = draw(_memory(layout, ids, block_size))
    regions = draw(_dax_regions(layout, block_size, ids))
    devices = draw(_pci_devices(layout, ids))
    ids = sorted(ids)
    nodes = tuple(draw(_node(nid, ids, memory[nid])) for nid in ids)
    end = max(part.end for part in layout.taken)
    blocks = st.sets(st.integers(0, end // block_size), max_size=3)
    layout_of_memory = MemoryLayout(
        block_size,
        offline=format_list(draw(blocks)),
        movable=format_list(draw(blocks)),
        auto_online=draw(st.sampled_from(["online", "offline", "online_kernel", "online_movable"])),
    )
    caches = draw(st.sampled_from([(), CACHES]))
    return Topology(
        name="generated",
        kernel=draw(st.sampled_from(KERNELS)),
        cpus=draw(_cpus(ids, caches)),
        possible_cpus=draw(st.sampled_from([0, 16])),
        caches=caches,
        nodes=nodes,
        online_nodes=format_list(draw(st.sets(st.sampled_from(ids), max_size=1))),
        hugepage_sizes=draw(st.sampled_from([HUGEPAGE_SIZES, HUGEPAGE_SIZES, (2048, 64, 32768, 1048576), ()])),
        dmi=draw(st.sampled_from([{}, {"product_name": "X1", "board_serial": "", "chassis_type": "17"}])),
        memory_modules=draw(st.sampled_from([(), (MemoryModule(), MemoryModule("A1", serial="7", size=64 * GIB))])),
        uname=draw(st.sampled_from([None, Uname(), Uname("Linux", "host", "6.1.0", "#1 SMP", "x86_64", 4096)])),
        cgroup=draw(st.sampled_from([None, None, Cgroup(), Cgroup("/job/step", "0-2", "0,3")])),
        distances=draw(_distances(len(ids))),
        possible_nodes=format_list(draw(st.sets(st.sampled_from(range(12)), max_size=2))),
        generic_initiators=format_list(draw(st.sets(st.sampled_from(ids), max_size=1))),
        memory=layout_of_memory,
        dax_regions=regions,
        kmem_driver=any(d.driver is Driver.KMEM for region in regions for d in region.devices) or draw(st.booleans()),
        pci_devices=devices,
        tdx=draw(platforms(layout.taken)) if draw(st.sampled_from(tdx)) else None,
        policies=draw(policies),
    )


tdx_topologies = topologies(tdx=(True,))
machines = topologies().map(boot)
tdx_machines = tdx_topologies.map(boot)

CACHES = (
    Cache(1, "Data", 48 << 10, 12),
    Cache(1, "Instruction", 32 << 10, 8),
    Cache(2, "Unified", 2 * MIB, 16),
    Cache(3, "Unified", 60 * MIB, 15, shared="package"),
)


@st.composite
def _memory(draw, layout, ids, block_size):
    # the first stretch starts at 0, as on every x86 machine; a node may get several, or none
    found = {nid: [] for nid in ids}
    first = layout.place(Range(0, draw(st.sampled_from([16 * MIB, GIB, 2 * GIB, 2 * GIB + 5 * MIB]))))
    found[ids[0]].append(Memory(first))
    for nid in draw(st.lists(st.sampled_from(ids), max_size=5)):
        kind = draw(st.sampled_from(["blocks", "blocks", "odd", "hotplug"]))
        if kind == "odd":
            part = layout.take(PAGE_SIZE, draw(sizes(block_size)) + draw(odd_pages))
        else:
            part = layout.take(block_size, draw(sizes(block_size)))
        movable = kind == "hotplug" and draw(st.booleans())
        found[nid].append(Memory(part, hotplug=kind == "hotplug", movable=movable))
    return found


@st.composite
def _node(draw, nid, ids, memory):
    access = st.one_of(st.none(), st.builds(
        Access, st.lists(st.sampled_from(ids), min_size=1, max_size=2, unique=True).map(lambda i: tuple(sorted(i))),
        *[st.sampled_from([None, 310])] * 4,
    ))  # fmt: skip
    caches = st.sampled_from([(), (SideCache(1, GIB, 64, 1, 0, 1),)])
    return Node(
        nid,
        tuple(memory),
        draw(st.sampled_from(MemoryKind)),
        draw(access),
        draw(access),
        draw(caches),
        draw(st.sampled_from([3, 4, 8])),
        cpumap=draw(st.sampled_from([None, None, None, "", "0-1"])),
        gpu=draw(st.sampled_from(["", "", "", f"0035:0{nid}:00.0"])),
    )


@st.composite
def _cpus(draw, ids, caches):
    cpus = []
    for package, nid in enumerate(ids):
        for at in range(draw(st.sampled_from([0, 1, 2, 4]) if package else st.sampled_from([1, 2]))):
            online = not cpus or draw(st.booleans())
            cpus.append(Cpu(len(cpus), nid, package, core=at // 2, thread=at % 2, online=online))
    return tuple(evolve(cpu, **draw(_rare_of_cpu(cpu, caches))) for cpu in cpus)


@st.composite
def _rare_of_cpu(draw, cpu, caches):
    # what other architectures, and kernels that contradict themselves, say of a CPU
    if draw(st.sampled_from([True, True, False])):
        return {}
    return {
        "die": draw(st.sampled_from([None, NO_DIE])),
        "cache_ids": tuple(draw(st.sampled_from([NO_CACHE, cpu.id, cpu.package])) for _ in caches),
        "core_id": draw(st.sampled_from([None, 7])),
        "package_id": draw(st.sampled_from([None, -1])),
        "siblings": draw(st.sampled_from([{}, {"package": "0-3", "cache0": "0"}])),
        "book": cpu.package // 2,
        "drawer": draw(st.sampled_from([None, 0])),
        "max_frequency": draw(st.sampled_from([None, 3_000_000])),
        "base_frequency": draw(st.sampled_from([None, 2_000_000])),
        "capacity": draw(st.sampled_from([1024, 512])),
    }


@st.composite
def _distances(draw, count):
    if draw(st.booleans()):
        return ()
    other = st.sampled_from([11, 14, 21, 255])
    return tuple(tuple(10 if a == b else draw(other) for b in range(count)) for a in range(count))


@st.composite
def _dax_regions(draw, layout, block_size, ids):
    regions = []
    for number in sorted(draw(st.sets(st.integers(0, 4), max_size=3))):
        provider = draw(st.sampled_from(Provider))
        align = draw(st.sampled_from([PAGE_SIZE, 2 * MIB, 2 * MIB, GIB]))
        size = draw(sizes(max(align, block_size // 2)))
        whole = layout.take(draw(st.sampled_from([align, max(align, block_size)])), size)
        target = draw(st.one_of(st.none(), st.sampled_from(TARGET_IDS)))
        devices = draw(_dax_devices(whole, align, provider, target))
        known = st.sampled_from([None, *(device.id for device in devices)])
        regions.append(
            DaxRegion(
                number,
                provider,
                whole,
                target,
                numa_node=draw(st.sampled_from([None, *ids])),
                align=align,
                devices=devices,
                kind=draw(st.sampled_from(MemoryKind)),
                seed=draw(st.sampled_from([None, 7])) if provider is Provider.NVDIMM else draw(known),
                youngest=None if provider is Provider.NVDIMM else draw(known),
            )
        )
    return tuple(regions)


@st.composite
def _dax_devices(draw, whole, align, provider, target):
    # the region is dealt out to its devices in pieces; a device of a dynamic region may have several, or none
    cuts = draw(st.sets(st.integers(1, max(1, whole.size // align - 1)), max_size=3))
    edges = sorted({whole.start, whole.end, *(min(whole.start + cut * align, whole.end) for cut in cuts)})
    pieces = [Range(a, b) for a, b in pairwise(edges)]
    count = draw(st.sampled_from([0, 1, 1, 2]))
    drivers = [Driver.DEVICE_DAX, None, *([] if target is None else [Driver.KMEM])]
    mappings = {number: [] for number in range(count)}
    for at, piece in enumerate(pieces):
        if provider is Provider.NVDIMM:
            if at < count:
                mappings[at].append(piece)
        elif count and draw(st.booleans()):
            mappings[draw(st.sampled_from(range(count)))].append(piece)
    # the nd devices of namespaces are numbered by themselves
    static = provider is Provider.NVDIMM
    numbers = draw(st.permutations(range(count + 1))) if static and draw(st.booleans()) else [None] * count
    return tuple(
        DaxDevice(
            number,
            tuple(parts),
            draw(st.sampled_from(drivers)),
            memmap_on_memory=draw(st.booleans()),
            nd=numbers[number],
            map_on_pmem=static and draw(st.booleans()),
        )
        for number, parts in mappings.items()
        if parts or provider is not Provider.NVDIMM
    )


@st.composite
def _pci_devices(draw, layout, ids):
    devices = []
    for number in range(draw(st.sampled_from([0, 0, 1, 2]))):
        bars = []
        for index in sorted(draw(st.sets(st.integers(0, 5), min_size=1, max_size=2))):
            size = draw(st.sampled_from([PAGE_SIZE, 16 * MIB, 4 * GIB]))
            bars.append(Bar(index, layout.take(size, size), draw(st.booleans())))
        node = draw(st.sampled_from([-1, *ids]))
        devices.append(PciDevice(f"0000:{0x17 + number:02x}:00.0", 0x10DE, 0x2330, 0x030200, node, tuple(bars)))
    return tuple(devices)


@st.composite
def platforms(draw, taken):
    """A TDX platform whose CMRs hold all memory, or some stretches of it, or cut it anywhere on page boundaries."""
    end = max(part.end for part in taken)
    kind = draw(st.sampled_from(["all", "stretches", "anywhere"]))
    if kind == "all":
        cmrs = (Range(MIB, end + GIB),)
    elif kind == "stretches":
        cmrs = Ranges.of(part for part in taken if draw(st.booleans())).parts
    else:
        near = st.builds(
            lambda edge, offset: min(max(align_down(edge + offset, PAGE_SIZE), 0), end + GIB),
            st.one_of(
                st.sampled_from([edge for part in taken for edge in (part.start, part.end)]), st.integers(0, end)
            ),
            st.one_of(st.just(0), odd_pages, odd_pages.map(lambda offset: -offset)),
        )
        edges = sorted(draw(st.sets(near, min_size=2, max_size=10)))
        cmrs = tuple(Range(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False))
    rare = {"max_tdmrs": [1, 2, 4], "max_reserved_per_tdmr": [1, 3, 4], "keyids": [1]}
    defaults = fields_dict(TdxPlatform)
    numbers = {name: draw(st.sampled_from([*[defaults[name].default] * 19, *few])) for name, few in rare.items()}
    return TdxPlatform(cmrs, runtime_update=draw(st.booleans()), **numbers)
