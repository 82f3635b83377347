"""A tree as plain files, for machines without FUSE."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tdxfs.errors import Refusal, UserError
from tdxfs.sysfs.attribute import Directory, File, Link, Reader
from tdxfs.tree import Tree, content


def export(tree: Tree, directory: Path) -> int:
    """
    Write the tree below `directory`, which must be empty or absent, and return the number of entries. Files
    that cannot be read are left empty, devices are left out; UserError if the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UserError(f"{directory}: must be empty")
        return _write(tree, "", tree.root, directory)
    except OSError as error:
        raise UserError(f"{error.filename or directory}: {error.strerror}") from error


def _write(tree: Tree, path: str, directory: Directory[object], place: Path) -> int:
    count = 1
    for name in tree.list(path or "/").names:
        entry = tree.lookup(f"{path}/{name}")
        target = place / name
        if isinstance(entry, Directory):
            target.mkdir()
            count += _write(tree, f"{path}/{name}", entry, target)
        elif isinstance(entry, Link):
            os.symlink(entry.target, target)
            count += 1
        elif isinstance(entry, File) and entry.reader not in (Reader.MEMORY, Reader.KVM):
            target.write_bytes(_content(entry))
            target.chmod(stat.S_IMODE(entry.mode))
            count += 1
    return count


def _content(file: File) -> bytes:
    if not file.mode & 0o444:
        return b""
    try:
        return content(file)
    except Refusal:
        return b""
