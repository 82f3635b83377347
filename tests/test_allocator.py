"""Tests for `tdxfs.allocator`: many pages at once are taken as one by one."""

import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st
from immutables import Map
from machines import MIXED, booted
from strategies import machines

from tdxfs import allocator, counters
from tdxfs.capability import online_memory
from tdxfs.guestctl import command
from tdxfs.model import GIB, KIB, MIB, PAGE_SIZE, Guest, MemPolicy, Memslot, Mode, Task, TdxPlatform, Why, Zone
from tdxfs.nodes import has_memory, pfn_to_nid
from tdxfs.ranges import Range, Ranges
from tdxfs.transitions.hugepages import set_node_pages
from tdxfs.zonelists import place

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
    turn = [lane for lane in turns for _ in range(lane.weight)]
    got = []
    for number in range(first, first + count):
        pool = next((pool for pool in turn[number % len(turn)].pools if left[pool]), None)
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
BAD = 6 * GIB + 10003 * PAGE_SIZE
HALF = booted(
    evolve(
        SMALL,
        memory=evolve(SMALL.memory, block_size=64 * MIB),
        tdx=TdxPlatform(cmrs=(Range(MIB, 5 * GIB), Range(6 * GIB, BAD))),
    )
)
"""Node 1 is capable up to the page at `BAD`, in its midst."""


some_weights = st.dictionaries(st.integers(0, 2), st.integers(1, 255))


@given(
    st.data(),
    st.sampled_from([FEW, HALF]),
    some_weights,
    st.integers(0, 300),
    st.sampled_from([1, 2, 5, 16000, 17000, 33000, 60000]),
)
def test_take_is_one_by_one(data, machine, weights, first, count):
    """The same pages, the same first bad one, the same shortage as of a loop over pages."""
    machine = evolve(machine, weights=weights)
    check_take(machine, allocator.lanes(machine, TASK, data.draw(policies(machine))), first, count)


@pytest.mark.parametrize("first", range(0, 15, 2))
def test_the_bad_page_of_a_full_node_s_turn(first):
    """So it is where a full node's turns go to the other, whose first bad page is in either's turn."""
    machine = evolve(HALF, weights={0: 10, 1: 5})
    policy = MemPolicy(Mode.WEIGHTED_INTERLEAVE, frozenset({0, 1}))

    assert check_take(machine, allocator.lanes(machine, TASK, policy), first, 30000).bad == BAD


def check_take(machine, turns, first, count):
    """Take pages, and look whether they are those that a loop takes."""
    expected, bad, missing = one_by_one(machine, turns, first, count)

    taken = allocator.take(machine, turns, first, count)

    assert sorted(expected) == sorted(pages(taken.pages))
    assert bad == taken.bad
    assert missing * PAGE_SIZE == taken.missing
    return taken


