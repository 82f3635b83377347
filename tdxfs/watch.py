"""Following a mounted machine by poll(2) on its files."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

from tdxfs.devfs import DevRoot
from tdxfs.errors import UserError
from tdxfs.sysfs.tdx import ConflictsDir
from tdxfs.values import Mounted, values

GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT)
"""What a file of a mount that is gone answers."""


def happenings(mountpoint: Path) -> Iterator[str]:
    """
    A line for each change: the generation, a conflict that appeared (+) or vanished (-), a record of the kernel log.
    Begins with what there is, ends with the mount. UserError if nothing of the kind is mounted there.
    """
    try:
        log = os.open(f"{mountpoint}{DevRoot.WHAT}/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"{mountpoint}: no machine is mounted here: {error.strerror}") from error
    descriptors = [log]
    try:
        try:
            generation = os.open(f"{mountpoint}{ConflictsDir.WHAT}/generation", os.O_RDONLY)
            descriptors.append(generation)
        except FileNotFoundError:
            generation = -1
        yield from _follow(mountpoint, log, generation)
    except OSError as error:
        if error.errno not in GONE:
            raise
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _follow(mountpoint: Path, log: int, generation: int) -> Iterator[str]:
    poller = select.poll()
    poller.register(log, select.POLLIN)
    if generation >= 0:
        poller.register(generation, select.POLLPRI)
    known: dict[str, str] = {}
    while True:
        for descriptor, events in poller.poll():
            if descriptor == log:
                yield from _records(log)
            else:
                number = os.pread(generation, 100, 0).decode().strip()
                yield f"generation {number}"
                try:
                    found = _conflicts(mountpoint)
                except OSError as error:  # one vanished meanwhile: the generation moves again
                    if error.errno not in (errno.ENOENT, errno.ENODEV):
                        raise
                    continue
                yield from (f"- {known[name]}" for name in known if name not in found)
                yield from (f"+ {found[name]}" for name in found if name not in known)
                known = found
            if events & (select.POLLHUP | select.POLLNVAL):
                return


def _records(log: int) -> Iterator[str]:
    while True:
        try:
            record = os.read(log, 8192).decode()
        except BlockingIOError:
            return
        except BrokenPipeError:  # the oldest are no longer kept
            continue
        if not record:
            return
        about, _, text = record.rstrip("\n").partition(";")
        yield f"[{int(about.split(',')[2]) / 1e6:12.6f}] {text}"


def _conflicts(mountpoint: Path) -> dict[str, str]:
    said = values(Mounted(mountpoint), ConflictsDir.WHAT, ConflictsDir)
    found = said["all"] if said is not None else []
    assert isinstance(found, list)
    return {
        f"{one['kind']} {one['subject']}": f"{one['kind']} {one['subject']}: {one['reason']}" for one in found if one
    }
