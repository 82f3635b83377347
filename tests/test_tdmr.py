"""How TDMRs, PAMTs and reserved areas are built; compare arch/x86/virt/vmx/tdx/tdx.c."""

from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from strategies import tdx_machines, tdx_topologies

from tdxfs.boot import boot
from tdxfs.model import GIB, MIB, PAGE_SIZE, TdxPlatform
from tdxfs.policy import Cover
from tdxfs.ranges import Range, Ranges
from tdxfs.tdmr import Exhausted, NoRoom, TdxMemblock, construct_tdmrs, fill_out_tdmrs, pamt_bytes, reserved_areas


def blocks(*edges, nid=0):
    return [TdxMemblock(Range(start, end), nid) for start, end in edges]


class TestFillOut:
    @pytest.mark.parametrize(
        ("memory", "expected"),
        [
            ([(MIB, 2 * GIB)], [(0, 2 * GIB)]),
            ([(MIB, 2 * GIB + PAGE_SIZE)], [(0, 3 * GIB)]),
            ([(0, GIB), (GIB, 2 * GIB)], [(0, GIB), (GIB, 2 * GIB)]),
            ([(0, GIB - MIB), (GIB - MIB, GIB)], [(0, GIB)]),
            ([(0, GIB + MIB), (2 * GIB - MIB, 3 * GIB)], [(0, 2 * GIB), (2 * GIB, 3 * GIB)]),
            ([(0, MIB), (8 * GIB - MIB, 8 * GIB)], [(0, GIB), (7 * GIB, 8 * GIB)]),
        ],
        ids=["aligned down", "aligned up", "one per region", "already covered", "the rest of it", "far apart"],
    )
    def test_one_per_region(self, memory, expected):
        """A TDMR per stretch of memory, 1 GiB aligned, without what the one before covers."""
        assert [Range(*edges) for edges in expected] == fill_out_tdmrs(blocks(*memory), 64)

    def test_limit(self):
        """As many TDMRs as the module takes are built; one more ends the initialisation."""
        memory = blocks(*((n * 2 * GIB, n * 2 * GIB + GIB) for n in range(4)))

        assert len(fill_out_tdmrs(memory, 4)) == 4
        with pytest.raises(Exhausted, match=r"^initialization failed: TDMRs exhausted\.$") as caught:
            fill_out_tdmrs(memory, 3)
        assert caught.value.limit == "tdmrs"

    def test_no_memory(self):
        """No TDX memory makes no TDMR."""
        assert fill_out_tdmrs([], 64) == []


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        (1, (262_144 + 512) * 16 + PAGE_SIZE),
        (16, 16 * (262_144 + 512) * 16 + PAGE_SIZE),
        (300, 300 * (262_144 + 512) * 16 + 2 * PAGE_SIZE),
    ],
)
def test_pamt_size(gib, expected):
    """16 bytes per 4 KiB, 2 MiB and 1 GiB page, each of the three arrays in whole pages."""
    assert expected == pamt_bytes(Range(0, gib * GIB), 16)


class TestReservedAreas:
    tdmr = Range(GIB, 2 * GIB)

    def test_holes_and_pamts(self):
        """What is not TDX memory, and PAMTs; an area of each kind, although they touch."""
        memory = Ranges.of([Range(GIB, GIB + 8 * MIB), Range(GIB + 16 * MIB, 2 * GIB)])
        pamts = Ranges((Range(GIB + 16 * MIB, GIB + 20 * MIB),))
        expected = (Range(GIB + 8 * MIB, GIB + 16 * MIB), Range(GIB + 16 * MIB, GIB + 20 * MIB))

        assert expected == reserved_areas(self.tdmr, memory, pamts, 2)

    def test_limit(self):
        """One area more than the module takes ends the initialisation, and names the TDMR."""
        memory = Ranges.of(Range(GIB + n * MIB, GIB + n * MIB + PAGE_SIZE) for n in range(4))

        assert len(reserved_areas(self.tdmr, memory, Ranges(), 4)) == 4
        text = r"^initialization failed: TDMR \[0x40000000, 0x80000000\): reserved areas exhausted.$"
        with pytest.raises(Exhausted, match=text) as caught:
            reserved_areas(self.tdmr, memory, Ranges(), 3)
        assert caught.value.limit == "reserved"


