"""Which pages Linux's allocator takes: by policy, distance, zone and free memory; `zonelists` says which nodes.

A policy is one or several *lanes*: allocations take turns among them (one lane but for the interleaving
modes), and a lane is the order in which the free lists of zones are tried. Within a zone the lowest free
address goes first: Linux promises none, so a fixed one is as good. Many pages cost no more than one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from attrs import define, frozen

from tdxfs import zonelists
from tdxfs.capability import online_memory
from tdxfs.model import PAGE_SIZE, Machine, MemPolicy, Task, Why, Zone
from tdxfs.ranges import Range, Ranges, align_down
from tdxfs.zonelists import position
from tdxfs.zones import zone_ranges

Pool = tuple[int, Zone]
"""Node and zone: one set of free lists."""


@frozen
class Lane:
    """One turn of a policy: how many pages in a row, and the free lists to try in order."""

    weight: int
    pools: tuple[Pool, ...]


@frozen
class Taken:
    """What an allocation got."""

    pages: tuple[Range, ...]
    """Host physical memory in the order in which it was taken; without `bad`."""
    bad: int | None = None
    """Address of the first page that cannot back a TDX guest: the allocation ended there."""
    missing: int = 0
    """Bytes for which there was no memory."""

    @property
    def size(self) -> int:
        return sum(part.size for part in self.pages)


@lru_cache(maxsize=4)
def _held(machine: Machine) -> Ranges:
    return machine.tdx.owned | Ranges.of(Range(start, end) for start, end, _ in machine.guest_pages.runs())


def free(machine: Machine, pool: Pool) -> Ranges:
    """Free memory of a zone of a node: online, and held neither by TDX, the BIOS nor a guest."""
    nid, zone = pool
    return (zone_ranges(machine, nid)[zone] - _held(machine)).aligned_in(PAGE_SIZE)


def room(machine: Machine, nodes: Iterable[int], *, movable: bool = True) -> int:
    """Free bytes of nodes, for pages that can or cannot move."""
    zones = [zone for zone in Zone if movable or zone is not Zone.MOVABLE]
    return sum(free(machine, (nid, zone)).size for nid in nodes for zone in zones)


def reachable_memory(machine: Machine, task: Task, policy: MemPolicy) -> Ranges:
    """All memory that an allocation under a policy can be given, free now or not."""
    parts = (part for nid in zonelists.reachable(machine, task, policy) for part in online_memory(machine, nid))
    return Ranges.of(parts) - machine.tdx.owned


def lanes(machine: Machine, task: Task, policy: MemPolicy, *, movable: bool = True) -> tuple[Lane, ...]:
    """The turns of a policy for pages that can (`movable`) or cannot come from ZONE_MOVABLE."""
    zones = [zone for zone in reversed(Zone) if movable or zone is not Zone.MOVABLE]
    turns = zonelists.turns(machine, task, policy, zonelists.local_node(machine, task))
    return tuple(Lane(turn.weight, tuple((nid, zone) for nid in turn.nodes for zone in zones)) for turn in turns)


def take(machine: Machine, turns: tuple[Lane, ...], first: int, count: int, *, judge: bool = True) -> Taken:
    """
    Take `count` pages, the first of which is the `first`-th of its mapping (interleaving goes by that). Ends when
    there is no memory left, and, if they are to be judged, at the first page that cannot back a TDX guest.
    """
    pools = _Pools(machine)
    weights = [lane.weight for lane in turns]
    taken: list[Range] = []
    done = 0
    while done < count:
        current = [next((pool for pool in lane.pools if pools[pool].parts), None) for lane in turns]
        number, before = position(weights, first + done)
        mine = current[number]
        if mine is None:
            return Taken(tuple(taken), missing=(count - done) * PAGE_SIZE)
        turn = _Turn(list(zip(current, weights, strict=True)))
        rounds = 0 if number or before else turn.whole_rounds(pools, count - done)
        if not rounds:
            run = min(weights[number] - before, count - done, pools[mine].pages())
            turn, rounds = _Turn([(mine, run)]), 1
        got = {pool: pools[pool].take(rounds * pages) for pool, pages in turn.pages.items() if pool is not None}
        wrong = (turn.first_bad(machine, pool, parts) for pool, parts in got.items() if judge)
        bad = min((one for one in wrong if one is not None), default=None)
        if bad is not None:
            for pool, parts in got.items():
                taken += _head(parts, turn.before(bad[0], pool))
            return Taken(tuple(taken), bad[1])
        for parts in got.values():
            taken += parts
        done += rounds * turn.size
    return Taken(tuple(taken))


class _Turn:
    # how many pages in a row come from which pool, in order; the next turn is the same

    def __init__(self, runs: list[tuple[Pool | None, int]]) -> None:
        self.runs = runs
        self.size = sum(pages for _, pages in runs)
        self.pages: dict[Pool | None, int] = {}
        for pool, pages in runs:
            self.pages[pool] = self.pages.get(pool, 0) + pages

    def whole_rounds(self, pools: dict[Pool, _Free], count: int) -> int:
        # how many turns of `count` pages the pools have
        if None in self.pages:
            return 0
        most = min(pools[pool].pages() // pages for pool, pages in self.pages.items() if pool is not None)
        return min(count // self.size, most)

    def before(self, number: int, pool: Pool) -> int:
        # how many of the first `number` pages are the pool's
        rounds, left = divmod(number, self.size)
        found = rounds * self.pages[pool]
        for other, pages in self.runs:
            if other == pool:
                found += min(pages, left)
            left = max(left - pages, 0)
        return found

    def number(self, pool: Pool, nth: int) -> int:
        # the number of the pool's n-th page among all
        rounds, left = divmod(nth, self.pages[pool])
        at = rounds * self.size
        for other, pages in self.runs:
            if other == pool and left < pages:
                return at + left
            left -= pages if other == pool else 0
            at += pages
        raise AssertionError(f"{pool} is not in the turn")

    def first_bad(self, machine: Machine, pool: Pool, parts: list[Range]) -> tuple[int, int] | None:
        # the number among all pages, and the address, of the pool's first page that is not capable
        before = 0
        for part in parts:
            address = first_incapable(machine, part)
            if address is not None:
                return self.number(pool, before + (address - part.start) // PAGE_SIZE), address
            before += part.size // PAGE_SIZE
        return None


class _Pools(dict[Pool, "_Free"]):
    # looked at when an allocation comes to them: of a thousand nodes it sees one or two
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __missing__(self, pool: Pool) -> _Free:
        found = self[pool] = _Free(list(free(self.machine, pool)))
        return found


@define
class _Free:
    parts: list[Range]

    def pages(self) -> int:
        return sum(part.size for part in self.parts) // PAGE_SIZE

    def take(self, count: int) -> list[Range]:
        head = _head(self.parts, count)
        left = self.parts[len(head) - 1]
        rest = [Range(head[-1].end, left.end)] if head[-1].end < left.end else []
        self.parts[: len(head)] = rest
        return head


def _head(parts: Iterable[Range], count: int) -> list[Range]:
    found: list[Range] = []
    for part in parts:
        if not count:
            break
        size = min(part.size, count * PAGE_SIZE)
        found.append(Range(part.start, part.start + size))
        count -= size // PAGE_SIZE
    return found


def first_incapable(machine: Machine, memory: Range) -> int | None:
    """Address of the first page in `memory` that cannot back a TDX guest; None: all can."""
    at = memory.start
    for start, end, why in machine.tdx_memory.within(memory.start, memory.end):
        if start >= at + PAGE_SIZE or (start > at and at % PAGE_SIZE == 0):
            return align_down(at, PAGE_SIZE)
        if why is not Why.CAPABLE:
            return align_down(start, PAGE_SIZE)
        at = end
    return None if at >= memory.end else align_down(at, PAGE_SIZE)


def capable_parts(machine: Machine, memory: Ranges) -> Ranges:
    """What of `memory` can back a TDX guest, in whole pages."""
    good = Ranges.of(
        Range(start, end)
        for part in memory
        for start, end, why in machine.tdx_memory.within(part.start, part.end)
        if why is Why.CAPABLE
    )
    return good.aligned_in(PAGE_SIZE)
