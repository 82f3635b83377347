"""Directories: the order of listings, and what can be done to them (section 4)."""

import fcntl
import mmap
import os
import select
import stat
import termios
from itertools import pairwise

from syscalls import UNSUPPORTED, answer, can_open, getdents, libc, opened, poll

from semantics.rule import Rule, calls_on
from tdxfs.tree import LAST_OFFSET, name_hash

HASHES = {
    "memory3": 37415068,
    "uevent": 45078383,
    "distance": 92594181,
    "dax0.0": 378377012,
    "possible": 522197648,
    "node0": 598041072,
    "power": 608164118,
    "online": 823647694,
    "size": 1334111068,
    "memory0": 1420162866,
    "node1": 1568780905,
    "has_cpu": 2135489994,
}


def _rows(m, size=1 << 16):
    with opened(m.node0) as directory:
        return getdents(directory, size)


def _offsets(m):
    # what d_off of the entry before says of each name of the table that is in these directories
    wrong = []
    for path in (m.node0, m.nodes):
        with opened(path) as directory:
            rows = getdents(directory)
        for before, row in pairwise(rows[1:]):
            if HASHES.get(row[3], before[1]) != before[1]:
                wrong.append((row[3], before[1]))
    return wrong


def _order(m):
    rows = _rows(m)
    names = [row[3] for row in rows]
    offsets = [1, *map(name_hash, names[2:]), LAST_OFFSET]
    return (
        names[:2],
        names[2:] == sorted(names[2:], key=lambda name: (name_hash(name), name)),
        offsets == [row[1] for row in rows],
    )


def _numbers(m):
    rows = _rows(m)
    seen = [os.lstat(f"{m.node0}/{name}") for *_, name in rows]
    return (
        [row[0] for row in rows] == [one.st_ino for one in seen],
        {row[2] for row in rows} == {4, 8, 10} and [row[2] for row in rows] == [one.st_mode >> 12 for one in seen],
    )


def _all(m):
    with opened(m.node0) as directory:
        first = getdents(directory)
        offsets = [row[1] for row in first]
        return (
            sorted(os.listdir(m.node0)) == sorted(row[3] for row in first[2:]),
            offsets == sorted(set(offsets)),
            getdents(directory),
        )


def _again(m):
    with opened(m.node0) as directory:
        first = getdents(directory)
        os.lseek(directory, 0, os.SEEK_SET)
        return first == getdents(directory)


def _small(size):
    def probe(m):
        with opened(m.node0) as directory:
            found = getdents(directory, size)
        return found if isinstance(found, str) else [row[3] for row in found]

    return probe


def _seeks(m):
    with opened(m.node0) as directory:
        return [os.lseek(directory, 0, whence) for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)]


def _seek_1(m):
    with opened(m.node0) as directory:
        at = os.lseek(directory, 1, os.SEEK_SET)
        return at, getdents(directory, 64)[0][3]


def _seek_to_each(m):
    rows = _rows(m)
    wrong = []
    for at in range(len(rows) - 1):
        with opened(m.node0) as directory:
            os.lseek(directory, rows[at][1], os.SEEK_SET)
            if getdents(directory) != rows[at + 1 :]:
                wrong.append(rows[at][3])
    return wrong


_descriptor = calls_on("node0")


def _epoll(m):
    with opened(m.node0) as directory, select.epoll() as epoll:
        return answer(epoll.register, directory)


def _poll(m):
    with opened(m.node0) as directory:
        return hex(poll(directory, select.POLLIN | select.POLLOUT | select.POLLPRI))


def _chdir(m):
    with opened(m.node0) as directory:
        there = os.readlink(f"/proc/self/fd/{directory}") == os.path.realpath(m.node0)
        return there, stat.S_ISDIR(os.stat("../../cpu/cpu0", dir_fd=directory).st_mode)


def _open(flags, path="node0", more=""):
    return lambda m: can_open(getattr(m, path) + more, flags)


def _rule(*arguments, **options):
    return Rule("4.2", *arguments, **options)


