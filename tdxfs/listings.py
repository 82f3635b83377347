"""Directories as getdents(2) sees them, with what READDIRPLUS says of each entry."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from stat import S_IFDIR
from typing import Any, TypeAlias

from tdxfs import fuse_wire as wire
from tdxfs.finder import Kind
from tdxfs.inodes import Inode, Inodes
from tdxfs.sysfs.attribute import Directory
from tdxfs.tree import INODE_MASK, LAST_OFFSET, Entries, Tree, inode_number, path_number

LARGE = 4096
"""Names of a directory that is listed anew each time; what they are is not said with them."""
REMEMBERED = 4096
"""Directories."""
DOT_OFFSET = 1
"""d_off of ``.``, as kernfs."""


class Listings:
    """The listings of a mount."""

    def __init__(self, tree: Tree, inodes: Inodes) -> None:
        self._tree = tree
        self._inodes = inodes
        self._entries: dict[str, Entries] = {}
        # (path, with READDIRPLUS) -> the reply where the kernel knows every name
        self._known: dict[tuple[str, bool], bytes] = {}
        self._stamp = 0

    def of(self, directory: Directory[Any], stamp: int) -> Entries:
        """What a directory holds, as long as nothing changes; `stamp` is that of before it was looked up."""
        if type(directory).OF_TASKS:
            return self._tree.entries(directory)
        if self._stamp != stamp or len(self._entries) >= REMEMBERED:
            self._stamp = stamp
            self._entries.clear()
            self._known.clear()
        entries = self._entries.get(directory.path)
        if entries is None:
            entries = self._entries[directory.path] = self._tree.entries(directory)
        return entries

    def read(self, inode: Inode, gone: bool, size: int, offset: int, plus: bool) -> bytes:
        """
        ``struct fuse_dirent`` of what follows an offset in a directory, with `plus` ``struct fuse_direntplus``: `size`
        bytes at most. Of one that is `gone` ``.`` and ``..``, and nothing more where it was half read.
        """
        if offset == LAST_OFFSET:
            return b""
        stamp = self._inodes.stamp
        directory = None if gone else self._inodes.entry(inode)
        if not isinstance(directory, Directory):
            return b"".join(_dots(inode.path, LAST_OFFSET, plus)) if offset == 0 else b""
        entries = self.of(directory, stamp)
        if offset == 0:
            self._inodes.accessed(inode)
        known = self._known.get((directory.path, plus)) if offset == 0 else None
        if known is not None and len(known) <= size:
            return known
        reply = _dots(inode.path, entries.first, plus)[offset:] if offset <= DOT_OFFSET else []
        large = len(entries.names) > LARGE
        rows = (
            _rows(entries, offset)
            if large
            else islice(_remembered_rows(entries), bisect_left(entries.offsets, offset), None)
        )
        room = size - sum(map(len, reply))
        kind = self._inodes.enter(inode) if plus else None
        tells = kind if kind is not None and kind.lists and not large else None
        told = self._add(reply, rows, room, inode, plus, tells)
        if told is not None and large:
            self._entries.pop(directory.path, None)
        elif told == 0 and offset == 0 and not type(directory).OF_TASKS:
            self._known[directory.path, plus] = b"".join(reply)
        return b"".join(reply)

    def _add(
        self, reply: list[bytes], rows: Iterable[_Row], room: int, directory: Inode, plus: bool, tells: Kind | None
    ) -> int | None:
        # add the rows that there is room for: None if not all, or how many the kernel has been told of
        told, nodes, below = 0, self._inodes.nodes, f"{directory.path}/"
        for name, rest in rows:
            room -= wire.DIRENT_HEAD + len(rest) + (wire.ENTRY_SIZE if plus else 0)
            if room < 0:
                return None
            number = path_number(below + name)
            if plus:
                # what the kernel knows it is not told again
                said = self._inodes.find(directory, tells, name) if tells and number not in nodes else None
                told += said is not None
                reply.append(said or wire.NO_ENTRY)
            reply.append(wire.pack_ino(number & INODE_MASK))
            reply.append(rest)
        return told


_Row: TypeAlias = tuple[str, bytes]
"""A name, and its ``struct fuse_dirent`` but for the inode number."""


def _rows(entries: Entries, offset: int) -> Iterator[_Row]:
    for name, kind, after in entries.following(offset):
        yield name, wire.dirent(wire.encoded(name), kind, after)


@lru_cache(maxsize=1024)
def _remembered_rows(entries: Entries) -> tuple[_Row, ...]:
    return tuple(_rows(entries, 0))


def _dots(path: str, after: int, plus: bool) -> list[bytes]:
    # . and .. of a directory whose first entry has a d_off
    return [
        (wire.NO_ENTRY if plus else b"") + wire.pack_ino(inode_number(to or "/")) + wire.dirent(name, S_IFDIR, then)
        for name, to, then in ((b".", path, DOT_OFFSET), (b"..", path.rpartition("/")[0], after))
    ]
