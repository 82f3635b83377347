"""Boot: what each policy axis makes of a machine, and what the kernel log says."""

import pytest
from attrs import evolve
from hypothesis import given
from machines import MIXED
from strategies import tdx_topologies, topologies

from tdxfs.boot import boot
from tdxfs.model import (
    GIB,
    KERNELS,
    MIB,
    DaxDevice,
    DaxRegion,
    Driver,
    Memory,
    MemoryKind,
    MemoryLayout,
    Node,
    Provider,
    TdxPlatform,
    Topology,
    Why,
    Zone,
)
from tdxfs.policy import Boot, Cover, Firmware, Hotplug, Policies
from tdxfs.ranges import Range, Ranges

ERR, WARN, INFO = 3, 4, 6
BLOCK = 128 * MIB

CLEAN = Topology(
    nodes=(Node(0, (Memory(Range(0, 2 * GIB)), Memory(Range(4 * GIB, 8 * GIB)))),),
    tdx=TdxPlatform(cmrs=(Range(MIB, 16 * GIB),)),
)
"""All memory convertible."""
PIECES = evolve(CLEAN, nodes=(Node(0, tuple(Memory(Range(n * 2 * GIB, n * 2 * GIB + GIB)) for n in range(4))),))
"""Four stretches of RAM, each needs a TDMR of its own."""
HOLES = evolve(
    CLEAN, nodes=(Node(0, tuple(Memory(Range(n * 256 * MIB, n * 256 * MIB + 128 * MIB)) for n in range(4))),)
)
"""Four stretches of RAM in one TDMR: with the first MiB and its PAMT that makes six reserved areas."""


def tdx_log(topology, **axes):
    machine = boot(topology, evolve(topology.policies, **axes))
    return [
        (record.level, record.text.removeprefix("virt/tdx: "))
        for record in machine.log
        if record.text.startswith("virt/tdx: ")
    ]


def platform(topology, **changes):
    return evolve(topology, tdx=evolve(topology.tdx, **changes))


FOUND = (INFO, "BIOS enabled: private KeyID range [64, 128)")
VERSION = (INFO, "Module version: 1.5.05")
NEW, OLD = "TDX-Module", "module"


def failed(number):
    return (ERR, f"TDX-Module initialization failed (-{number})")