class TestConstruct:
    def test_pamt_comes_from_the_local_node(self):
        """The node is that of the first memory which ends after the TDMR's base (tdmr_get_nid)."""
        memory = [TdxMemblock(Range(0, GIB + MIB), 0), TdxMemblock(Range(GIB + MIB, 4 * GIB), 1)]
        asked = []

        def allocate(size, nid):
            asked.append((size, nid))
            return Range(3 * GIB + len(asked) * 64 * MIB, 3 * GIB + len(asked) * 64 * MIB + size)

        tdmrs = construct_tdmrs(memory, TdxPlatform(), allocate, pytest.fail)

        assert [tdmr.range for tdmr in tdmrs] == [Range(0, 2 * GIB), Range(2 * GIB, 4 * GIB)]
        assert asked == [(pamt_bytes(tdmr.range, 16), nid) for tdmr, nid in zip(tdmrs, (0, 1), strict=True)]

    def test_no_room(self):
        """Without a place for a PAMT there are no TDMRs."""
        with pytest.raises(NoRoom):
            construct_tdmrs(blocks((0, GIB)), TdxPlatform(), lambda size, nid: None, pytest.fail)

    @pytest.mark.parametrize(("count", "warned"), [(60, False), (61, True), (64, True)])
    def test_warning_when_few_are_left(self, count, warned):
        """Fewer than four TDMRs left: Linux warns."""
        memory = blocks(*((n * 2 * GIB, n * 2 * GIB + GIB) for n in range(count)))
        said = []
        places = iter(range(200 * GIB, 300 * GIB, GIB))

        def allocate(size, nid):
            start = next(places)
            return Range(start, start + size)

        construct_tdmrs(memory, TdxPlatform(), allocate, said.append)

        assert said == ([f"consumed TDMRs reaching limit: {count} used out of 64"] if warned else [])


class TestOfAnyMachine:
    @given(tdx_machines)
    def test_tdmrs(self, machine):
        """TDMRs are 1 GiB aligned, sorted and disjoint, and there are no more than the module takes."""
        tdmrs = [tdmr.range for tdmr in machine.tdx.tdmrs]

        assert all(tdmr.start % GIB == tdmr.end % GIB == 0 for tdmr in tdmrs)
        assert all(a.end <= b.start for a, b in pairwise(tdmrs))
        assert len(tdmrs) <= machine.topology.tdx.max_tdmrs

    @given(tdx_machines)
    def test_reserved_areas(self, machine):
        """Reserved areas are sorted, disjoint, page aligned, inside their TDMR, and within the limit."""
        for tdmr in machine.tdx.tdmrs:
            assert all(tdmr.range.covers(area) for area in tdmr.reserved)
            assert all(a.end <= b.start for a, b in pairwise(tdmr.reserved))
            assert all(edge % PAGE_SIZE == 0 for area in tdmr.reserved for edge in (area.start, area.end))
            assert len(tdmr.reserved) <= machine.topology.tdx.max_reserved_per_tdmr

    @given(tdx_machines)
    def test_what_tdmrs_leave_is_tdx_memory(self, machine):
        """Every byte of a TDMR is convertible, or reserved; the first MiB and every PAMT are reserved."""
        cmrs = Ranges.of(machine.topology.tdx.cmrs)
        tdmrs = Ranges.of(tdmr.range for tdmr in machine.tdx.tdmrs)
        reserved = Ranges.of(area for tdmr in machine.tdx.tdmrs for area in tdmr.reserved)
        never = Ranges.of([Range(0, MIB), *(tdmr.pamt for tdmr in machine.tdx.tdmrs)])

        assert not tdmrs - reserved - cmrs
        assert not (tdmrs & never) - reserved

    @given(tdx_machines)
    def test_pamts(self, machine):
        """PAMTs have their size, are disjoint, and lie in convertible RAM that is online and not movable."""
        size = machine.topology.memory.block_size
        cmrs = Ranges.of(machine.topology.tdx.cmrs)
        pamts = [tdmr.pamt for tdmr in machine.tdx.tdmrs]

        assert [pamt_bytes(tdmr.range, 16) for tdmr in machine.tdx.tdmrs] == [pamt.size for pamt in pamts]
        assert sum(pamt.size for pamt in pamts) == Ranges.of(pamts).size
        for pamt in pamts:
            assert cmrs.covers(pamt)
            for number in range(pamt.start // size, (pamt.end - 1) // size + 1):
                block = machine.blocks.get(number)
                assert block.online and (block.zone is None or block.zone.value != "Movable")

    @given(tdx_topologies, st.sampled_from(Cover))
    def test_cover(self, topology, cover):
        """
        cover=ram leaves TDX memory to the convertible RAM present at boot, cover=convertible to every
        convertible byte above the first MiB.
        """
        machine = boot(topology, evolve(topology.policies, cover=cover))
        boot_ram = Ranges.of(m.range for node in machine.topology.nodes for m in node.memory if not m.hotplug)
        wanted = boot_ram if cover is Cover.RAM else Ranges((Range(0, 1 << 52),))
        wanted = (wanted & Ranges.of(topology.tdx.cmrs)) - Ranges((Range(0, MIB),))
        left = Ranges.of(tdmr.range for tdmr in machine.tdx.tdmrs)
        left = left - Ranges.of(area for tdmr in machine.tdx.tdmrs for area in tdmr.reserved)

        if machine.tdx.enabled:
            assert wanted - Ranges.of(tdmr.pamt for tdmr in machine.tdx.tdmrs) == left
        else:
            assert not left
