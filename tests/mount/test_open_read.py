"""What files read through a mount; tests/semantics/ has how."""

import errno

from machines import tree
from syscalls import answer

from tdxfs.errors import Refusal
from tdxfs.sysfs.attribute import File, Reader


def content(path):
    with open(path, "rb") as file:
        return file.read()


def test_every_file_reads_as_the_tree_says(machine):
    """Every file of the mount has the content that the tree shows, or its errno."""
    emulated = tree()
    for path, entry in emulated.walk():
        if not isinstance(entry, File) or not entry.mode & 0o444 or entry.rdev or entry.reader is Reader.RECORDS:
            continue
        try:
            expected = emulated.read(path)
        except Refusal as refusal:
            expected = errno.errorcode[refusal.errno]
        assert expected == answer(content, machine.root + path), path
