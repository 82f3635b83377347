"""Other operations on descriptors, and poll (section 8)."""

import ctypes
import fcntl
import mmap
import os
import select
import termios

from syscalls import UNSUPPORTED, answer, libc, opened, poll

from semantics.rule import Rule, by, calls_on

FIGETBSZ, FS_IOC_GETFLAGS, FS_IOC_FIEMAP, F_GET_SEALS = 2, 0x80086601, 0xC020660B, 1034
EVERY = select.POLLIN | select.POLLPRI | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM


_reader = calls_on("possible")


def _writer(call):
    def probe(m):
        with opened(m.aob, os.O_WRONLY) as file:
            return call(file)

    return probe


def _ioctl(number, size):
    # 0, or the errno
    def probe(m):
        done = _reader(fcntl.ioctl, number, b"\0" * size)(m)
        return done if isinstance(done, str) else 0

    return probe


def _mapped(how):
    def probe(m):
        with opened(m.possible) as file:
            mapped = answer(mmap.mmap, file, 4096, how, mmap.PROT_READ)
            if isinstance(mapped, str):
                return mapped
            mapped.close()
            return "mapped"

    return probe


def _to_a_pipe(call):
    def probe(m):
        reader, writer = os.pipe()
        with opened(m.possible) as file:
            count = call(file, writer)
        os.close(writer)
        said = os.read(reader, 100)
        os.close(reader)
        return count == len(said), said.decode().strip() == m.read(m.possible)

    return probe


def _end_after_sendfile(m):
    reader, writer = os.pipe()
    with opened(m.possible) as file:
        os.sendfile(writer, file, 0, 100)
        end = os.lseek(file, 0, os.SEEK_END)
    os.close(reader)
    os.close(writer)
    os.stat(m.possible)
    return "st_size" if end == 4096 else "the content's length"


def _to_memory(m):
    spare = os.memfd_create("spare")
    try:
        return _reader(os.copy_file_range, spare, 100, 0, 0)(m)
    finally:
        os.close(spare)


def _handle(m):
    handle = ctypes.create_string_buffer(256)
    ctypes.c_uint.from_buffer(handle).value = 128
    mount_id = ctypes.c_int()
    return libc("name_to_handle_at", -100, os.fsencode(m.possible), handle, ctypes.byref(mount_id), 0)


def _notified(m):
    # bytes of the events of an open, a read and a close
    watch = libc("inotify_init1", os.O_NONBLOCK)
    try:
        libc("inotify_add_watch", watch, os.fsencode(m.possible), 0xFFF)
        with opened(m.possible) as file:
            os.read(file, 100)
        return len(os.read(watch, 1000))
    finally:
        os.close(watch)


def _polled(path, events, *, read):
    def probe(m):
        with opened(m.at(path)) as file:
            if read:
                os.read(file, 100)
            return hex(poll(file, events))

    return probe


def _epoll(m):
    with opened(m.possible) as file, select.epoll() as epoll:
        return answer(epoll.register, file)


POLLED = (
    "devices/system/node/possible",
    "devices/system/memory/auto_online_blocks",
    "devices/system/node/node0/cpumap",
    "bus/dax/devices/dax0.0/size",
)


def _rule(*arguments, **options):
    return Rule("8", *arguments, **options)


