"""The firmware's memory map, as the kernel prints it, and what the kernel command line makes of it.

Compare arch/x86/kernel/e820.c. Later entries win over earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tdxfs.errors import UserError
from tdxfs.formats.firmware.facts import MapEntry, MapKind
from tdxfs.model import MIB, PAGE_SIZE
from tdxfs.ranges import Range, Ranges, align_down, align_up

E820 = re.compile(r"BIOS-e820: \[mem (0x[0-9a-f]+)-(0x[0-9a-f]+)\] ([^\n]*)")
EFI = re.compile(r"efi: mem[0-9]+: \[([^|\]]*)\|([^\]]*)\] range=\[(0x[0-9a-f]+)-(0x[0-9a-f]+)\]")
CONVENTIONAL = "Conventional"
EFI_RAM = (CONVENTIONAL, "Loader Code", "Loader Data", "Boot Code", "Boot Data")
"""The types that do_add_efi_memmap() calls RAM."""
IOMEM = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) : (System RAM|Soft Reserved)$", re.MULTILINE)
KINDS = {"usable": MapKind.RAM, "system ram": MapKind.RAM, "soft reserved": MapKind.SOFT_RESERVED}
"""E820 type as the kernels print it; newer ones say System RAM."""
E820_TYPES = {1: MapKind.RAM, 7: MapKind.PERSISTENT, 12: MapKind.PERSISTENT, 0xEFFFFFFF: MapKind.SOFT_RESERVED}
PAGE_ZERO, VIDEO_AND_BIOS = Range(0, PAGE_SIZE), Range(0xA0000, MIB)
"""What trim_bios_range() never leaves as RAM."""
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}


def parse_memory_map(text: str, name: str = "memory map") -> tuple[MapEntry, ...]:
    """
    The map in a kernel log, its BIOS-e820 lines or else its EFI lines, or in /proc/iomem. UserError if there are
    none of these.
    """
    found = [_entry(low, high, _e820_kind(kind)) for low, high, kind in E820.findall(text)]
    if not found:
        found = [_entry(low, high, _efi_kind(kind, attributes)) for kind, attributes, low, high in EFI.findall(text)]
    if not found:
        found = [_entry(low, high, KINDS[kind.lower()]) for low, high, kind in IOMEM.findall(text)]
    if not found:
        raise UserError(f"{name}: has neither BIOS-e820 nor efi memory map lines, nor System RAM as in /proc/iomem")
    return tuple(found)


def _entry(low: str, high: str, kind: MapKind) -> MapEntry:
    return MapEntry(Range(int(low, 16), int(high, 16) + 1), kind)


def _e820_kind(word: str) -> MapKind:
    word = word.strip().lower()
    return MapKind.PERSISTENT if word.startswith("persistent") else KINDS.get(word, MapKind.RESERVED)


def _efi_kind(kind: str, attributes: str) -> MapKind:
    kind = kind.strip().removesuffix(" Memory")
    if kind in EFI_RAM:
        soft = kind == CONVENTIONAL and "SP" in attributes.split("|")
        return MapKind.SOFT_RESERVED if soft else MapKind.RAM
    return MapKind.PERSISTENT if kind == "Persistent" else MapKind.RESERVED


def of_kind(entries: Iterable[MapEntry], kind: MapKind) -> Ranges:
    """What the map gives to one kind, in whole pages."""
    found = Ranges()
    for entry in entries:
        one = Ranges((entry.range,))
        found = found | one if entry.kind is kind else found - one
    return found.aligned_in(PAGE_SIZE)


def ram_of(entries: Iterable[MapEntry]) -> Ranges:
    """What Linux makes System RAM of."""
    return of_kind(entries, MapKind.RAM) - Ranges((PAGE_ZERO, VIDEO_AND_BIOS))


def apply_cmdline(entries: tuple[MapEntry, ...], cmdline: str) -> tuple[MapEntry, ...]:
    """The map with the ``memmap=`` and ``mem=`` parameters applied; UserError for one that cannot be read."""
    for word in cmdline.split():
        name, _, value = word.partition("=")
        if name == "mem" and value not in ("", "nopentium"):
            limit = _size(value, word)
            entries += (MapEntry(Range(limit, 1 << 64), MapKind.RESERVED),)
        elif name == "memmap":
            for part in value.split(","):
                entries = () if part == "exactmap" else entries + tuple(_memmap(entries, part))
    return entries


NUMBER = r"(0x[0-9a-fA-F]+|[0-9]+)"
SIZE = rf"{NUMBER}([KMGTPE]?)"
FORM = re.compile(rf"{SIZE}(?:([@#$!%]){SIZE}(.*))?", re.IGNORECASE)
CHANGED = {"@": MapKind.RAM, "#": MapKind.RESERVED, "$": MapKind.RESERVED, "!": MapKind.PERSISTENT}


def _memmap(entries: tuple[MapEntry, ...], part: str) -> Iterator[MapEntry]:
    match = FORM.fullmatch(part)
    if match is None:
        raise UserError(f"memmap={part}: must be exactmap, SIZE, or SIZE and one of @#$!% and START")
    size = int(match[1], 0) * UNITS[match[2].upper()]
    if match[3] is None:
        yield MapEntry(Range(size, 1 << 64), MapKind.RESERVED)
        return
    start = int(match[4], 0) * UNITS[match[5].upper()]
    where = Range(align_down(start, PAGE_SIZE), align_up(start + size, PAGE_SIZE))
    if match[3] != "%":
        yield MapEntry(where, CHANGED[match[3]])
        return
    # -OLD+NEW: what has the one e820 type gets the other; either may be left out
    types = re.fullmatch(rf"(?:-{NUMBER})?(?:\+{NUMBER})?", match[6])
    if types is None:
        raise UserError(f"memmap={part}: after START there must be -OLDTYPE, +NEWTYPE, or both")
    kind = E820_TYPES.get(int(types[2], 0), MapKind.RESERVED) if types[2] else MapKind.RESERVED
    if types[1] is None:
        yield MapEntry(where, kind)
        return
    old = E820_TYPES.get(int(types[1], 0), MapKind.RESERVED)
    for changed in of_kind(entries, old) & Ranges((where,)):
        yield MapEntry(changed, kind)


def _size(text: str, word: str) -> int:
    match = re.fullmatch(SIZE, text, re.IGNORECASE)
    if match is None:
        raise UserError(f"{word}: must be a size")
    return int(match[1], 0) * UNITS[match[2].upper()]