@given(some_weights, st.integers(0, 300), st.integers(0, 40))
def test_shares_are_exact(weights, first, rounds):
    """Over whole rounds each node gives its weight times as many."""
    machine = evolve(FEW, weights=weights)
    policy = MemPolicy(Mode.WEIGHTED_INTERLEAVE, frozenset(range(3)))
    turns = allocator.lanes(machine, TASK, policy)
    taken = allocator.take(machine, turns, first, rounds * sum(lane.weight for lane in turns), judge=False)

    nodes = [pfn_to_nid(machine, at // PAGE_SIZE) for at in pages(taken.pages)]
    assert [rounds * weights.get(nid, 1) for nid in range(3)] == [nodes.count(nid) for nid in range(3)]


@given(st.data(), st.integers(0, 7), st.integers(0, 60000))
def test_equal_weights_of_one_are_plain_interleave(data, first, count):
    """With every weight 1 the weighted policy takes the very pages of the plain one."""
    nodes = frozenset(data.draw(st.sets(st.integers(0, 2), min_size=1)))
    plain, weighted = (
        allocator.take(FEW, allocator.lanes(FEW, TASK, MemPolicy(mode, nodes)), first, count)
        for mode in (Mode.INTERLEAVE, Mode.WEIGHTED_INTERLEAVE)
    )

    assert plain == weighted


@given(st.integers(0, 1 << 30), st.integers(1, 1 << 17))
def test_places_agree(first, count):
    """The allocator takes of each node what the attribution of a task's pages says that it takes."""
    machine = evolve(MACHINE, weights={0: 7, 1: 2, 2: 255})
    policy = MemPolicy(Mode.WEIGHTED_INTERLEAVE, frozenset({0, 1, 2}))
    taken = allocator.take(machine, allocator.lanes(machine, TASK, policy), first, count, judge=False)
    placed = place(machine, TASK, policy, 0, first, count, lambda nid: 1 << 30)

    assert {nid: pages * PAGE_SIZE for nid, pages in placed.items()} == {
        nid: size for nid in range(3) if (size := (Ranges.of(taken.pages) & online_memory(machine, nid)).size)
    }


@given(st.data(), machines)
def test_only_free_memory_is_taken(data, machine):
    """Pages come from online memory of the nodes that the policy reaches, and from nothing that is held."""
    assume(has_memory(machine))
    machine = evolve(machine, weights=data.draw(some_weights))
    policy = data.draw(policies(machine))
    taken = allocator.take(machine, allocator.lanes(machine, TASK, policy), 0, 1 << 30, judge=False)
    got = Ranges.of(taken.pages)

    assert got.size == taken.size
    assert not got & machine.tdx.owned
    assert not got - allocator.reachable_memory(machine, TASK, policy)


def with_guest(machine, name, memory):
    """A machine on which a guest holds some memory."""
    slot = Memslot(0, 0, sum(part.size for part in memory), pages=Ranges.of(memory))
    return evolve(machine, guests=machine.guests.set(name, Guest(name, 1, slots=Map({0: slot}))))


@given(st.data(), machines)
def test_free_memory_is_what_meminfo_says(data, machine):
    """Huge pages, guests and PAMTs are missing from both, whichever came first, and nobody gets what another has."""
    assume(has_memory(machine))
    for number in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()) and machine.topology.hugepage_sizes:
            nid = data.draw(st.sampled_from(sorted(has_memory(machine))))
            size = data.draw(st.sampled_from(machine.topology.hugepage_sizes))
            machine = set_node_pages(machine, nid, size, data.draw(st.integers(0, 2000)))
        else:
            turns = allocator.lanes(machine, TASK, data.draw(policies(machine)))
            taken = allocator.take(machine, turns, 0, data.draw(st.integers(1, 1 << 20)), judge=False)
            assert not Ranges.of(taken.pages) & Ranges.of(Range(a, b) for a, b, _ in machine.guest_pages.runs())
            machine = with_guest(machine, f"1-{number}", taken.pages)

    for nid in has_memory(machine):
        assert counters.free_kib(machine, nid) * KIB == allocator.room(machine, (nid,))


class TestHugePages:
    def test_they_leave_the_rest(self):
        """A node whose memory is in huge pages gives what is left; the next pages come from its neighbour."""
        machine = set_node_pages(MACHINE, 1, 2048, 1000)
        left = 2 * GIB - 1000 * 2 * MIB - (MACHINE.tdx.owned & online_memory(MACHINE, 1)).size
        turns = allocator.lanes(machine, TASK, MemPolicy(Mode.PREFERRED, frozenset({1})))
        taken = Ranges.of(allocator.take(machine, turns, 0, GIB // PAGE_SIZE, judge=False).pages)

        assert left == (taken & online_memory(machine, 1)).size == allocator.room(machine, (1,))
        assert GIB - left == (taken & online_memory(machine, 0)).size

    def test_the_highest_zone_first(self):
        """They take nothing of a zone while a higher one has room, so unmovable pages lose theirs last."""
        movable = evolve(MIXED, memory=evolve(MIXED.memory, movable="48-55"))
        machine = booted(movable)
        before = allocator.room(machine, (1,), movable=False)

        assert before == allocator.room(set_node_pages(machine, 1, 2048, 500), (1,), movable=False)
        assert before - 8 * MIB == allocator.room(set_node_pages(machine, 1, 2048, 516), (1,), movable=False)


class TestGuests:
    @pytest.mark.parametrize(
        ("backing", "first"), [("anon:0::", 2), ("shmem:0::", 0), ("guest_memfd:0::f", 0), ("guest_memfd:3000::f", 3)]
    )
    def test_whose_turn_it_is(self, backing, first):
        """Anonymous memory is interleaved by its address, all other by where in the object it is, page by page."""
        machine = evolve(MACHINE, weights={0: 3})
        for line in (
            "create 1-0",
            "memfd 1-0 file=f size=0x10000",
            "policy 1-0 policy=weighted-interleave:0-1",
            f"set 1-0 slot=0 gpa=0 size=0x8000 address=0x2000 backing=0-8000:{backing}",
        ):
            machine = command(machine, line)
        taken = []
        for gpa in range(0, 0x8000, PAGE_SIZE):
            after = command(machine, f"touch 1-0 gpa={gpa} size={PAGE_SIZE}")
            (page,) = after.guests["1-0"].pages - machine.guests["1-0"].pages
            taken.append(pfn_to_nid(machine, page.start // PAGE_SIZE))
            machine = after

        assert ([0, 0, 0, 1] * 3)[first : first + 8] == taken


class TestOrder:
    def test_zones_from_the_top(self):
        """A node gives ZONE_NORMAL before ZONE_DMA32, and its neighbours come after both."""
        (lane,) = allocator.lanes(MACHINE, TASK, MemPolicy())

        assert [(0, Zone.MOVABLE), (0, Zone.NORMAL), (0, Zone.DMA32), (0, Zone.DMA)] == list(lane.pools)[:4]
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
