"""Algebra of physical address ranges, and maps from ranges to values.

Everything here is half-open: ``[start, end)``, in whatever unit the caller uses
(bytes for addresses, block numbers for memory blocks). All values are immutable.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Generic, TypeVar

from attrs import field, frozen

V = TypeVar("V")


@frozen(order=True)
class Range:
    """One half-open range ``[start, end)``; never empty, never negative."""

    start: int
    end: int

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"range [{self.start:#x}, {self.end:#x}) is empty or negative")

    @property
    def size(self) -> int:
        return self.end - self.start

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end

    def overlaps(self, other: Range) -> bool:
        return self.start < other.end and other.start < self.end

    def covers(self, other: Range) -> bool:
        return self.start <= other.start and other.end <= self.end

    def __str__(self) -> str:
        return f"[{self.start:#x}, {self.end:#x})"


def align_down(value: int, unit: int) -> int:
    return value - value % unit


def align_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


@frozen
class Ranges:
    """
    A set of addresses as sorted, disjoint ranges that do not touch. Build it
    with `Ranges.of`, which sorts and merges.
    """

    parts: tuple[Range, ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[Range]) -> Ranges:
        """The union of any ranges, in any order."""
        merged: list[Range] = []
        for part in sorted(ranges, key=_start):
            if merged and part.start <= merged[-1].end:
                if part.end > merged[-1].end:
                    merged[-1] = Range(merged[-1].start, part.end)
            else:
                merged.append(part)
        return cls(tuple(merged))

    def __iter__(self) -> Iterator[Range]:
        return iter(self.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def __contains__(self, address: int) -> bool:
        at = bisect_right(self.parts, address, key=_start) - 1
        return at >= 0 and address < self.parts[at].end

    def __or__(self, other: Ranges) -> Ranges:
        return Ranges.of((*self.parts, *other.parts))

    def __and__(self, other: Ranges) -> Ranges:
        return Ranges(tuple(both for part in self.parts for both in other.within(part)))

    def __sub__(self, other: Ranges) -> Ranges:
        left: list[Range] = []
        for part in self.parts:
            at = part.start
            for hole in other.within(part):
                if at < hole.start:
                    left.append(Range(at, hole.start))
                at = hole.end
            if at < part.end:
                left.append(Range(at, part.end))
        return Ranges(tuple(left))

    def within(self, window: Range) -> Iterator[Range]:
        """The parts that lie in `window`, cut to it: O(log n + parts found)."""
        first = max(bisect_right(self.parts, window.start, key=_start) - 1, 0)
        for at in range(first, len(self.parts)):
            part = self.parts[at]
            if part.start >= window.end:
                return
            start, end = max(part.start, window.start), min(part.end, window.end)
            if start < end:
                yield Range(start, end)

    def covers(self, window: Range) -> bool:
        return next(self.within(window), None) == window

    def aligned_in(self, unit: int) -> Ranges:
        """Each part trimmed inward to whole multiples of `unit`."""
        trimmed = ((align_up(p.start, unit), align_down(p.end, unit)) for p in self.parts)
        return Ranges(tuple(Range(start, end) for start, end in trimmed if start < end))

    def __str__(self) -> str:
        return " ".join(map(str, self.parts)) or "nothing"


def _start(part: Range) -> int:
    return part.start


@frozen
class RunMap(Generic[V]):
    """
    A map from integers to values, held as runs: sorted, disjoint half-open ranges
    with one value each. `get` takes O(log runs); `assign` returns a new map and
    costs a copy of the run table (not of the integers it stands for).
    """

    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    values: tuple[V, ...] = ()
    size: int = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "size", sum(self.ends) - sum(self.starts))

    @classmethod
    def of(cls, runs: Iterable[tuple[int, int, V]]) -> RunMap[V]:
        """From ``(start, end, value)`` runs, in any order; equal neighbours merge."""
        starts: list[int] = []
        ends: list[int] = []
        values: list[V] = []
        for start, end, value in sorted(runs, key=_first):
            if start >= end:
                continue
            if ends and start < ends[-1]:
                raise ValueError(f"runs overlap at {start:#x}")
            if ends and start == ends[-1] and values[-1] == value:
                ends[-1] = end
            else:
                starts.append(start)
                ends.append(end)
                values.append(value)
        return cls(tuple(starts), tuple(ends), tuple(values))

    def get(self, number: int) -> V | None:
        at = bisect_right(self.starts, number) - 1
        return self.values[at] if at >= 0 and number < self.ends[at] else None

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        at = bisect_right(self.starts, number) - 1
        return at >= 0 and number < self.ends[at]

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        for start, end in zip(self.starts, self.ends, strict=True):
            yield from range(start, end)

    def runs(self) -> Iterator[tuple[int, int, V]]:
        return zip(self.starts, self.ends, self.values, strict=True)

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, V]]:
        """The runs that lie in ``[start, end)``, cut to it."""
        for at in range(bisect_right(self.ends, start), bisect_left(self.starts, end)):
            yield max(self.starts[at], start), min(self.ends[at], end), self.values[at]

    def differing(self, other: RunMap[V]) -> Iterator[tuple[int, int, V | None, V | None]]:
        """
        Runs ``(start, end, value here, value there)`` in which two maps differ (None: absent),
        in order. Maps that share most of their runs are compared at the speed of tuples.
        """
        here, there = (self.starts, self.ends, self.values), (other.starts, other.ends, other.values)
        low = min(_common(a, b) for a, b in zip(here, there, strict=True))
        tails = zip((column[low:][::-1] for column in here), (column[low:][::-1] for column in there), strict=True)
        high = min(_common(a, b) for a, b in tails)
        mine = list(self.runs())[low : len(self.starts) - high]
        yours = list(other.runs())[low : len(other.starts) - high]
        edges = sorted({edge for start, end, _ in (*mine, *yours) for edge in (start, end)})
        for start, end in pairwise(edges):
            was, now = self.get(start), other.get(start)
            if was != now:
                yield start, end, was, now

    def assign(self, start: int, end: int, value: V) -> RunMap[V]:
        """A map in which all of ``[start, end)`` has `value`; an empty range changes nothing."""
        return self._replace(start, end, ((start, end, value),))

    def remove(self, start: int, end: int) -> RunMap[V]:
        """A map in which nothing of ``[start, end)`` is left."""
        return self._replace(start, end, ())

    def _replace(self, start: int, end: int, middle: Iterable[tuple[int, int, V]]) -> RunMap[V]:
        if start >= end:
            return self
        low, high = bisect_left(self.ends, start), bisect_right(self.starts, end)
        near: list[tuple[int, int, V]] = []
        for at in range(low, high):
            if self.starts[at] < start:
                near.append((self.starts[at], min(self.ends[at], start), self.values[at]))
            if self.ends[at] > end:
                near.append((max(self.starts[at], end), self.ends[at], self.values[at]))
        new = RunMap.of([*near, *middle])
        return RunMap(
            self.starts[:low] + new.starts + self.starts[high:],
            self.ends[:low] + new.ends + self.ends[high:],
            self.values[:low] + new.values + self.values[high:],
        )


def _common(one: tuple[object, ...], other: tuple[object, ...]) -> int:
    # length of the common prefix, by halving: equal halves are compared by the interpreter, not here
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _first(run: tuple[int, int, object]) -> int:
    return run[0]
