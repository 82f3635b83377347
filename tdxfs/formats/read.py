"""Reading values out of a snapshot."""

from __future__ import annotations

import re
from typing import TypeVar

from tdxfs.errors import Refusal
from tdxfs.formats.snapshot import Snapshot
from tdxfs.model import PAGE_SIZE
from tdxfs.ranges import Range, Ranges, align_down, align_up
from tdxfs.sysfs.codec import LIST, Codec

V = TypeVar("V")


def text(snapshot: Snapshot, path: str) -> str:
    """What a file says, or nothing."""
    return (snapshot.read(path) or b"").decode("utf-8", "replace")


def id_set(snapshot: Snapshot, path: str, default: frozenset[int] = frozenset()) -> frozenset[int]:
    """The set that a range list names, or `default`."""
    return value(snapshot, path, LIST, default)


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
