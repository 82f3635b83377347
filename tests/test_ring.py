"""A ring against a list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxfs.ring import Ring

APPENDED = st.lists(st.lists(st.integers()))


@given(st.integers(1, 5), APPENDED)
def test_it_is_the_end_of_all_that_was_appended(size, appended):
    """Every version stays as it was: its length, its items from both ends, and what it equals."""
    rings, lists = [Ring(size)], [[]]
    for items in appended:
        rings.append(rings[-1].extended(items))
        lists.append([*lists[-1], *items])

    for ring, everything in zip(rings, lists, strict=True):
        kept = everything[-size:]
        assert kept == list(ring) == ring[:]
        assert [kept[at] for at in range(-len(kept), len(kept))] == [ring[at] for at in range(-len(ring), len(ring))]
        assert Ring(size).extended(everything) == ring


def test_there_is_nothing_beyond_the_ends():
    """IndexError, as with a list."""
    ring = Ring(2).extended("abc")

    assert ["b", "c"] == list(ring)
    for at in (2, -3):
        with pytest.raises(IndexError):
            ring[at]
