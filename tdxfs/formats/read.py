"""Reading values out of a snapshot."""

from __future__ import annotations

from typing import TypeVar

from tdxfs.errors import Refusal
from tdxfs.formats.snapshot import Snapshot
from tdxfs.sysfs.codec import LIST, Codec

V = TypeVar("V")


def text(snapshot: Snapshot, path: str) -> str:
    """What a file says, or nothing."""
    return (snapshot.read(path) or b"").decode("utf-8", "replace")


def id_set(snapshot: Snapshot, path: str, default: frozenset[int] = frozenset()) -> frozenset[int]:
    """The set that a range list names, or `default`."""
    return value(snapshot, path, LIST, default)


def value(snapshot: Snapshot, path: str, codec: Codec[V], default: V) -> V:
    """The value of a file, or `default` if it is not there, cannot be read or says something else."""
    data = snapshot.read(path)
    if data is None:
        return default
    try:
        return codec.parse(data)
    except Refusal:
        return default
