"""Capability against its definition, a page at a time."""

from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from machines import MIXED, booted
from strategies import machines, topologies

from tdxfs.boot import boot
from tdxfs.capability import (
    judge,
    judge_block,
    judge_dax,
    judge_node,
    judge_target_node,
    online_memory,
    page,
)
from tdxfs.model import GIB, MIB, PAGE_SIZE, MemoryKind, Why
from tdxfs.nodes import pfn_to_nid
from tdxfs.policy import Cover, Firmware
from tdxfs.ranges import Range, Ranges


def why_of(machine, address):
    """Whether the page at an address can back a TDX guest: the definition."""
    platform = machine.topology.tdx
    if platform is None or not any(address in cmr for cmr in platform.cmrs):
        return Why.NOT_CONVERTIBLE
    around = [tdmr for tdmr in machine.tdx.tdmrs if address in tdmr.range]
    if not around:
        return Why.NOT_COVERED
    return Why.RESERVED if any(address in area for area in around[0].reserved) else Why.CAPABLE


def owned(machine, address):
    """Whether no allocator gives the page away: the first MiB of RAM on a TDX platform, and PAMTs."""
    low = machine.topology.tdx is not None and address < MIB and address in machine.ram
    return low or any(address in tdmr.pamt for tdmr in machine.tdx.tdmrs)


def edges(machine):
    """Every address at which anything changes."""
    platform = machine.topology.tdx
    ranges = [*(platform.cmrs if platform else ()), Range(0, MIB)]
    ranges += (part for tdmr in machine.tdx.tdmrs for part in (tdmr.range, tdmr.pamt, *tdmr.reserved))
    ranges += (Range(start, end) for start, end, _ in machine.ram.runs())
    ranges += (m.range for node in machine.topology.nodes for m in node.memory)
    ranges += (region.range for region in machine.topology.dax_regions)
    ranges += (mapping for device in machine.dax.values() for mapping in device.mappings)
    ranges += (bar.range for device in machine.topology.pci_devices for bar in device.bars)
    return {edge for part in ranges for edge in (part.start, part.end)}


def stretches(machine, ranges):
    """`ranges` cut into pieces whose pages are all alike, so that the first page speaks for all."""
    for part in ranges:
        inside = sorted({part.start, part.end} | {edge for edge in edges(machine) if part.start < edge < part.end})
        yield from (Range(start, end) for start, end in pairwise(inside))


def assert_verdict(machine, ranges, verdict):
    """The verdict on `ranges` is what their pages say."""
    pieces = [(piece, why_of(machine, piece.start)) for piece in stretches(machine, ranges)]
    holes = [(p, why) for p, why in pieces if why is not Why.CAPABLE and not owned(machine, p.start)]

    assert sum(piece.size for piece, _ in pieces) == verdict.total
    assert sum(p.size for p, why in pieces if why is not Why.NOT_CONVERTIBLE) == verdict.convertible
    assert sum(p.size for p, why in pieces if why is Why.CAPABLE) == verdict.usable
    for why in Why:
        assert Ranges.of(p for p, hole in holes if hole is why) == Ranges.of(
            hole.range for hole in verdict.holes if hole.why is why
        )
    assert all(a.why is not b.why or a.range.end < b.range.start for a, b in pairwise(verdict.holes))
    assert bool(verdict) == (not holes)
    expected = "capable" if not holes else "mixed" if any(why is Why.CAPABLE for _, why in pieces) else "incapable"
    assert expected == verdict.word


