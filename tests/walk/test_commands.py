"""``tdxfs guest``, ``guests``, ``explain GUEST`` and ``plan``: the walk without writing C."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from machines import MIXED

from tdxfs.cli import main
from tdxfs.formats.topology import dumps
from tdxfs.server import mounted


@pytest.fixture
def root():
    """A small machine, mounted: node 0 capable, node 1 half, node 2 not; its dax device is not."""
    with mounted(MIXED) as where:
        yield str(where)


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(dumps(MIXED))
    return str(file)


def run(*arguments):
    """Exit status and output of a command."""
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_guest_that_lives_and_is_closed(root):
    """It is kept, listed, touches more of its memory, and is gone from the living when it is closed."""
    status, story = run("guest", "run", root, "--memory", "64M", "--policy", "bind:0", "--touch", "2M", "--keep")
    assert status == 0, story
    ((name, state),) = [(guest["name"], guest["state"]) for guest in json.loads(run("guests", root, "--json")[1])]
    assert state == "running"

    assert run("guest", "touch", name, root, "--gpa", "0x200000", "--size", "4M")[0] == 0
    assert run("guest", "close", name, root)[0] == 0
    assert state not in {guest["state"] for guest in json.loads(run("guests", root, "--json")[1])}


def test_a_guest_under_weighted_interleave(root):
    """Its memory comes from the nodes in the shares that were written, and goes back to them."""

    def free(nid):
        # but for what this very process holds
        text = Path(root, f"sys/devices/system/node/node{nid}/meminfo").read_text()
        return sum(int(kib) for kib in re.findall(r" (?:MemFree|AnonPages): *([0-9]+) kB", text))

    before = [free(nid) for nid in range(3)]
    Path(root, "sys/kernel/mm/mempolicy/weighted_interleave/node0").write_text("3")
    status, story = run("guest", "run", root, "--memory", "64M", "--policy", "weighted-interleave:0-1", "--keep")
    assert status == 0, story
    assert [48 << 10, 16 << 10, 0] == [was - free(nid) for nid, was in enumerate(before)]

    (guest,) = json.loads(run("guests", root, "--json")[1])
    assert run("guest", "close", guest["name"], root)[0] == 0
    assert before == [free(nid) for nid in range(3)]


def test_huge_pages_are_no_memory_for_a_guest(root):
    """Where a node's memory is in huge pages, a guest that is bound to it finds none, until they are given back."""
    pool = Path(root, "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages")
    guest = ("guest", "run", root, "--memory", "64M", "--policy", "bind:0")
    pool.write_text("5000")
    assert 1900 < int(pool.read_text()) < 2048

    status, story = run(*guest)
    assert status == 1
    assert "No memory is free under policy bind:0" in story

    pool.write_text("1900")
    assert run(*guest)[0] == 0


def test_a_guest_that_dies_is_explained(root):
    """The story ends with the reason and what to type; `explain` says the same afterwards, and typing it helps."""
    status, story = run("guest", "run", root, "--memory", "64M", "--policy", "bind:2")
    assert status == 1
    assert "cannot back a TDX guest" in story
    (guest,) = json.loads(run("guests", root, "--json")[1])

    status, said = run("explain", guest["name"], root)

    assert status == 0
    assert "node 2" in said
    remedy = re.search(r"tdxfs (guest run .*)", story)[1]
    assert run(*remedy.split())[0] == 0


def test_wrong_guests_are_one_line(root):
    """An unknown guest, backing or size is named in one line."""
    for arguments in (
        ("guest", "touch", "99-0", root),
        ("guest", "close", "99-0", root),
        ("explain", "99-0", root),
        ("guest", "run", root, "--backing", "dax9.9"),
        ("guest", "run", root, "--memory", "much"),
    ):
        status, said = run(*arguments)
        assert status == 1, said
        assert re.fullmatch(r"tdxfs: [^\n]+\n", said), said


def test_plan(small):
    """Where guests fit is a policy to type; what does not fit at all is exit status 1."""
    status, said = run("plan", small, "--memory", "1G", "--guests", "2")
    assert status == 0
    assert "bind:0" in said

    assert run("plan", small, "--memory", "64G")[0] == 1
