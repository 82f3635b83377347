"""Reading a sysfs tree by the declarations that made it: values instead of text.

The same code reads a mounted tree through its files, as any userspace would, and a `Tree` without a
mount; so the two can be compared, and no path or format is written a second time.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from tdxfs.errors import NoEntry
from tdxfs.sysfs.attribute import Attribute, Directories, DirectoryClass, Subdirectory
from tdxfs.tree import Tree


class Source(Protocol):
    """Where files are read; both methods raise FileNotFoundError or NoEntry for a name that is not there."""

    def read(self, path: str) -> bytes: ...

    def names(self, path: str) -> Collection[str]: ...


@frozen
class Mounted:
    """A sysroot in the file system: a mount, an export, a bind mount of one."""

    root: Path

    def read(self, path: str) -> bytes:
        return (self.root / path.lstrip("/")).read_bytes()

    def names(self, path: str) -> Collection[str]:
        return os.listdir(self.root / path.lstrip("/"))

    def write(self, path: str, data: bytes) -> None:
        """One write(2)."""
        handle = os.open(self.root / path.lstrip("/"), os.O_WRONLY)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)


@frozen
class Emulated:
    """A tree that is not mounted."""

    tree: Tree

    def read(self, path: str) -> bytes:
        return self.tree.read(path)

    def names(self, path: str) -> Collection[str]:
        return self.tree.list(path).names

    def write(self, path: str, data: bytes) -> None:
        """One write(2)."""
        self.tree.write(path, data)


def values(source: Source, path: str, cls: DirectoryClass) -> dict[str, Any] | None:
    """
    What the directory of class `cls` at `path` says, as JSON knows it: its files by name (absent ones are
    absent), its subdirectories, its families as lists in the order of their keys. None: no such directory.
    """
    try:
        there = set(source.names(path))
    except (FileNotFoundError, NoEntry):
        return None
    found: dict[str, Any] = {}
    for name, declared in cls.DECLARED.items():
        if name in there and isinstance(declared, Attribute):
            found[name] = declared.codec.plain(declared.codec.parse(source.read(f"{path}/{name}")))
        elif name in there and isinstance(declared, Subdirectory):
            found[name] = values(source, f"{path}/{name}", declared.cls)
    for name, family in _families(cls).items():
        keys = sorted(key for key in map(family.key_of, there) if key is not None)
        found[name] = [values(source, f"{path}/{family.name_of(key)}", family.cls) for key in keys]
    return found


def _families(cls: DirectoryClass) -> dict[str, Directories[Any]]:
    return {family.name: family for family in cls.FAMILIES if isinstance(family, Directories)}
