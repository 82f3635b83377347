"""Fault injection on a real mount."""

import errno
import os

import pytest
from machines import MIXED

from tdxfs.faults import Faults, parse
from tdxfs.server import mounted

FAULTS = "sys/kernel/debug/tdxfs/faults"
NODES = "sys/devices/system/node"


@pytest.fixture(scope="module")
def mount():
    with mounted(MIXED) as where:
        yield where


@pytest.fixture
def root(mount):
    yield mount
    (mount / FAULTS).write_text("clear")


def add(root, text):
    (root / FAULTS).write_text(text)


def outcome(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


def test_the_third_read_of_each_path_fails(root):
    """Accesses are counted path by path; what does not match goes on."""
    add(root, f"read {NODES}/node*/numastat errno=EIO nth=3")
    files = [os.open(root / NODES / f"node{nid}" / "numastat", os.O_RDONLY) for nid in (0, 1)]

    assert [["text", "text", "EIO", "text"]] * 2 == [
        ["text" if isinstance(outcome(os.pread, file, 5, 0), bytes) else "EIO" for _ in range(4)] for file in files
    ]
    assert "0-2\n" == (root / NODES / "online").read_text()
    for file in files:
        os.close(file)


def test_open_write_and_list_fail(root):
    """Each access has its own faults."""
    add(root, f"open {NODES}/online errno=EMFILE")
    add(root, "write sys/devices/system/memory/memory40/state errno=EBUSY nth=1")
    add(root, f"list {NODES} errno=ENOMEM")

    assert "EMFILE" == outcome((root / NODES / "online").read_text)
    assert "ENOMEM" == outcome(os.listdir, root / NODES)
    state = root / "sys/devices/system/memory/memory40/state"
    file = os.open(state, os.O_WRONLY)
    assert "EBUSY" == outcome(os.write, file, b"offline")
    assert "online\n" == state.read_text()
    assert 7 == outcome(os.write, file, b"offline")
    assert "offline\n" == state.read_text()
    os.write(file, b"online")
    os.close(file)


def test_short_reads(root):
    """A reader that goes on gets it all, byte by byte."""
    add(root, f"read {NODES}/online short=1")
    file = os.open(root / NODES / "online", os.O_RDONLY)

    assert [b"0", b"-", b"2", b"\n", b""] == [os.read(file, 100) for _ in range(5)]
    os.close(file)


def test_an_entry_vanishes_in_the_middle_of_a_listing(root):
    """It is named, and gone when somebody looks; it is back at the listing after the next."""
    node = root / NODES / "node1"
    assert node.exists()
    add(root, f"list {NODES}/node1 vanish nth=2")

    assert "node1" in os.listdir(root / NODES)
    assert (node / "numastat").exists()
    assert "node1" in os.listdir(root / NODES)
    assert not node.exists()
    assert not (node / "numastat").exists()
    assert "node1" in os.listdir(root / NODES)
    assert node.exists()


def test_the_state_is_readable_and_removable(root):
    """A line per fault with its number; each can be taken back by it."""
    add(root, "read a/* errno=EIO every=2 chance=0.5 seed=7")
    add(root, "list b vanish")
    add(root, "read c delay=0.25 short=3 nth=4")

    assert (
        "1: read a/* errno=EIO every=2 chance=0.5 seed=7\n2: list b vanish\n3: read c delay=0.25 short=3 nth=4\n"
    ) == (root / FAULTS).read_text()
    add(root, "remove 2")
    assert ["1", "3"] == [line.partition(":")[0] for line in (root / FAULTS).read_text().splitlines()]
    assert "EINVAL" == outcome(add, root, "remove 2")


@pytest.mark.parametrize(
    "text",
    [
        "", "read", "look a errno=EIO", "read /a errno=EIO", "read a", "read a errno=EWHAT", "read a delay=-1",
        "read a delay=61", "read a vanish", "list a short=1", "read a errno=EIO nth=x", "read a errno=EIO every=0",
        "read a errno=EIO chance=2", "remove x", "clear all",
    ],
)  # fmt: skip
def test_nonsense_is_refused(root, text):
    """What is no fault is EINVAL, and nothing changes."""
    if text:
        assert "EINVAL" == outcome(add, root, text)
        assert "" == (root / FAULTS).read_text()
    else:
        with pytest.raises(ValueError, match="must be one of"):
            parse(text)


def test_the_seed_decides(root):
    """The same seed makes the same accesses fail, another one others."""

    def failures(seed):
        faults = Faults([parse(f"read a errno=EIO chance=0.5 seed={seed}")])
        return [bool(faults.due("read", "a")) for _ in range(64)]

    assert failures(1) == failures(1)
    assert failures(1) != failures(2)
    assert 0 < sum(failures(1)) < 64
