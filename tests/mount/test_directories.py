"""Listings of directories through a mount; tests/semantics/ has what can be done to them."""

import os
import stat

from machines import tree
from syscalls import getdents, opened

from tdxfs.tree import LAST_OFFSET, name_hash

KINDS = {4: stat.S_IFDIR, 8: stat.S_IFREG, 10: stat.S_IFLNK, 2: stat.S_IFCHR}


class TestListing:
    def test_order_offsets_types_and_inodes(self, machine):
        """Sorted by kernfs's hash, d_off the next entry's, d_type and d_ino as stat says, in every directory."""
        for path, entry in tree().walk():
            if not stat.S_ISDIR(getattr(entry, "MODE", 0)):
                continue
            with opened(machine.root + path) as directory:
                rows = getdents(directory, 1 << 20)
                assert getdents(directory) == []
            names = [row[3] for row in rows]
            assert names[:2] == [".", ".."], path
            assert names[2:] == sorted(names[2:], key=lambda name: (name_hash(name), name)), path
            assert [1, *map(name_hash, names[2:]), LAST_OFFSET] == [row[1] for row in rows], path
            assert rows[0][0] == os.stat(machine.root + path).st_ino, path
            for ino, _, kind, name in rows[2:]:
                seen = os.lstat(f"{machine.root}{path}/{name}")
                assert (seen.st_ino, stat.S_IFMT(seen.st_mode)) == (ino, KINDS[kind]), f"{path}/{name}"

    def test_small_buffers(self, machine):
        """24 bytes hold one entry, 10 none; many small reads give what one large one gives."""
        with opened(machine.node0) as directory:
            assert getdents(directory, 10) == "EINVAL"
            assert ["."] == [row[3] for row in getdents(directory, 24)]
            rest = []
            while part := getdents(directory, 64):
                rest += part
        with opened(machine.node0) as directory:
            assert getdents(directory)[1:] == rest

    def test_seek_between_hashes(self, machine):
        """A number that is nobody's hash continues at the next one above it."""
        with opened(machine.node0) as directory:
            rows = getdents(directory)
            os.lseek(directory, rows[5][1] - 1, os.SEEK_SET)
            assert rows[6:] == getdents(directory)

    def test_half_read_while_others_read(self, machine):
        """Descriptors keep their own place, whatever else is listed in between."""
        with opened(machine.node0) as one, opened(machine.nodes) as other:
            rows = getdents(one, 256)
            getdents(other)
            while part := getdents(one, 256):
                rows += part
        with opened(machine.node0) as again:
            assert getdents(again) == rows
