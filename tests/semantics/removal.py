"""Descriptors that outlive their object (section 13): an ejected memory block, a deleted dax device."""

import os
import select
from contextlib import ExitStack

from attrs import field, mutable
from syscalls import answer, can_open, getdents, opened, poll

from semantics.rule import OK, Rule, by

HOTPLUG = "kernel/debug/tdxfs/hotplug"
MODULE = "base=0x400000000"
"""A memory module of 1 GiB, which begins with block 128."""
REGION = "bus/dax/devices/dax0.0/../dax_region"


@mutable
class Held:
    """What was opened of an object before it was removed."""

    read: int
    """A descriptor of the file that has read."""
    fresh: int
    writer: int
    directory: int
    half: int
    """A descriptor of the directory, half of which was listed."""
    path: str
    """Of the file."""
    status: os.stat_result = field(init=False)

    def __attrs_post_init__(self):
        self.status = os.fstat(self.read)


def _block(m):
    m.write(HOTPLUG, f"plug node=2 {MODULE} size={1 << 30:#x}")
    return m.at("devices/system/memory/memory128/state")


def _eject(m):
    assert m.write(HOTPLUG, f"unplug {MODULE}") == OK


def _device(m):
    m.write(f"{REGION}/create", "1")
    return os.path.realpath(m.at("bus/dax/devices/dax0.1")) + "/size"


def _delete(m):
    assert m.write(f"{REGION}/delete", "dax0.1") == OK


CASES = {"removed memory block": ("plain", _block, _eject), "removed dax device": ("dynamic, empty", _device, _delete)}


def _removed(case, look):
    _, find, remove = CASES[case]

    def probe(m):
        path = find(m)
        with ExitStack() as stack:
            opens = [(path, os.O_RDONLY)] * 2 + [(path, os.O_WRONLY)] + [(os.path.dirname(path), os.O_RDONLY)] * 2
            held = Held(*(stack.enter_context(opened(*one)) for one in opens), path)
            os.read(held.read, 100)
            getdents(held.half, 100)
            remove(m)
            return look(held)

    return probe


def _seek(held):
    return answer(os.lseek, held.read, 0, os.SEEK_SET)


def _seek_and_read(held):
    _seek(held)
    return answer(os.read, held.read, 10)


def _file(held):
    now = os.fstat(held.read)
    return (now.st_mode, now.st_size) == (held.status.st_mode, held.status.st_size)


def _below(name):
    return lambda held: answer(os.open, name, os.O_RDONLY, dir_fd=held.directory)


def _status_of(name):
    return lambda held: isinstance(answer(os.stat, name, dir_fd=held.directory), os.stat_result)


def _deleted(held):
    said = os.readlink(f"/proc/self/fd/{held.read}")
    return {held.path: "the old path", f"{held.path} (deleted)": "... (deleted)"}.get(said, said)


KNEW = "the kernel's FUSE answers from what it knew"
ROWS = (
    ("poll IN+PRI", "0xb", lambda held: hex(poll(held.read, select.POLLIN | select.POLLPRI))),
    ("read at the old offset", "ENODEV", lambda held: answer(os.read, held.read, 10)),
    ("pread on the descriptor never read", "ENODEV", lambda held: answer(os.pread, held.fresh, 10, 0)),
    ("fstat of the file: mode and size as before", True, _file),
    ("write", "ENODEV", lambda held: answer(os.write, held.writer, b"1")),
    ("getdents64 on the fresh directory", [".", ".."], lambda held: [row[3] for row in getdents(held.directory)]),
    ("getdents64 on the half-read one", [], lambda held: getdents(held.half)),
    ("openat(directory, attribute)", "ENOENT", _below("uevent")),
    ("fstatat(directory, .)", True, _status_of(".")),
    ("fstatat(directory, ..)", True, _status_of("..")),
    ("open by path", "ENOENT", lambda held: can_open(held.path, os.O_RDONLY)),
    ("readlink of /proc/self/fd/N", "... (deleted)", _deleted),
    ("open /proc/self/fd/N", "ENODEV", lambda held: can_open(f"/proc/self/fd/{held.read}", os.O_RDONLY)),
)
"""What is asked, the answer, how."""
BROKEN = (
    ("lseek 0", by(0, "ENODEV", "ENODEV"), _seek, 0, KNEW),
    ("read after lseek 0", "ENODEV", _seek_and_read, None, ""),
    ("fstat of the file: nlink", by(1, 1, 0), lambda held: os.fstat(held.read).st_nlink, 1, KNEW),
    ("fstat of the directory: nlink", by(2, 2, 0), lambda held: os.fstat(held.directory).st_nlink, 3, KNEW),
)
"""The same, and what a mount answers, and why."""
RULES = tuple(
    Rule("13", f"{case}: {what}", sysfs, _removed(case, look), on=on, here=here, why=why)
    for case, (on, *_) in CASES.items()
    for what, sysfs, look, here, why in (*((*row, None, "") for row in ROWS), *BROKEN)
)
