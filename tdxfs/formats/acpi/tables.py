"""ACPI tables as bytes: where they are, whether they are whole, and how to walk their structures.

There is no maintained Python package that reads these tables (checked on PyPI: of those that know ACPI, chipsec
parses NFIT but not SRAT, SLIT, HMAT or CEDT, and acpi-mcp explains tables in prose), so they are read here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from struct import error as StructError
from struct import unpack_from

from attrs import frozen

from tdxfs.errors import UserError

HEADER = 36
"""Bytes of the header that all tables but FACS have (ACPI 6.5, 5.2.6)."""


@frozen
class Table:
    """One table, header included."""

    signature: str
    data: bytes
    where: str
    """The file it came from, for errors."""

    @property
    def revision(self) -> int:
        return self.data[8]

    @property
    def oem(self) -> str:
        """OEM id without its padding."""
        return self.data[10:16].decode("ascii", "replace").rstrip("\0 ")

    def number(self, offset: int, size: int) -> int:
        """The little-endian number of `size` bytes there; UserError past the end of the table."""
        return take(self.data, offset, size, self.where)

    def structures(self, offset: int, form: str) -> Iterator[tuple[int, bytes]]:
        """
        Type and bytes of each structure from `offset` on. `form` is that of its first fields, type and length
        ("<BB" in SRAT, "<HH" in NFIT, "<HxxI" in HMAT); UserError if one ends past the table.
        """
        while offset < len(self.data):
            try:
                kind, length = unpack_from(form, self.data, offset)
            except StructError:
                raise UserError(f"{self.where}: {self.signature}: the last structure is cut off") from None
            if length < 2 or offset + length > len(self.data):
                raise UserError(f"{self.where}: {self.signature}: a structure at {offset:#x} has length {length}")
            yield kind, self.data[offset : offset + length]
            offset += length


def take(data: bytes, offset: int, size: int, where: str) -> int:
    """The little-endian number of `size` bytes at `offset`; UserError naming `where` if there are fewer."""
    if offset + size > len(data):
        raise UserError(f"{where}: cut off: it has {len(data)} bytes, {offset + size} are needed")
    return int.from_bytes(data[offset : offset + size], "little")


def read_tables(paths: Iterable[Path], signatures: Collection[str]) -> dict[str, Table]:
    """
    Signature -> table for those wanted, out of files or of directories such as /sys/firmware/acpi/tables. The first
    of two counts, as in Linux; UserError if a file is no table, or none that is wanted is there.
    """
    wanted = re.compile("|".join(signatures))
    found: dict[str, Table] = {}
    for path in paths:
        files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
        for file in files:
            if path.is_dir() and not wanted.match(file.name):
                continue
            table = _table(file)
            if table.signature in signatures:
                found.setdefault(table.signature, table)
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: none of the tables {', '.join(signatures)} is there")
    return found


def _table(file: Path) -> Table:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    if len(data) < HEADER or not re.fullmatch(rb"[A-Z0-9_ ]{4}", data[:4]):
        raise UserError(f"{file}: is no ACPI table")
    length = take(data, 4, 4, str(file))
    signature = data[:4].decode()
    if signature == "FACS":
        return Table(signature, data, str(file))
    if not HEADER <= length <= len(data):
        raise UserError(f"{file}: {signature}: says that it has {length} bytes, the file has {len(data)}")
    if sum(data[:length]) % 256:
        raise UserError(f"{file}: {signature}: its checksum is wrong")
    return Table(signature, data[:length], str(file))