class TestVerdict:
    @given(machines)
    def test_nodes(self, machine):
        """The verdict on a node is that on its online pages."""
        size = machine.topology.memory.block_size
        for nid, ram in machine.node_ram.items():
            online = Ranges.of(
                piece
                for number in {n for part in ram for n in range(part.start // size, -(-part.end // size))}
                if machine.blocks.get(number).online
                for piece in ram.within(Range(number * size, (number + 1) * size))
            )
            assert online == online_memory(machine, nid)
            assert_verdict(machine, online, judge_node(machine, nid))

    @given(machines)
    def test_devices(self, machine):
        """The verdict on a dax device is that on its mappings, whatever its driver."""
        for key, device in machine.dax.items():
            assert_verdict(machine, Ranges.of(device.mappings), judge_dax(machine, key))

    @given(machines)
    def test_target_nodes(self, machine):
        """The verdict on a target node counts the whole blocks of the device as if they were online."""
        size = machine.topology.memory.block_size
        for key, device in machine.dax.items():
            target = machine.regions[key[0]].target_node
            there = Ranges() if target is None else online_memory(machine, target)
            whole = Ranges.of(
                Range(n * size, (n + 1) * size)
                for mapping in Ranges.of(device.mappings)
                for n in range(-(-mapping.start // size), mapping.end // size)
            )
            assert_verdict(machine, there | whole, judge_target_node(machine, key))

    @given(machines)
    def test_blocks(self, machine):
        """The verdict on a memory block is that on the RAM in it."""
        size = machine.topology.memory.block_size
        for start, end, _ in machine.blocks.runs():
            for number in {start, end - 1}:
                window = Range(number * size, (number + 1) * size)
                ram = Ranges.of(part for mine in machine.node_ram.values() for part in mine.within(window))
                assert_verdict(machine, ram, judge_block(machine, number))

    @given(machines)
    def test_bars(self, machine):
        """A PCI BAR is judged like any memory."""
        for device in machine.topology.pci_devices:
            for bar in device.bars:
                assert_verdict(machine, Ranges((bar.range,)), judge(machine, Ranges((bar.range,))))

    @given(machines, st.integers(0, 64), st.integers(1, 64))
    def test_where_nothing_is(self, machine, start, size):
        """What is no memory at all is not convertible, unless a CMR says otherwise."""
        ranges = Ranges((Range(start * 512 * MIB, (start + size) * 512 * MIB),))

        assert_verdict(machine, ranges, judge(machine, ranges))

    def test_words(self):
        """One node of each kind: all, some, none of its memory."""
        machine = booted(MIXED)

        assert [judge_node(machine, nid).word for nid in range(3)] == ["capable", "mixed", "incapable"]

    @pytest.mark.parametrize(("cover", "why"), [(Cover.RAM, Why.NOT_COVERED), (Cover.CONVERTIBLE, Why.CAPABLE)])
    def test_cover(self, cover, why):
        """Convertible memory that came after boot is covered only by cover=convertible."""
        cmrs = (*MIXED.tdx.cmrs, Range(12 * GIB, 13 * GIB))
        topology = evolve(MIXED, tdx=evolve(MIXED.tdx, cmrs=cmrs))
        machine = boot(topology, evolve(topology.policies, cover=cover))

        assert why is page(machine, 12 * GIB // PAGE_SIZE).why


class TestKindNeverMatters:
    @given(topologies(), st.data())
    def test_relabelling(self, topology, data):
        """Whatever memory is said to be made of, every verdict stays the same (T14)."""
        kinds = st.sampled_from(MemoryKind)
        topology = evolve(topology, policies=evolve(topology.policies, firmware=Firmware.PERMISSIVE))
        other = evolve(
            topology,
            nodes=tuple(evolve(node, kind=data.draw(kinds)) for node in topology.nodes),
            dax_regions=tuple(evolve(region, kind=data.draw(kinds)) for region in topology.dax_regions),
        )
        a, b = boot(topology), boot(other)

        assert a.tdx == b.tdx
        assert a.tdx_memory == b.tdx_memory
        for nid in a.node_ram:
            assert judge_node(a, nid) == judge_node(b, nid)
        for key in a.dax:
            assert judge_dax(a, key) == judge_dax(b, key)
            assert judge_target_node(a, key) == judge_target_node(b, key)


class TestPage:
    @given(machines)
    def test_definition(self, machine):
        """Node, verdict, dax device and TDMR of the pages around every edge of the machine."""
        for edge in edges(machine):
            for address in (edge - PAGE_SIZE, edge, edge + PAGE_SIZE):
                if address < 0:
                    continue
                pfn = address // PAGE_SIZE
                found = page(machine, pfn)

                assert found.node == pfn_to_nid(machine, pfn) == node_of(machine, address)
                assert found.why is why_of(machine, address)
                assert found.tdmr == next(
                    (at for at, tdmr in enumerate(machine.tdx.tdmrs) if address in tdmr.range), None
                )
                assert found.dax == next(
                    (d.name for d in machine.dax.values() if any(address in part for part in d.mappings)), ""
                )

    def test_dax_page(self):
        """A dax page has its target node, although that node has no directory (T3)."""
        found = page(booted(MIXED), 12 * GIB // PAGE_SIZE)

        assert (found.node, found.dax) == (3, "dax0.0")


def node_of(machine, address):
    """System RAM belongs to its node, dax memory to its target node."""
    if address in machine.ram:
        return machine.ram.get(address)
    return next((region.target_node for region in machine.topology.dax_regions if address in region.range), None)