class TestLog:
    """Every message Linux can print on the way, with its exact text and level."""

    @pytest.mark.parametrize(("kernel", "module"), [("6.1", OLD), ("6.12", OLD), ("7.3", NEW)])
    def test_success(self, kernel, module):
        """KeyIDs, module version, PAMT size, and that it worked; older kernels call the module by another name."""
        pamt = (2 + 4) * (262_144 + 512) * 16 // 1024 + 2 * 4
        expected = [FOUND, VERSION, (INFO, f"{pamt} KB allocated for PAMT"), (INFO, f"{module} initialized")]

        assert expected == tdx_log(evolve(CLEAN, kernel=kernel))

    @pytest.mark.parametrize(("kernel", "module"), [("6.12", OLD), ("7.3", NEW)])
    def test_strict(self, kernel, module):
        """The first range of System RAM that is not convertible, and that TDX is off."""
        expected = [
            FOUND,
            VERSION,
            (ERR, "[0x1c0000000, 0x280000000) is not fully convertible memory"),
            (ERR, f"{module} initialization failed (-22)"),
        ]

        assert expected == tdx_log(evolve(MIXED, kernel=kernel), boot=Boot.STRICT)

    def test_too_few_keyids(self):
        """One private KeyID is the module's own, so a guest needs a second one."""
        expected = [
            (INFO, "BIOS enabled: private KeyID range [64, 65)"),
            (ERR, "initialization failed: too few private KeyIDs available."),
        ]

        assert expected == tdx_log(platform(CLEAN, keyids=1))

    def test_tdmrs_exhausted(self):
        """More pieces of memory than TDMRs."""
        expected = [FOUND, VERSION, (WARN, "initialization failed: TDMRs exhausted."), failed(28)]

        assert expected == tdx_log(platform(PIECES, max_tdmrs=3))

    def test_tdmrs_nearly_exhausted(self):
        """Fewer than four TDMRs left is worth a warning."""
        assert (WARN, "consumed TDMRs reaching limit: 4 used out of 7") in tdx_log(platform(PIECES, max_tdmrs=7))
        assert not [text for _, text in tdx_log(platform(PIECES, max_tdmrs=8)) if text.startswith("consumed")]

    def test_reserved_areas_exhausted(self):
        """More holes in a TDMR than it has reserved areas."""
        text = "initialization failed: TDMR [0x0, 0x40000000): reserved areas exhausted."

        assert (WARN, text) not in tdx_log(platform(HOLES, max_reserved_per_tdmr=6))
        assert [FOUND, VERSION] == tdx_log(platform(HOLES, max_reserved_per_tdmr=5))[:2]
        assert [(WARN, text), failed(28)] == tdx_log(platform(HOLES, max_reserved_per_tdmr=5))[-2:]

    def test_no_room_for_the_pamts(self):
        """4 MiB of PAMT do not fit into less memory."""
        tiny = evolve(CLEAN, nodes=(Node(0, (Memory(Range(0, 4 * MIB)),)),))

        assert [FOUND, VERSION, failed(12)] == tdx_log(tiny)

    def test_no_convertible_memory(self):
        """A module that is given no memory does not come up."""
        machine = boot(platform(CLEAN, cmrs=()))

        assert [FOUND, VERSION, failed(22)] == tdx_log(machine.built)
        assert machine.tdx.disabled_reason == "no memory is convertible"

    def test_range_rejected(self):
        """hotplug=reject-range says which range, end exclusive."""
        text = "Reject hot-adding memory range: 0x300000000-0x340000000 for TDX compatibility."

        assert tdx_log(KMEM, hotplug=Hotplug.REJECT_RANGE)[-1] == (INFO, text)
        assert not [text for _, text in tdx_log(KMEM, hotplug=Hotplug.REJECT) if text.startswith("Reject")]

    def test_off_and_absent(self):
        """boot=off ends after the BIOS's KeyIDs; without TDX nothing is said of it."""
        assert [FOUND] == tdx_log(CLEAN, boot=Boot.OFF)
        assert [] == tdx_log(evolve(CLEAN, tdx=None))

    @given(topologies())
    def test_times_ascend(self, topology):
        """Records come in order of time, one line each."""
        log = boot(topology).log

        assert [record.usec for record in log] == sorted({record.usec for record in log})
        assert not [record for record in log if "\n" in record.text]


class TestBootAxis:
    def test_off(self):
        """boot=off: no TDMRs, and a reason."""
        tdx = boot(CLEAN, Policies(boot=Boot.OFF)).tdx

        assert (tdx.enabled, tdx.tdmrs, tdx.disabled_reason) == (False, (), "booted with boot=off")

    def test_strict_needs_convertible_ram(self):
        """boot=strict comes up if all RAM above 1 MiB is convertible, and names the culprits if not."""
        assert boot(CLEAN, Policies(boot=Boot.STRICT)).tdx.enabled
        tdx = boot(MIXED, Policies(boot=Boot.STRICT)).tdx

        assert not tdx.enabled
        assert tdx.disabled_reason == "System RAM [0x1c0000000, 0x280000000) is not convertible memory"
        assert tdx.culprits == Ranges((Range(7 * GIB, 10 * GIB),))

    def test_mixed(self):
        """boot=mixed comes up with the convertible part."""
        assert boot(MIXED, Policies(boot=Boot.MIXED)).tdx.enabled

    @given(tdx_topologies)
    def test_strict_or_convertible(self, topology):
        """A machine that comes up strictly has no inconvertible RAM at boot, and comes up mixed as well."""
        strict = boot(topology, evolve(topology.policies, boot=Boot.STRICT))
        ram = Ranges.of(m.range for node in strict.topology.nodes for m in node.memory if not m.hotplug)
        inconvertible = ram - Ranges.of(topology.tdx.cmrs) - Ranges((Range(0, MIB),))

        assert not (strict.tdx.enabled and inconvertible)
        assert strict.tdx.culprits in (Ranges(), inconvertible)
        if strict.tdx.enabled:
            assert boot(topology, evolve(topology.policies, boot=Boot.MIXED)).tdx == strict.tdx

    @given(topologies())
    def test_reasons(self, topology):
        """TDX is enabled, or there is a reason; disabled TDX has no TDMRs and makes nothing capable."""
        machine = boot(topology)

        assert machine.tdx.enabled == (not machine.tdx.disabled_reason)
        if not machine.tdx.enabled:
            assert machine.tdx.tdmrs == ()
            assert Why.CAPABLE not in machine.tdx_memory.values


