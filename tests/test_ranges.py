"""Range algebra against its definition, one address at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SPACE, run_maps, small_range_sets, small_ranges

from tdxfs.ranges import Range, Ranges, RunMap, align_down, align_up

EVERY = range(SPACE * 2)
addresses = st.integers(0, SPACE)


def members(ranges):
    return {address for part in ranges for address in range(part.start, part.end)}


def mapping(run_map):
    return {at: value for start, end, value in run_map.runs() for at in range(start, end)}


def assert_canonical(ranges):
    """Sorted, and no two parts touch."""
    assert all(a.end < b.start for a, b in zip(ranges.parts, ranges.parts[1:], strict=False))


class TestRange:
    @pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 5)])
    def test_never_empty_or_negative(self, start, end):
        """A range without addresses, or below 0, cannot be made."""
        with pytest.raises(ValueError, match="empty or negative"):
            Range(start, end)

    @given(small_ranges, small_ranges)
    def test_two_ranges(self, a, b):
        """`overlaps` and `covers` are what their sets of addresses say."""
        assert bool(members([a]) & members([b])) == a.overlaps(b)
        assert (members([b]) <= members([a])) == a.covers(b)
        assert members([a]) == {address for address in EVERY if address in a}

    @given(st.integers(0, 1000), st.integers(1, 64))
    def test_alignment(self, value, unit):
        """The nearest multiples of the unit, below and above."""
        assert max(n for n in range(0, value + 1, unit)) == align_down(value, unit)
        assert min(n for n in range(0, value + unit, unit) if n >= value) == align_up(value, unit)


class TestRanges:
    @given(st.lists(small_ranges, max_size=8))
    def test_of_is_the_union(self, parts):
        """Any ranges in any order become sorted parts that do not touch."""
        ranges = Ranges.of(parts)

        assert members(parts) == members(ranges)
        assert_canonical(ranges)

    @given(small_range_sets, small_range_sets)
    def test_algebra(self, a, b):
        """Union, intersection and difference are those of sets of addresses, in canonical form."""
        for expected, actual in (
            (members(a) | members(b), a | b),
            (members(a) & members(b), a & b),
            (members(a) - members(b), a - b),
        ):
            assert expected == members(actual)
            assert_canonical(actual)
            assert len(expected) == actual.size

    @given(small_range_sets, small_ranges)
    def test_window(self, ranges, window):
        """`within` cuts to the window, `covers` asks for all of it."""
        assert members(ranges) & members([window]) == members(ranges.within(window))
        assert (members([window]) <= members(ranges)) == ranges.covers(window)

    @given(small_range_sets)
    def test_membership(self, ranges):
        """An address is in the set if it is in one of the parts; an empty set is false."""
        assert members(ranges) == {address for address in EVERY if address in ranges}
        assert bool(members(ranges)) == bool(ranges)

    @given(small_range_sets, st.integers(1, 9))
    def test_aligned_in(self, ranges, unit):
        """What is left of each part are the whole units that lie in it."""
        expected = {
            address
            for part in ranges
            for address in range(part.start, part.end)
            if part.covers(Range(align_down(address, unit), align_down(address, unit) + unit))
        }

        assert expected == members(ranges.aligned_in(unit))


class TestRunMap:
    @given(run_maps())
    def test_reads_like_a_mapping(self, run_map):
        """`get`, `in`, `len` and iteration are those of the dict that the runs spell out."""
        expected = mapping(run_map)

        assert expected == {at: run_map.get(at) for at in EVERY if run_map.get(at) is not None}
        assert list(expected) == list(run_map)
        assert len(expected) == len(run_map)
        assert set(expected) == {at for at in EVERY if at in run_map}

    @given(run_maps(), addresses, addresses)
    def test_within(self, run_map, start, end):
        """The runs that lie in a window, cut to it."""
        expected = {at: value for at, value in mapping(run_map).items() if start <= at < end}

        assert expected == {at: v for a, b, v in run_map.within(start, end) for at in range(a, b)}

    @given(run_maps(), addresses, addresses, st.sampled_from("abc"))
    def test_assign_and_remove(self, run_map, start, end, value):
        """Only the window changes; the result has no neighbours of one value, as if built anew."""
        outside = {at: v for at, v in mapping(run_map).items() if not start <= at < end}
        inside = dict.fromkeys(range(start, end), value)

        for expected, actual in (
            ({**outside, **inside}, run_map.assign(start, end, value)),
            (outside, run_map.remove(start, end)),
        ):
            assert expected == mapping(actual)
            assert RunMap.of((at, at + 1, v) for at, v in expected.items()) == actual
            assert len(expected) == len(actual)

    def test_overlapping_runs_are_refused(self):
        """A number cannot have two values."""
        with pytest.raises(ValueError, match="overlap at 0x4"):
            RunMap.of([(0, 5, "a"), (4, 6, "b")])
