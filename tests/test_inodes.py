"""What the kernel knows of a mounted tree, without a kernel."""

import pytest
from machines import MIXED, booted

from tdxfs import fuse_wire as wire
from tdxfs.inodes import Inodes
from tdxfs.listings import Listings
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Directory
from tdxfs.tree import Tree

NODE = "/sys/devices/system/node"


@pytest.fixture
def inodes():
    return Inodes(Tree(Root, booted(MIXED)))


def look_up(inodes, path):
    """The inode of a path, every name on the way looked up; None if one is not there."""
    inode = inodes.at("")
    for name in path.strip("/").split("/"):
        if inodes.look_up(inode.nodeid, name) == wire.MISSING:
            return None
        inode = inodes.at(f"{inode.path}/{name}")
    return inode


def test_a_name_keeps_its_number(inodes):
    """Looked up twice, a path is one inode, which two look-ups hold."""
    first = look_up(inodes, NODE)

    assert first is look_up(inodes, NODE)
    assert 2 == first.lookups


def test_a_forgotten_inode_is_not_remembered(inodes):
    """The last look-up that the kernel forgets ends an inode; one fewer does not."""
    inode = look_up(inodes, NODE)
    look_up(inodes, NODE)

    inodes.forget(inode.nodeid, 1)
    assert inode is inodes.at(NODE)
    inodes.forget(inode.nodeid, 1)
    assert inodes.at(NODE) is None


def test_the_root_is_never_forgotten(inodes):
    """Whatever the kernel forgets, it knows the root."""
    inodes.forget(wire.ROOT_NODEID, 5)

    assert inodes.at("") is inodes.nodes[wire.ROOT_NODEID]


def test_an_absent_name_is_no_inode(inodes):
    """A name that is not there is said to be missing, and takes no memory."""
    parent = look_up(inodes, NODE)

    assert wire.MISSING == inodes.look_up(parent.nodeid, "absent")
    assert inodes.at(f"{NODE}/absent") is None


def rows(listing, plus):
    """(what is said of it, name) of the entries of a reply; the dots aside."""
    at = 0
    while at < len(listing):
        said, at = (listing[at : at + wire.ENTRY_SIZE], at + wire.ENTRY_SIZE) if plus else (b"", at)
        length = int.from_bytes(listing[at + 16 : at + 20], "little")
        name = listing[at + 24 : at + 24 + length]
        at += 24 + length + -length % 8
        if name not in (b".", b".."):
            yield said, name.decode()
    assert at == len(listing)


def test_plus_says_what_a_look_up_says(inodes):
    """READDIRPLUS gives each name that is not known the entry that LOOKUP would give it, and counts as one."""
    tree = Tree(Root, booted(MIXED))
    for path, entry in tree.walk(NODE):
        if isinstance(entry, Directory):
            directory = look_up(inodes, path)
            listing = Listings(tree, inodes).read(directory, False, 1 << 20, 0, True)
            names = [name for _, name in rows(listing, True)]
            assert list(tree.list(path).names) == names
            for said, name in rows(listing, True):
                child = inodes.at(f"{path}/{name}")
                assert said == wire.NO_ENTRY or said == inodes.look_up(directory.nodeid, name)
                assert 1 + (said != wire.NO_ENTRY) == child.lookups


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("size", [700, 8192])
def test_a_listing_is_never_longer_than_asked(inodes, plus, size):
    """Only what fits is said, and only what is said is counted as looked up."""
    tree = Tree(Root, booted(MIXED))
    directory = look_up(inodes, "/sys/devices/system/memory")
    listing = Listings(tree, inodes).read(directory, False, size, 0, plus)
    said = [name for _, name in rows(listing, plus)]
    names = tree.list(directory.path).names

    assert len(listing) <= size
    assert list(names[: len(said)]) == said
    known = {name for name in names if inodes.at(f"{directory.path}/{name}") is not None}
    assert set(said if plus else ()) == known
