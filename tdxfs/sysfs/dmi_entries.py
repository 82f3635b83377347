"""``/sys/firmware/dmi/entries``: the memory modules in the SMBIOS tables; compare drivers/firmware/dmi-sysfs.c."""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Any

from tdxfs.model import KIB, MIB, Machine, MemoryModule
from tdxfs.sysfs.attribute import Directory, directories, ro
from tdxfs.sysfs.codec import BINARY, DECIMAL

TYPE, ARRAY_TYPE = 17, 16
"""A memory device, and the array that holds them."""
FORM = struct.Struct("<BBHHHHHHBBBBBHHBBBBBIH")
"""A memory device of SMBIOS 2.7, before its texts."""
NO_ERROR_HANDLE, WIDTH, DIMM, UNKNOWN = 0xFFFE, 64, 9, 2
EXTENDED = 0x7FFF
"""Size that stands in the extended size."""
NOT_KNOWN = 0xFFFF
TEXTS = {"locator": 0x10, "bank": 0x11, "manufacturer": 0x17, "serial": 0x18, "asset_tag": 0x19, "part_number": 0x1A}
"""Field of `MemoryModule` -> where its entry has the number of that text."""
ENCODING = "latin-1"


def handle_of(instance: int) -> int:
    """What other entries would call it."""
    return TYPE << 8 | instance


def encode(instance: int, module: MemoryModule) -> bytes:
    """The entry of a memory module (SMBIOS 7.18)."""
    texts = {name: getattr(module, name) for name in TEXTS}
    given = [name for name, text in texts.items() if text]
    numbers = {name: given.index(name) + 1 if name in given else 0 for name in TEXTS}
    megabytes = module.size // MIB
    fixed = FORM.pack(
        TYPE, FORM.size, handle_of(instance), ARRAY_TYPE << 8, NO_ERROR_HANDLE, WIDTH, WIDTH,
        min(megabytes, EXTENDED), DIMM, 0, numbers["locator"], numbers["bank"], UNKNOWN, 0, 0,
        numbers["manufacturer"], numbers["serial"], numbers["asset_tag"], numbers["part_number"], 0,
        megabytes if megabytes >= EXTENDED else 0, 0,
    )  # fmt: skip
    ends = b"".join(texts[name].encode(ENCODING) + b"\0" for name in given) or b"\0"
    return fixed + ends + b"\0"


def decode(entry: bytes) -> MemoryModule | None:
    """The memory module that an entry describes; None if it is too short to describe one."""
    if len(entry) <= TEXTS["part_number"] or not TEXTS["part_number"] < entry[1] <= len(entry):
        return None
    texts = [b"", *entry[entry[1] :].split(b"\0")]
    found = {name: texts[entry[at]].decode(ENCODING) for name, at in TEXTS.items() if entry[at] < len(texts)}
    (size,) = struct.unpack_from("<H", entry, 0x0C)
    if size == EXTENDED and entry[1] >= 0x20:
        (megabytes,) = struct.unpack_from("<I", entry, 0x1C)
        return MemoryModule(**found, size=megabytes * MIB)
    if size == NOT_KNOWN:
        size = 0
    return MemoryModule(**found, size=(size & EXTENDED) * (KIB if size > EXTENDED else MIB))


class DmiEntryDir(Directory[int]):
    """The entry of a memory module; key: its instance."""

    WHAT = "/sys/firmware/dmi/entries/17-<instance>"

    def _raw(self) -> bytes:
        return encode(self.key, self.machine.topology.memory_modules[self.key])

    @ro(BINARY, mode=0o400, size=0)
    def raw(self) -> bytes:
        """The entry as it is in the tables, its texts included."""
        return self._raw()

    @ro(DECIMAL, mode=0o400)
    def handle(self) -> int:
        """What other entries call it."""
        return handle_of(self.key)

    @ro(DECIMAL, mode=0o400)
    def instance(self) -> int:
        """Which of its type it is."""
        return self.key

    @ro(DECIMAL, mode=0o400)
    def length(self) -> int:
        """Bytes before its texts."""
        return self._raw()[1]

    @ro(DECIMAL, mode=0o400)
    def position(self) -> int:
        """Which of all entries it is."""
        return self.key

    @ro(DECIMAL, mode=0o400)
    def type(self) -> int:
        """Always 17, a memory device."""
        return TYPE


class DmiEntries(Directory[Any]):
    """Entries of the SMBIOS tables: those of memory modules."""

    WHAT = "/sys/firmware/dmi/entries"

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Where there are memory modules in the tables."""
        return bool(machine.topology.memory_modules)

    @directories("17-<instance>", DmiEntryDir)
    def modules(self) -> Collection[int]:
        """One per memory module."""
        return range(len(self.machine.topology.memory_modules))


DIRECTORIES = (DmiEntries,)