RULES = (
    _rule("mmap MAP_SHARED of an attribute", "ENODEV", _mapped(mmap.MAP_SHARED)),
    _rule(
        "mmap MAP_PRIVATE of an attribute",
        "ENODEV",
        _mapped(mmap.MAP_PRIVATE),
        here="mapped",
        why="the kernel's FUSE maps through the page cache",
    ),
    _rule("ioctl TCGETS", "ENOTTY", _ioctl(termios.TCGETS, 64)),
    _rule("ioctl FS_IOC_GETFLAGS", "ENOTTY", _ioctl(FS_IOC_GETFLAGS, 64)),
    _rule("ioctl of an unknown number", "ENOTTY", _ioctl(0x12345, 64)),
    _rule("isatty", False, _reader(os.isatty)),
    _rule("ioctl FIONREAD", 0, _ioctl(termios.FIONREAD, 8)),
    _rule("ioctl FIONBIO", 0, _ioctl(termios.FIONBIO, 8)),
    _rule("ioctl FIGETBSZ", 0, _ioctl(FIGETBSZ, 8)),
    _rule("ioctl FS_IOC_FIEMAP", UNSUPPORTED, _ioctl(FS_IOC_FIEMAP, 64)),
    _rule("fsync", None, _reader(os.fsync)),
    _rule("fdatasync", None, _reader(os.fdatasync)),
    _rule("syncfs", 0, _reader(lambda file: libc("syncfs", file))),
    _rule(
        "sync_file_range",
        0,
        _reader(lambda file: libc("sync_file_range", file, ctypes.c_long(0), ctypes.c_long(0), 2)),
    ),
    _rule("ftruncate", "EINVAL", _reader(os.ftruncate, 0)),
    _rule("write", "EBADF", _reader(os.write, b"x")),
    _rule("fallocate", "EBADF", _reader(os.posix_fallocate, 0, 10)),
    _rule("posix_fadvise WILLNEED", None, _reader(os.posix_fadvise, 0, 10, os.POSIX_FADV_WILLNEED)),
    _rule("readahead", 0, _reader(lambda file: libc("readahead", file, ctypes.c_long(0), ctypes.c_size_t(10)))),
    _rule("flock LOCK_EX", None, _reader(fcntl.flock, fcntl.LOCK_EX)),
    _rule("F_SETLK read lock", None, _reader(fcntl.lockf, fcntl.LOCK_SH)),
    _rule(
        "F_SETLEASE F_RDLCK",
        by(0, 0, "EINVAL"),
        _reader(fcntl.fcntl, fcntl.F_SETLEASE, fcntl.F_RDLCK),
        here=0,
        why="the kernel's FUSE answers",
    ),
    _rule("F_GET_SEALS", "EINVAL", _reader(fcntl.fcntl, F_GET_SEALS)),
    _rule("splice to a pipe", (True, True), _to_a_pipe(lambda file, pipe: os.splice(file, pipe, 100))),
    _rule("sendfile to a pipe", (True, True), _to_a_pipe(lambda file, pipe: os.sendfile(pipe, file, 0, 100))),
    _rule(
        "SEEK_END after sendfile or splice",
        "st_size",
        _end_after_sendfile,
        here="the content's length",
        why="they go through the page cache, which believes a short read",
    ),
    _rule("copy_file_range to a memfd", "EXDEV", _to_memory),
    _rule("name_to_handle_at", UNSUPPORTED, _handle, here=0, why="the kernel's FUSE makes handles"),
    _rule("inotify: bytes after open, read, close", 48, _notified),
    _rule("O_WRONLY of 0644: ftruncate(0)", None, _writer(lambda file: answer(os.ftruncate, file, 0))),
    _rule("O_WRONLY of 0644: ftruncate(5)", None, _writer(lambda file: answer(os.ftruncate, file, 5))),
    _rule(
        "O_WRONLY of 0644: fallocate",
        UNSUPPORTED,
        _writer(lambda file: libc("fallocate", file, 0, ctypes.c_long(0), ctypes.c_long(5))),
    ),
    *(_rule(f"poll of {path} before the first read", "0x14f", _polled(path, EVERY, read=False)) for path in POLLED),
    *(_rule(f"poll of {path} after a read", "0x145", _polled(path, EVERY, read=True)) for path in POLLED),
    *(
        _rule(f"poll of {path} after a read, PRI only", "0x0", _polled(path, select.POLLPRI, read=True))
        for path in POLLED
    ),
    _rule("epoll_ctl ADD", None, _epoll),
)