class TestFirmwareAxis:
    def test_takes_cxl_memory_away(self):
        """Inconvertible CXL memory is not on the map, and the machine remembers that it was built with it."""
        machine = boot(MIXED, Policies(firmware=Firmware.DISABLE_INCAPABLE))

        assert 2 not in machine.node_ram
        assert list(machine.hidden.runs()) == [(8 * GIB, 10 * GIB, 2)]
        assert machine.built is MIXED

    def test_leaves_other_memory(self):
        """Memory that is convertible, or not CXL, stays."""
        machine = boot(MIXED, Policies(firmware=Firmware.DISABLE_INCAPABLE))

        assert machine.node_ram[1] == Ranges((Range(6 * GIB, 8 * GIB),))

    def test_cxl_regions(self):
        """A CXL dax region goes as a whole, with its devices."""
        region = evolve(MIXED.dax_regions[0], kind=MemoryKind.CXL)
        machine = boot(evolve(MIXED, dax_regions=(region,)), Policies(firmware=Firmware.DISABLE_INCAPABLE))

        assert not machine.dax
        assert machine.hidden.get(12 * GIB) == 3

    @given(tdx_topologies)
    def test_what_is_hidden(self, topology):
        """What is hidden is CXL memory; no other CXL memory is inconvertible; the rest is as it was."""
        permissive = boot(topology, evolve(topology.policies, firmware=Firmware.PERMISSIVE))
        machine = boot(topology, evolve(topology.policies, firmware=Firmware.DISABLE_INCAPABLE))
        cmrs = Ranges.of(topology.tdx.cmrs)
        hidden = Ranges.of(Range(start, end) for start, end, _ in machine.hidden.runs())

        assert not permissive.hidden
        assert not hidden - cxl_memory(topology)
        assert not cxl_memory(machine.topology) - cmrs
        assert not cxl_memory(topology) - hidden - cmrs


def cxl_memory(topology):
    nodes = [m.range for node in topology.nodes if node.kind is MemoryKind.CXL for m in node.memory]
    return Ranges.of([*nodes, *(r.range for r in topology.dax_regions if r.kind is MemoryKind.CXL)])


MODULES = evolve(
    CLEAN,
    nodes=(*CLEAN.nodes, Node(1, (Memory(Range(8 * GIB, 9 * GIB), hotplug=True),))),
    tdx=TdxPlatform(cmrs=(Range(MIB, 8 * GIB + 512 * MIB),)),
)
"""A memory module that was hot-added; its first half is convertible."""
KMEM = evolve(
    CLEAN,
    dax_regions=(
        DaxRegion(
            0, Provider.HMEM, Range(12 * GIB, 13 * GIB), 2, 0, devices=(
                DaxDevice(0, (Range(12 * GIB, 13 * GIB),), Driver.KMEM),
            ),
        ),
    ),
    tdx=TdxPlatform(cmrs=(Range(MIB, 8 * GIB),)),
)  # fmt: skip
"""A dax device bound to kmem whose memory is not convertible."""