RULES = (
    Rule("4.1", ". and .. first, the rest by hash, d_off is the next entry's", ([".", ".."], True, True), _order),
    Rule("4.1", "hashes of the table that d_off does not show", [], _offsets),
    Rule("4.1", "d_ino is st_ino, d_type is the entry's", (True, True), _numbers),
    _rule("getdents64, large buffer: all, offsets increase, then nothing", (True, True, []), _all),
    _rule("two listings are identical", True, _again),
    _rule("getdents64 with 24 bytes", ["."], _small(24)),
    _rule("getdents64 with 10 bytes", "EINVAL", _small(10)),
    _rule("lseek 0 SEEK_SET, SEEK_CUR, SEEK_END", [0, 0, 0], _seeks),
    _rule("lseek 1 SEEK_SET, then getdents64 begins with", (1, ".."), _seek_1),
    _rule("entries whose d_off does not continue after them", [], _seek_to_each),
    _rule("read", "EISDIR", _descriptor(os.read, 10)),
    _rule("pread", "EISDIR", _descriptor(os.pread, 10, 0)),
    _rule("write", "EBADF", _descriptor(os.write, b"x")),
    _rule(
        "fsync of a directory",
        "EINVAL",
        lambda m: _descriptor(os.fsync)(m) or 0,
        here=0,
        why="the kernel's FUSE answers",
    ),
    _rule("syncfs", 0, lambda m: _descriptor(lambda fd: libc("syncfs", fd))(m)),
    _rule("mmap", "ENODEV", _descriptor(mmap.mmap, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ)),
    _rule("ioctl TCGETS", "ENOTTY", _descriptor(fcntl.ioctl, termios.TCGETS)),
    _rule("flock LOCK_EX", None, _descriptor(fcntl.flock, fcntl.LOCK_EX)),
    _rule("poll IN+OUT+PRI", "0x5", _poll),
    _rule("epoll_ctl ADD", "EPERM", _epoll),
    _rule("open O_WRONLY", "EISDIR", _open(os.O_WRONLY)),
    _rule("open O_RDWR", "EISDIR", _open(os.O_RDWR)),
    _rule("open O_RDONLY+O_CREAT", "EISDIR", _open(os.O_CREAT)),
    _rule("open O_RDONLY+O_TRUNC", "EISDIR", _open(os.O_TRUNC)),
    _rule("open O_CREAT+O_EXCL", "EEXIST", _open(os.O_CREAT | os.O_EXCL)),
    _rule("open O_TMPFILE", UNSUPPORTED, _open(os.O_TMPFILE | os.O_RDWR)),
    _rule("truncate", "EISDIR", lambda m: answer(os.truncate, m.node0, 0)),
    _rule("chdir: the path, and a stat of ../../cpu/cpu0", (True, True), _chdir),
    _rule("open a file with O_DIRECTORY", "ENOTDIR", _open(os.O_DIRECTORY, "possible")),
    _rule("open a file with a trailing slash", "ENOTDIR", _open(os.O_RDONLY, "possible", "/")),
    _rule("open a name below a file", "ENOTDIR", _open(os.O_RDONLY, "possible", "/x")),
    *(
        _rule(f"open {what}", "ENOENT", _open(os.O_RDONLY, "nodes", f"/{name}"))
        for what, name in (
            ("an absent name", "absent"),
            ("a name in the wrong case", "Node0"),
            ("a name with a leading zero", "node00"),
            ("a name of 255 bytes", "a" * 255),
            ("a name of 300 bytes", "a" * 300),
            ("a name that is not UTF-8", "bad\udcff\udcfename"),
            ("a name that is not ASCII", "caf\u00e9"),
        )
    ),
    _rule(
        "a name of more than 1024 bytes",
        "ENOENT",
        _open(os.O_RDONLY, "nodes", f"/{'a' * 1100}"),
        here="ENAMETOOLONG",
        why="FUSE_NAME_MAX",
    ),
)
