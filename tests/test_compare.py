"""Tests for `tdxfs.compare`: the same machine and guests under every combination of policies."""

from itertools import product

from attrs import evolve
from machines import MIXED
from walking import MACHINE

from tdxfs import compare
from tdxfs.boot import boot
from tdxfs.model import GIB, MIB
from tdxfs.policy import Boot, Validate

ROWS = compare.compare(MACHINE)


def test_every_combination_is_in_one_row():
    """The rows are products of values that cover all combinations once."""
    found = [one for row in ROWS for one in product(*row.values.values())]

    assert sorted(found) == sorted(product(*(map(str, kind) for kind in compare.AXES.values())))


def test_every_guest_is_counted():
    """Started, refused and killed add up to the fleet; without TDX all are refused."""
    for row in ROWS:
        one = row.outcome
        assert len(compare.fleet(MACHINE)) == one.started + one.refused + one.killed
        assert one.tdx or (one.started, one.killed) == (0, 0)


def test_a_pledge_kills_nobody():
    """Under validate=pledge a guest is refused or lives; none that it admits dies of its memory."""
    for row in ROWS:
        if row.values["validate"] == ("pledge",) and row.outcome.killed:
            assert "death record" not in row.outcome.learns


def test_the_two_options():
    """Option 1 has no guest on a mixed machine; option 2 has those whose memory is capable, and kills the others."""
    guests = (
        compare.Wanted(policy="bind:0"),
        compare.Wanted(policy="bind:2"),
        compare.Wanted(MIB, "bar:0000:17:00.0/resource2"),
    )
    told = {}
    for mode, validate in ((Boot.STRICT, Validate.NONE), (Boot.MIXED, Validate.NONE), (Boot.MIXED, Validate.FILE)):
        policies = evolve(MIXED.policies, boot=mode, validate=validate)
        told[mode, validate] = compare.outcome(boot(MACHINE, policies), guests)

    strict, none, file = told.values()
    assert (0, 3, 0, "boot log") == (strict.started, strict.refused, strict.killed, strict.learns)
    assert (1, 0, 2, "death record") == (none.started, none.refused, none.killed, none.learns)
    assert (1, 1, 1) == (file.started, file.refused, file.killed)
    assert (False, True) == (strict.tdx, none.tdx)
    assert 0 == strict.usable < none.usable < none.total == 10 * GIB