def states(machine, start, end):
    """State of each memory block of a range; None where there is no block."""
    found = [machine.blocks.get(number) for number in range(start // BLOCK, end // BLOCK)]
    return [block and block.online for block in found]


class TestHotplugAxis:
    @pytest.mark.parametrize(
        ("hotplug", "cover", "expected"),
        [
            (Hotplug.REJECT, Cover.RAM, [False] * 8),
            (Hotplug.REJECT, Cover.CONVERTIBLE, [True] * 4 + [False] * 4),
            (Hotplug.REJECT_RANGE, Cover.CONVERTIBLE, [None] * 8),
            (Hotplug.ALLOW, Cover.RAM, [True] * 8),
        ],
        ids=str,
    )
    def test_memory_module(self, hotplug, cover, expected):
        """reject keeps the blocks outside TDX memory offline, reject-range refuses the whole range, allow takes it."""
        machine = boot(MODULES, Policies(hotplug=hotplug, cover=cover))

        assert expected == states(machine, 8 * GIB, 9 * GIB)

    @pytest.mark.parametrize(
        ("hotplug", "driver", "expected"),
        [
            (Hotplug.REJECT, Driver.KMEM, [False] * 8),
            (Hotplug.REJECT_RANGE, None, [None] * 8),
            (Hotplug.ALLOW, Driver.KMEM, [True] * 8),
        ],
        ids=str,
    )
    def test_kmem(self, hotplug, driver, expected):
        """The same for dax memory; kmem's probe fails if its range is refused."""
        machine = boot(KMEM, Policies(hotplug=hotplug))

        assert expected == states(machine, 12 * GIB, 13 * GIB)
        assert machine.dax[0, 0].driver is driver

    def test_without_tdx_everything_goes_online(self):
        """The veto is TDX's: with TDX off there is none."""
        for hotplug in Hotplug:
            machine = boot(MODULES, Policies(boot=Boot.OFF, hotplug=hotplug))
            assert [True] * 8 == states(machine, 8 * GIB, 9 * GIB)

    @pytest.mark.parametrize(
        ("auto_online", "online", "zone"),
        [
            ("offline", False, None),
            ("online", True, Zone.NORMAL),
            ("online_kernel", True, Zone.NORMAL),
            ("online_movable", True, Zone.MOVABLE),
        ],
    )
    def test_auto_online(self, auto_online, online, zone):
        """auto_online_blocks decides whether new blocks go online, and in which zone."""
        topology = evolve(MODULES, memory=MemoryLayout(BLOCK, auto_online=auto_online))
        block = boot(topology, Policies(hotplug=Hotplug.ALLOW)).blocks.get(8 * GIB // BLOCK)

        assert (block.online, block.zone) == (online, zone)

    @given(tdx_topologies)
    def test_veto(self, topology):
        """Unless hotplug=allow, no block that came after boot is online with a page that TDX cannot use."""
        machine = boot(topology)
        size = topology.memory.block_size
        early = Ranges.of(m.range for node in topology.nodes for m in node.memory if not m.hotplug)

        if machine.tdx.enabled and machine.policies.hotplug is not Hotplug.ALLOW:
            for start, end, block in machine.blocks.runs():
                window = Range(start * size, end * size)
                if block.online and not Ranges((window,)) & early:
                    assert {why for _, _, why in machine.tdx_memory.within(window.start, window.end)} == {Why.CAPABLE}


class TestBlocks:
    @given(topologies())
    def test_wherever_there_is_ram(self, topology):
        """There is a block wherever there is RAM, it names the nodes whose memory lies in it, and nothing else."""
        machine = boot(topology)
        size = topology.memory.block_size
        expected = {}
        for start, end, nid in machine.ram.runs():
            for number in range(start // size, (end - 1) // size + 1):
                expected.setdefault(number, set()).add(nid)

        actual = {n: set(block.nodes) for start, end, block in machine.blocks.runs() for n in range(start, end)}

        assert expected == actual

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_state_and_zone(self, kernel):
        """The layout's lists say which blocks are offline and which movable; zones of those online follow addresses."""
        layout = MemoryLayout(BLOCK, offline="33", movable="34")
        machine = boot(evolve(CLEAN, kernel=kernel, memory=layout))
        expected = {
            0: (True, None),
            1: (True, Zone.DMA32),
            32: (True, Zone.NORMAL),
            33: (False, None),
            34: (True, Zone.MOVABLE),
        }

        assert expected == {n: (machine.blocks.get(n).online, machine.blocks.get(n).zone) for n in expected}


def test_hotplug_memory_stays_whole_blocks():
    """What the firmware leaves of a memory module are whole memory blocks, so that they can be added."""
    module = Node(1, (Memory(Range(8 * GIB, 9 * GIB), hotplug=True),), kind=MemoryKind.CXL)
    topology = evolve(
        MODULES, nodes=(*CLEAN.nodes, module), tdx=TdxPlatform(cmrs=(Range(MIB, 8 * GIB + BLOCK + 4096),))
    )
    machine = boot(topology, Policies(firmware=Firmware.DISABLE_INCAPABLE))

    assert machine.node_ram[1] == Ranges((Range(8 * GIB, 8 * GIB + BLOCK),))
    assert states(machine, 8 * GIB, 9 * GIB) == [False] + [None] * 7
