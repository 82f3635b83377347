"""Reading values out of a snapshot."""

from __future__ import annotations

import re
from typing import TypeVar, cast

from tdxfs.errors import Refusal
from tdxfs.formats.snapshot import Snapshot
from tdxfs.model import PAGE_SIZE
from tdxfs.ranges import Range, Ranges, align_down, align_up
from tdxfs.sysfs.codec import DECIMAL, LIST, MASK, Codec, Mask

V = TypeVar("V")


def text(snapshot: Snapshot, path: str) -> str:
    """What a file says, or nothing."""
    return (snapshot.read(path) or b"").decode("utf-8", "replace")


def ascii_text(snapshot: Snapshot, path: str) -> str:
    """The same with a question mark for every character that is not ASCII."""
    return text(snapshot, path).encode("ascii", "replace").decode("ascii")


def id_set(snapshot: Snapshot, path: str, default: frozenset[int] = frozenset()) -> frozenset[int]:
    """The set that a range list names, or `default`."""
    return value(snapshot, path, LIST, default)


def cpu_set(snapshot: Snapshot, *paths: str) -> frozenset[int] | None:
    """The CPUs that the first readable of these files names: range lists have names in ``list``, others are masks."""
    nothing = Mask(frozenset(), 0)
    for path in paths:
        if (snapshot.read(path) or b"").strip(b"\0\n"):
            if path.endswith("list"):
                return id_set(snapshot, path)
            return value(snapshot, path, MASK, nothing).ids
    return None


def number(snapshot: Snapshot, path: str) -> int | None:
    """The decimal number in a file, or None."""
    nothing: int | None = None
    return value(snapshot, path, cast("Codec[int | None]", DECIMAL), nothing)


def numbered(snapshot: Snapshot, directory: str, name: str) -> list[int]:
    """The numbers of the entries of a directory that are called `name` and a number, in order."""
    found = (re.fullmatch(rf"{name}([0-9]+)", entry) for entry in snapshot.names(directory))
    return sorted(int(match[1]) for match in found if match)


def iomem(snapshot: Snapshot, name: str) -> Ranges:
    """The whole pages of the resources in ``/proc/iomem`` whose name matches `name`; none to those who may not see."""
    found = re.findall(rf"^ *([0-9a-f]+)-([0-9a-f]+) : {name}$", text(snapshot, "proc/iomem"), re.MULTILINE)
    ends = [(align_up(int(low, 16), PAGE_SIZE), align_down(int(high, 16) + 1, PAGE_SIZE)) for low, high in found]
    return Ranges.of(Range(start, end) for start, end in ends if start < end)


def value(snapshot: Snapshot, path: str, codec: Codec[V], default: V) -> V:
    """The value of a file, or `default` if it is not there, cannot be read or says something else."""
    data = snapshot.read(path)
    if data is None:
        return default
    try:
        return codec.parse(data)
    except Refusal:
        return default
