"""The journal of a mount: every write that changed the machine, so that the same machine is there after a crash.

A line of text per record: a checksum of eight hexadecimal digits, a blank, JSON. The first says of which topology it
is; each other one is a write: its path, its bytes (one character each), the errno of one that was refused but left the
machine another all the same, and whether the conflicts had been looked at before it, as that numbers them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from tdxfs.conflicts import numbered
from tdxfs.errors import Refusal, UserError
from tdxfs.formats.topology import dumps
from tdxfs.model import Machine
from tdxfs.tree import Tree

VERSION = 1


@frozen
class Change:
    """One write that changed the machine."""

    path: str
    data: bytes
    refused: int = 0
    """errno of the refusal that it was answered; 0: none."""
    seen: bool = False
    """Whether somebody had looked at the conflicts of the machine before it."""


class Journal:
    """The journal of one mount, open for appending."""

    def __init__(self, path: Path, machine: Machine) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if os.fstat(self._descriptor).st_size == 0:
            self._append(_header(machine))

    def record(self, change: Change) -> None:
        """Append a change. It is in the file, whatever becomes of this process, when this returns."""
        about: dict[str, Any] = {"path": change.path, "data": change.data.decode("latin-1")}
        if change.refused:
            about["refused"] = change.refused
        if change.seen:
            about["seen"] = True
        self._append(about)

    def _append(self, about: dict[str, Any]) -> None:
        line = _line(about)
        size = os.fstat(self._descriptor).st_size
        if os.write(self._descriptor, line) != len(line):
            os.ftruncate(self._descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))


def attach(tree: Tree, path: Path) -> None:
    """
    Bring `tree` to where the journal at `path` ends, if there is one, and keep it there from now on. A record that
    was torn when the server died is dropped with a message; UserError if the journal is damaged or of another topology.
    """
    booted = tree.machine
    for change in read(path, booted, repair=True) if path.exists() and path.stat().st_size else ():
        if change.seen:
            numbered(tree.machine)
        try:
            tree.write(change.path, change.data)
        except Refusal as refusal:
            if refusal.errno == change.refused:
                continue
            raise UserError(f"{path}: {change.path}: {refusal}: it was not refused so before") from refusal
    journal = Journal(path, booted)

    def record(path: str, data: bytes, refused: int) -> None:
        journal.record(Change(path, data, refused, tree.machine.seen_numbers is not None))

    tree.journal = record


def read(path: Path, booted: Machine | None = None, *, repair: bool = False) -> Iterator[Change]:
    """
    The changes in a journal, in order; a torn last record is left out, with a message, and cut off if `repair`.
    UserError if it is none, is damaged, or is not of the machine that `booted` (None: of any).
    """
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop()
    records = [_parse(line) for line in lines]
    if len(records) > 1 and records[-1] is None and not torn:
        torn = lines.pop()
        records.pop()
    begun = not records and booted is not None and _line(_header(booted)).startswith(torn)
    if not begun and (not records or records[0] is None or records[0].get("tdxfs") != VERSION):
        raise UserError(f"{path}: is not a journal of tdxfs")
    if torn:
        print(f"tdxfs: {path}: the last record is torn and dropped: {torn[:60]!r}", file=sys.stderr)
        if repair:
            os.truncate(path, sum(len(line) + 1 for line in lines))
    if not records or records[0] is None:
        return
    if booted is not None and records[0] != _header(booted):
        mine = f"{booted.topology.name} as it is now"
        raise UserError(f"{path}: is the journal of another machine: of {records[0].get('name')}, not of {mine}")
    for number, about in enumerate(records[1:], 2):
        if about is None:
            raise UserError(f"{path}:{number}: the record is damaged")
        yield Change(about["path"], about["data"].encode("latin-1"), about.get("refused", 0), about.get("seen", False))


def _line(about: dict[str, Any]) -> bytes:
    text = json.dumps(about).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    about = json.loads(text)
    return about if isinstance(about, dict) else None


def _header(booted: Machine) -> dict[str, Any]:
    digest = hashlib.sha256(f"{dumps(booted.built)}{booted.policies}".encode()).hexdigest()
    return {"tdxfs": VERSION, "name": booted.topology.name, "machine": digest}
