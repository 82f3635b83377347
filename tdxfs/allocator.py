"""Which pages Linux's allocator takes: by policy, distance, zone and free memory; `zonelists` says which nodes.

A policy is one or several *lanes*: allocations take turns among them (one lane but for the interleaving
modes), and a lane is the order in which the free lists of zones are tried. Within a zone the lowest free
address goes first: Linux promises none, so a fixed one is as good. Many pages cost no more than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product

from attrs import define, frozen

from tdxfs import counters, zonelists
from tdxfs.capability import online_memory
from tdxfs.model import KIB, PAGE_SIZE, Machine, MemPolicy, Task, Why, Zone
from tdxfs.ranges import Range, Ranges, align_down
from tdxfs.zonelists import position, shares
from tdxfs.zones import zone_ranges

Pool = tuple[int, Zone]
"""Node and zone: one set of free lists."""


@frozen
class Lane:
    """One turn of a policy: how many pages in a row, and where they come from."""

    weight: int
    nodes: tuple[int, ...]
    zones: tuple[Zone, ...]
    """Of each node."""

    @property
    def pools(self) -> Iterator[Pool]:
        """The free lists to try, first to last."""
        return product(self.nodes, self.zones)


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


@lru_cache(maxsize=4)
def _huge_pages(machine: Machine, nid: int) -> Ranges:
    # where the pools of a node are: at the end of its free memory, from the highest zone down
    left = counters.hugepages_kib(machine, nid) * KIB
    found = []
    for zone in reversed(Zone):
        for part in reversed(_not_held(machine, (nid, zone)).parts if left else ()):
            size = min(part.size, left)
            found.append(Range(part.end - size, part.end))
            left -= size
            if not left:
                break
    return Ranges.of(found)


def _not_held(machine: Machine, pool: Pool) -> Ranges:
    nid, zone = pool
    return (zone_ranges(machine, nid)[zone] - _held(machine)).aligned_in(PAGE_SIZE)


def free(machine: Machine, pool: Pool) -> Ranges:
    """Free memory of a zone of a node: online, and held neither by TDX, the BIOS, a huge page nor a guest."""
    return _not_held(machine, pool) - _huge_pages(machine, pool[0])


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
    zones = tuple(zone for zone in reversed(Zone) if movable or zone is not Zone.MOVABLE)
    turns = zonelists.turns(machine, task, policy, zonelists.local_node(machine, task))
    return tuple(Lane(turn.weight, turn.nodes, zones) for turn in turns)


def take(machine: Machine, turns: tuple[Lane, ...], first: int, count: int, *, judge: bool = True) -> Taken:
    """
    Take `count` pages, the first of which is the `first`-th of its mapping (interleaving goes by that). Ends when
    there is no memory left, and, if they are to be judged, at the first page that cannot back a TDX guest.
    """
    pools = _Pools(machine)
    taken: list[Range] = []
    done = 0
    while done < count:
        found = _next(turns, pools, first + done, count - done)
        if found is None:
            return Taken(tuple(taken), missing=(count - done) * PAGE_SIZE)
        runs, rounds = found
        got = {pool: pools[pool].take(rounds * pages) for pool, pages in runs.pages.items()}
        wrong = (runs.first_bad(machine, pool, parts) for pool, parts in got.items() if judge)
        bad = min((one for one in wrong if one is not None), default=None)
        if bad is not None:
            for pool, pages in runs.before(bad[0]).items():
                taken += _head(got[pool], pages)
            return Taken(tuple(taken), bad[1])
        for parts in got.values():
            taken += parts
        done += rounds * runs.size
    return Taken(tuple(taken))


def _next(turns: tuple[Lane, ...], pools: _Pools, page: int, left: int) -> tuple[_Runs, int] | None:
    # what comes next of `left` pages, and how often: all turns, or what of one turn its pool has; None: nothing
    weights = [lane.weight for lane in turns]
    number, before = position(weights, page)
    if number == before == 0 and left >= sum(weights):
        runs = [(pool, lane.weight) for lane in turns if (pool := pools.first(lane)) is not None]
        if len(runs) == len(turns) and (rounds := (every := _Runs(runs)).rounds(pools, left)):
            return every, rounds
    pool = pools.first(turns[number])
    return pool and (_Runs([(pool, min(weights[number] - before, left, pools[pool].count()))]), 1)


class _Runs:
    # how many pages in a row come from which pool, in order; what comes after them begins anew

    def __init__(self, runs: list[tuple[Pool, int]]) -> None:
        self.runs = runs
        self.size = sum(pages for _, pages in runs)
        self.pages = _by_pool(runs)

    def rounds(self, pools: _Pools, count: int) -> int:
        # how often `count` pages hold them, and the pools have them
        return min(count // self.size, *(pools[pool].count() // pages for pool, pages in self.pages.items()))

    def before(self, number: int) -> dict[Pool, int]:
        # how many of the first `number` pages are each pool's
        return _by_pool(zip((pool for pool, _ in self.runs), shares([n for _, n in self.runs], 0, number), strict=True))

    def number(self, pool: Pool, nth: int) -> int:
        # the number of the pool's n-th page among all
        rounds, left = divmod(nth, self.pages[pool])
        at = rounds * self.size
        for other, pages in self.runs:
            if other == pool and left < pages:
                return at + left
            left -= pages if other == pool else 0
            at += pages
        raise AssertionError(f"no page comes from {pool}")

    def first_bad(self, machine: Machine, pool: Pool, parts: list[Range]) -> tuple[int, int] | None:
        # the number among all pages, and the address, of the pool's first page that is not capable
        before = 0
        for part in parts:
            address = first_incapable(machine, part)
            if address is not None:
                return self.number(pool, before + (address - part.start) // PAGE_SIZE), address
            before += part.size // PAGE_SIZE
        return None


def _by_pool(runs: Iterable[tuple[Pool, int]]) -> dict[Pool, int]:
    found: dict[Pool, int] = {}
    for pool, pages in runs:
        found[pool] = found.get(pool, 0) + pages
    return found


class _Pools(dict[Pool, "_Free"]):
    # looked at when an allocation comes to them: of a thousand nodes it sees one or two
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def first(self, lane: Lane) -> Pool | None:
        # the first of a lane that is not empty
        return next((pool for pool in lane.pools if self[pool].parts), None)

    def __missing__(self, pool: Pool) -> _Free:
        found = self[pool] = _Free(list(free(self.machine, pool)))
        return found


@define
class _Free:
    parts: list[Range]

    def count(self) -> int:
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
