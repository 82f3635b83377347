"""Topologies as QEMU command lines, and back."""

import pytest
from attrs import evolve
from captures import needs_captures
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from shown import difference, recorded, shown

from tdxfs.cli import main
from tdxfs.errors import UserError
from tdxfs.formats.firmware.pfn_device import MapMode, devdax_range
from tdxfs.formats.qemu import import_qemu
from tdxfs.formats.qemu.export import export_qemu, told, unsaid_of
from tdxfs.formats.topology import find
from tdxfs.model import (
    GIB,
    MIB,
    Access,
    Cpu,
    DaxDevice,
    DaxRegion,
    Driver,
    Memory,
    MemoryKind,
    MemoryLayout,
    Node,
    Provider,
    SideCache,
    Topology,
)
from tdxfs.ranges import Range

BLOCK = 128 * MIB


@st.composite
def topologies(draw):
    """Machines that a command line can express, HMAT and NVDIMMs included."""
    sockets, cores, threads = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)))
    cpus = tuple(
        Cpu(
            index,
            index // (cores * threads),
            index // (cores * threads),
            core=index // threads % cores,
            thread=index % threads,
        )
        for index in range(sockets * cores * threads)
    )
    # sizes of the nodes' RAM; those of sockets have some
    extra = draw(st.integers(0, 2))
    sizes = [draw(st.integers(4, 24)) * BLOCK for _ in range(sockets + extra)]
    total = sum(sizes)
    below = total if total < 0xB0000000 else draw(st.sampled_from([GIB, 2 * GIB]))
    hmat = draw(st.booleans())
    nodes, at = [], 0
    for nid, size in enumerate(sizes):
        low, high = min(at + size, below), max(at, below)
        parts = [Memory(Range(at, low))] if at < low else []
        parts += [Memory(Range(high - below + 4 * GIB, at + size - below + 4 * GIB))] if high < at + size else []
        nodes.append(Node(nid, tuple(parts), **(draw(performance(nid, sockets)) if hmat else {})))
        at += size
    end = 4 * GIB + total - below
    base = -(-end // GIB) * GIB
    count = len(sizes)
    regions, hot = [], draw(st.booleans())
    if hot:
        nodes[-1] = evolve(nodes[-1], memory=(*nodes[-1].memory, Memory(Range(base, base + 4 * BLOCK), hotplug=True)))
        base += 4 * BLOCK
    devdax, where = draw(st.sampled_from([None, Driver.DEVICE_DAX, Driver.KMEM])), draw(st.sampled_from(MapMode))
    for number in range(draw(st.integers(0, 2))):
        whole = Range(base, base + draw(st.integers(1, 8)) * BLOCK)
        base = whole.end
        target = draw(st.integers(0, count - 1))
        data = devdax_range(whole, 2 * MIB, where)
        devices = (DaxDevice(0, (data,), devdax, map_on_pmem=where is MapMode.DEV),) if devdax else ()
        regions.append(
            DaxRegion(number, Provider.NVDIMM, whole, target, target, kind=MemoryKind.NVDIMM, devices=devices)
        )
    rows = [[10 if a == b else draw(st.integers(11, 254)) for b in range(count)] for a in range(count)]
    return Topology(
        cpus=cpus,
        nodes=tuple(nodes),
        distances=tuple(map(tuple, rows)) if count > 1 else (),
        memory=MemoryLayout(auto_online=draw(st.sampled_from(["online", "offline", "online_movable"]))),
        dax_regions=tuple(regions),
        kernel=draw(st.sampled_from(["6.1", "6.12", "7.3"])),
        cmdline="quiet",
    )


@st.composite
def performance(draw, nid, sockets):
    """The HMAT attributes of a node; those of memory that is as slow as DRAM, so that its tier is DRAM's."""
    initiator = nid if nid < sockets else draw(st.integers(0, sockets - 1))
    numbers = st.integers(1, 60000)
    if nid < sockets:
        access = Access((initiator,), draw(numbers), draw(numbers), draw(numbers), draw(numbers))
    else:
        access = Access((initiator,), 0, 0, 0, 0)
    caches = draw(st.lists(st.builds(
        SideCache, level=st.just(1), size=st.integers(1, 1 << 40), line_size=st.integers(0, 4096),
        indexing=st.integers(0, 2), write_policy=st.integers(0, 2),
    ), max_size=1))  # fmt: skip
    return {"access0": access, "access1": access, "side_caches": tuple(caches)}


@given(topologies())
def test_there_and_back(topology):
    """What a command line can say of a topology comes back from it, and a second time everything else too."""
    back = import_qemu(export_qemu(topology), topology, unsaid_of(topology))
    again = import_qemu(export_qemu(back), back, unsaid_of(back))

    assert list(told(topology)) == list(told(back))
    assert again == back


@pytest.mark.parametrize("name", ["clean", "hotplug", "no-tdx", "optane", "partial"])
def test_built_in_machines(name):
    """A built-in machine that QEMU can make shows the same after the round trip."""
    topology = evolve(find(name), kernel="6.1")
    back = import_qemu(export_qemu(topology), topology, unsaid_of(topology))

    for top in ("/sys/devices/system/node", "/sys/devices/system/cpu"):
        assert difference(shown(topology, top), shown(back, top)) == {}


@needs_captures
@pytest.mark.parametrize("stage", ["m1/base", "m2-k73/base", "m3-k73/base", "m4-k73/base", "m9-k73/base", "m15/base"])
def test_captured_machines(stage):
    """So does a captured machine."""
    topology, _ = recorded(stage)
    back = import_qemu(export_qemu(topology), topology, unsaid_of(topology))

    assert difference(shown(topology), shown(back)) == {}


SIMPLE = Topology(cpus=(Cpu(0),), nodes=(Node(0, (Memory(Range(0, GIB)),)),))


def test_soft_reserved_memory():
    """A kernel parameter makes soft-reserved memory out of a node's RAM."""
    where = Range(GIB, 2 * GIB)
    region = DaxRegion(
        0, Provider.HMEM, where, 0, 0, kind=MemoryKind.HBM, devices=(DaxDevice(0, (where,), Driver.KMEM),)
    )
    topology = evolve(SIMPLE, dax_regions=(region,))
    command = export_qemu(topology)

    assert "memmap=1024M%0x40000000-1+0xefffffff memhp_default_state=online" in command
    assert import_qemu(command, topology).dax_regions == (region,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nodes": (Node(0, (Memory(Range(GIB, 2 * GIB)),)),)}, "memory: QEMU would make"),
        ({"nodes": (Node(1, (Memory(Range(0, GIB)),)),), "cpus": (Cpu(0, node=1),)}, "nodeid"),
        ({"cpus": (Cpu(0), Cpu(1, online=False, core=1))}, "cpus that are offline"),
        ({"cpus": (Cpu(0, package=1),)}, "cpus: QEMU would make"),
        ({"memory": MemoryLayout(offline="2")}, "memory.offline"),
        ({"nodes": (evolve(SIMPLE.nodes[0], kind=MemoryKind.CXL),)}, "kind"),
        ({"dax_regions": (DaxRegion(0, Provider.CXL, Range(8 * GIB, 9 * GIB), 1, kind=MemoryKind.CXL),)}, "after boot"),
        ({"nodes": tuple(Node(nid) for nid in range(129))}, "at most 128"),
    ],
)
def test_what_a_command_line_cannot_say(changes, words):
    """A topology that QEMU cannot make is refused in one line with the reason."""
    with pytest.raises(UserError) as refused:
        export_qemu(evolve(SIMPLE, **changes))

    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_commands(tmp_path):
    """export qemu prints the command line, which import qemu reads."""
    printed = CliRunner().invoke(main, ["export", "qemu", "clean"])
    (tmp_path / "clean.sh").write_text(printed.stdout)
    read = CliRunner().invoke(main, ["import", "qemu", str(tmp_path / "clean.sh"), "--like", "clean"])
    refused = CliRunner().invoke(main, ["export", "qemu", "mixed"])

    assert (printed.exit_code, read.exit_code, refused.exit_code) == (0, 0, 1)
    assert printed.stdout.startswith("qemu-system-x86_64 -machine q35 ")
    assert refused.stderr.startswith("tdxfs: mixed: pci_devices[")
