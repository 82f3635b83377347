"""Tests for `tdxfs.allocator`: many pages at once are taken as one by one."""

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st
from machines import MIXED, booted
from strategies import machines

from tdxfs import allocator
from tdxfs.model import GIB, MIB, PAGE_SIZE, MemPolicy, Mode, Task, Why, Zone
from tdxfs.nodes import has_memory
from tdxfs.ranges import Range, Ranges

MACHINE = booted(MIXED)
TASK = Task(1)


def pages(parts):
    """The addresses of the pages in some ranges."""
    return [at for part in parts for at in range(part.start, part.end, PAGE_SIZE)]


@st.composite
def policies(draw, machine):
    mode = draw(st.sampled_from(Mode))
    nodes = draw(st.sets(st.sampled_from(sorted(has_memory(machine))), min_size=1))
    if mode is Mode.PREFERRED:
        nodes = {min(nodes)}
    return MemPolicy(mode) if mode in (Mode.DEFAULT, Mode.LOCAL) else MemPolicy(mode, frozenset(nodes))


def one_by_one(machine, turns, first, count):
    """What `take` is defined to be: a page at a time from the first free list of the lane whose turn it is."""
    left = {pool: pages(allocator.free(machine, pool)) for lane in turns for pool in lane.pools}
    got = []
    for number in range(first, first + count):
        pool = next((pool for pool in turns[number % len(turns)].pools if left[pool]), None)
        if pool is None:
            return got, None, first + count - number
        page = left[pool].pop(0)
        if machine.tdx_memory.get(page) is not Why.CAPABLE:
            return got, page, 0
        got.append(page)
    return got, None, 0


SMALL = evolve(
    MIXED,
    nodes=tuple(
        evolve(node, memory=tuple(evolve(memory, range=Range(memory.range.start, memory.range.start + 64 * MIB))
                                  for memory in node.memory[-1:]))
        for node in MIXED.nodes
    ),
)  # fmt: skip
FEW = booted(evolve(SMALL, memory=evolve(SMALL.memory, block_size=64 * MIB)))
"""64 MiB per node: node 0 and 1 are capable, node 2 is not."""


@given(st.data(), st.integers(0, 7), st.sampled_from([1, 2, 5, 16000, 17000, 33000, 60000]))
def test_take_is_one_by_one(data, first, count):
    """The same pages, the same first bad one, the same shortage as of a loop over pages."""
    turns = allocator.lanes(FEW, TASK, data.draw(policies(FEW)))
    expected, bad, missing = one_by_one(FEW, turns, first, count)

    taken = allocator.take(FEW, turns, first, count)

    assert sorted(expected) == sorted(pages(taken.pages))
    assert bad == taken.bad
    assert missing * PAGE_SIZE == taken.missing


@given(st.data(), machines)
def test_only_free_memory_is_taken(data, machine):
    """Pages come from online memory of the nodes that the policy reaches, and from nothing that is held."""
    assume(has_memory(machine))
    policy = data.draw(policies(machine))
    taken = allocator.take(machine, allocator.lanes(machine, TASK, policy), 0, 1 << 30, judge=False)
    got = Ranges.of(taken.pages)

    assert got.size == taken.size
    assert not got & machine.tdx.owned
    assert not got - allocator.reachable_memory(machine, TASK, policy)


class TestOrder:
    def test_zones_from_the_top(self):
        """A node gives ZONE_NORMAL before ZONE_DMA32, and its neighbours come after both."""
        (lane,) = allocator.lanes(MACHINE, TASK, MemPolicy())

        assert [(0, Zone.MOVABLE), (0, Zone.NORMAL), (0, Zone.DMA32), (0, Zone.DMA)] == list(lane.pools[:4])
        assert [0, 1, 2] == list(dict.fromkeys(nid for nid, _ in lane.pools))

    def test_unmovable(self):
        """Pages that cannot move come from no movable zone."""
        (lane,) = allocator.lanes(MACHINE, TASK, MemPolicy(), movable=False)

        assert Zone.MOVABLE not in {zone for _, zone in lane.pools}

    def test_free_is_what_nobody_holds(self):
        """The first MiB and the PAMTs are not free."""
        free = Ranges.of(part for nid in range(3) for zone in Zone for part in allocator.free(MACHINE, (nid, zone)))

        assert not free & MACHINE.tdx.owned
        assert 8 * GIB - MACHINE.tdx.owned.size == free.size == allocator.room(MACHINE, range(3))


class TestFirstIncapable:
    def test_found_in_the_middle(self):
        """The address of the first page outside the CMRs; nothing while all are inside."""
        assert 7 * GIB == allocator.first_incapable(MACHINE, Range(7 * GIB - MIB, 8 * GIB))
        assert allocator.first_incapable(MACHINE, Range(7 * GIB - MIB, 7 * GIB)) is None

    def test_where_there_is_no_memory(self):
        """An address that no verdict speaks about is as bad."""
        assert 40 * GIB == allocator.first_incapable(MACHINE, Range(40 * GIB, 41 * GIB))
