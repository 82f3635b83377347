"""The ABI of the emulated tree as text, from the declarations: compare Documentation/ABI of Linux."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from attrs import frozen

from tdxfs.root import FIXED
from tdxfs.sysfs.attribute import (
    Attribute,
    Directories,
    DirectoryClass,
    Documented,
    Edited,
    Files,
    Links,
    LinkTo,
    Subdirectory,
    Tier,
    documented,
)


def classes(fixed: Iterable[DirectoryClass] = FIXED) -> tuple[DirectoryClass, ...]:
    """Every directory class that is reachable from those of a fixed place, once, parents first."""
    found: dict[DirectoryClass, None] = {}
    todo = list(reversed(tuple(fixed)))
    while todo:
        cls = todo.pop()
        if cls in found:
            continue
        found[cls] = None
        below = [one.cls for one in cls.DECLARED.values() if isinstance(one, Subdirectory)]
        below += [family.cls for family in cls.FAMILIES if isinstance(family, Directories)]
        todo.extend(reversed(below))
    return tuple(found)


@frozen(order=True)
class Entry:
    """One entry of the ABI text."""

    what: str
    tier: Tier
    form: str
    """What a value looks like, and the mode; or that it is a link or a directory."""
    since: str
    until: str
    doc: str


def entries() -> Iterator[Entry]:
    """Every declared entry, sorted by path."""
    found = {}
    for one in documented(classes()):
        what = one.what.replace("//", "/")
        declared = one.declared
        found[what, declared.since] = Entry(
            what, declared.tier, _form(one), declared.since, declared.until, declared.doc
        )
    yield from (found[key] for key in sorted(found))


def _form(one: Documented) -> str:
    declared = one.declared
    match declared:
        case Attribute() | Files():
            return f"{declared.codec}, mode 0{declared.mode:o}"
        case Edited():
            return f"text, mode 0{declared.mode:o}"
        case LinkTo() | Links():
            return "a symbolic link"
        case Subdirectory() | Directories():
            return "a directory"
    return "a character device"


def text(tiers: Iterable[Tier]) -> str:
    """The ABI text of the entries of `tiers`, tier by tier."""
    everything = list(entries())
    parts = []
    for tier in tiers:
        parts.append(f"Tier: {tier.value}\n")
        parts.extend(_format(entry) for entry in everything if entry.tier is tier)
    return "\n".join(parts)


def _format(entry: Entry) -> str:
    fields = [("What", entry.what), ("Format", entry.form)]
    if entry.since:
        fields.append(("KernelVersion", entry.since))
    if entry.until:
        fields.append(("Until", entry.until))
    lines = [f"{name + ':':16}{value}" for name, value in fields]
    lines += textwrap.wrap(entry.doc, 100, initial_indent=f"{'Description:':16}", subsequent_indent=" " * 16)
    return "\n".join(lines) + "\n"
