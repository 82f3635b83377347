"""A machine's files to import from: a live or copied tree, a tarball, or a recorded stage.

All answer the same three questions about paths such as ``sys/devices``; links on the way are followed, and
``..`` is the parent of what they lead to. What is not there, or cannot be read, is None: recordings lack
files, and so do kernels.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import posixpath
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

from attrs import field, frozen

from tdxfs.errors import UserError

SYSTEM = "devices/system"
STAGE = "sys.jsonl.gz"
MOST_HOPS = 40
"""How many links the kernel follows in one path."""


class Snapshot(Protocol):
    """Files of a machine, by path below its root."""

    @property
    def whole(self) -> bool:
        """Whether it is of a root directory, so that the machine lacks what it lacks; False: of a sysfs alone."""

    @property
    def live(self) -> bool:
        """Whether it is of the running system."""

    def read(self, path: str) -> bytes | None:
        """Content of a file; None if there is none that can be read."""

    def names(self, path: str) -> list[str]:
        """Names in a directory, sorted; none if it is not there."""

    def link(self, path: str) -> str | None:
        """The text of a link; None if it is no link."""


@frozen
class DirectorySnapshot:
    """A tree on disk: its root, or a sysfs without one."""

    sys: Path
    root: Path | None

    @property
    def whole(self) -> bool:
        return self.root is not None

    @property
    def live(self) -> bool:
        return self.root == Path("/")

    def _real(self, path: str) -> str | None:
        top, _, rest = path.partition("/")
        if top == "sys":
            return os.path.join(self.sys, rest)
        return os.path.join(self.root, path) if self.root else None

    def read(self, path: str) -> bytes | None:
        real = self._real(path)
        try:
            return Path(real).read_bytes() if real else None
        except OSError:
            return None

    def names(self, path: str) -> list[str]:
        real = self._real(path)
        try:
            return sorted(os.listdir(real)) if real else []
        except OSError:
            return []

    def link(self, path: str) -> str | None:
        real = self._real(path)
        try:
            return os.readlink(real) if real else None
        except OSError:
            return None


@frozen
class RecordedSnapshot:
    """A tree in memory: what a tarball or a stage holds."""

    files: dict[str, bytes]
    links: dict[str, str]
    others: Collection[str] = ()
    """Paths of directories, and of files whose content was not recorded."""
    whole: bool = True
    live: bool = False
    below: dict[str, set[str]] = field(init=False)
    """Directory -> names in it."""

    @below.default
    def _below(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for path in (*self.files, *self.links, *self.others):
            while path:
                path, name = posixpath.split(path)
                siblings = found.setdefault(path, set())
                if name in siblings:
                    break
                siblings.add(name)
        return found

    def _real(self, path: str) -> str | None:
        # every part but the last resolved as the kernel resolves a path
        here: list[str] = []
        todo = path.split("/")[::-1]
        hops = 0
        while todo:
            part = todo.pop()
            if part in (".", ".."):
                here = here[:-1] if part == ".." else here
                continue
            here.append(part)
            target = self.links.get("/".join(here)) if todo else None
            if target is not None:
                hops += 1
                if hops > MOST_HOPS:
                    return None
                here.pop()
                todo += target.split("/")[::-1]
        return "/".join(here)

    def _target(self, path: str) -> str:
        # the last part followed too
        return self._real(f"{path}/.") or ""

    def read(self, path: str) -> bytes | None:
        return self.files.get(self._target(path))

    def names(self, path: str) -> list[str]:
        return sorted(self.below.get(self._target(path), ()))

    def link(self, path: str) -> str | None:
        return self.links.get(self._real(path) or "")


def open_snapshot(where: Path) -> Snapshot:
    """
    What `where` holds: a sysfs, a directory or tarball around one, or a stage. UserError if it
    holds none of them.
    """
    try:
        if where.is_file():
            return _tarball(where)
        if (where / STAGE).is_file():
            return _stage(where)
        if where.is_dir():
            return _directory(where)
    except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as error:
        raise UserError(f"{where}: cannot be read: {error}") from error
    raise UserError(f"{where}: no such file or directory")


def _directory(where: Path) -> Snapshot:
    if (where / SYSTEM).is_dir():
        # a sysfs itself: only one that is called sys has its proc beside it
        root = where.resolve().parent
        return DirectorySnapshot(where, root if where.resolve().name == "sys" and (root / "proc").is_dir() else None)
    for root in (where, *sorted(where.iterdir())):
        if (root / "sys" / SYSTEM).is_dir():
            return DirectorySnapshot(root / "sys", root)
    raise UserError(f"{where}: is not a sysfs and holds none: there is no {SYSTEM}")


def _tarball(where: Path) -> Snapshot:
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    others: list[str] = []
    try:
        with tarfile.open(where) as archive:
            members = archive.getmembers()
            depth = _depth(member.name for member in members)
            for member in members:
                path = "/".join(_parts(member.name)[depth:])
                if path and member.isfile():
                    content = archive.extractfile(member)
                    files[path] = content.read() if content else b""
                elif path and member.issym():
                    links[path] = member.linkname
                elif path:
                    others.append(path)
    except tarfile.ReadError as error:
        raise UserError(f"{where}: is not a tarball") from error
    if not any(path.startswith(f"sys/{SYSTEM}/") for path in files):
        raise UserError(f"{where}: holds no sysfs: there is no sys/{SYSTEM}")
    return RecordedSnapshot(files, links, others)


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _depth(names: Iterable[str]) -> int:
    # archives hold sys and proc, or one directory with both
    return 0 if any(_parts(name)[:1] == ["sys"] for name in names) else 1


def _stage(where: Path) -> Snapshot:
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    others: list[str] = []
    with gzip.open(where / STAGE, "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not {"p", "t"} <= entry.keys():
                raise ValueError(f"{STAGE}: {line[:40].strip()}: is not an entry of a recording")
            path = entry["p"].lstrip("/")
            if entry["t"] == "l":
                links[path] = entry["l"]
            elif entry["t"] == "f" and "err" not in entry and "skip" not in entry:
                text = entry.get("c", "").encode("utf-8", "surrogateescape")
                files[path] = base64.b64decode(entry["b64"]) if "b64" in entry else text
            else:
                others.append(path)
    for file in sorted((where / "proc").glob("*")):
        files[f"proc/{file.name}"] = file.read_bytes()
    return RecordedSnapshot(files, links, others)
