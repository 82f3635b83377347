"""What a FUSE mount cannot do as sysfs does it: the table, each row with a probe that shows it.

The README's table is made of these rows; tests/mount/test_differences.py runs the probes.
"""

import ctypes
import errno
import mmap
import os

from attrs import frozen
from syscalls import LIBC, answer, can_open, libc, opened

UNSUPPORTED = errno.errorcode[errno.EOPNOTSUPP]
MNT_FLAGS = {os.ST_NOSUID: "nosuid", 4: "nodev"}


@frozen
class Difference:
    """One thing that a reader of the mount can tell from sysfs."""

    what: str
    sysfs: object
    """What sysfs answers."""
    mount: object
    """What the mount answers."""
    why: str
    probe: object
    """Called with the paths of a mount, makes the system call and returns what it answers."""


def _filesystem_type(machine):
    buffer = ctypes.create_string_buffer(256)
    LIBC.statfs(os.fsencode(machine.sys), buffer)
    return hex(ctypes.c_long.from_buffer(buffer).value)


def _mmap(machine):
    with opened(machine.possible) as file:
        mapped = answer(mmap.mmap, file, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ)
        if isinstance(mapped, str):
            return mapped
        mapped.close()
        return "mapped"


def _end_after_sendfile(machine):
    reader, writer = os.pipe()
    with opened(machine.possible) as file:
        os.sendfile(writer, file, 0, 100)
        end = os.lseek(file, 0, os.SEEK_END)
    os.close(reader)
    os.close(writer)
    os.stat(machine.possible)
    return "st_size" if end == 4096 else "the content's length"


def _directory_time(machine):
    os.utime(machine.nodes, (1, 1))
    os.listdir(machine.nodes)
    return "now" if os.stat(machine.nodes).st_atime > 1 else "unchanged"


def _root_number(machine):
    return 1 if os.stat(machine.sys).st_ino == 1 else "a hash"


def _long_name(machine):
    return can_open(f"{machine.nodes}/{'a' * 1100}", os.O_RDONLY)


def _flags(machine):
    flags = os.statvfs(machine.sys).f_flag
    return ", ".join(word for bit, word in MNT_FLAGS.items() if flags & bit) or "none"


def _fsync_directory(machine):
    with opened(machine.node0) as directory:
        return answer(os.fsync, directory) or 0


def _handle(machine):
    handle = ctypes.create_string_buffer(256)
    ctypes.c_uint.from_buffer(handle).value = 128
    mount_id = ctypes.c_int()
    return libc("name_to_handle_at", -100, os.fsencode(machine.possible), handle, ctypes.byref(mount_id), 0)


def _setxattr(name):
    def probe(machine):
        done = answer(os.setxattr, machine.possible, name, b"1")
        return 0 if done is None else done

    return probe


def _getxattr(name):
    return lambda machine: answer(os.getxattr, machine.possible, name)


XATTR = "an answer would cost a request for each entry of ls -l; the kernel remembers that there are none"

DIFFERENCES = (
    Difference("statfs: f_type", "0x62656572", "0x65735546", "the kernel's FUSE sets it", _filesystem_type),
    Difference(
        "statfs: mount flags", "none", "nosuid, nodev", "device nodes must not reach devices of the host", _flags
    ),
    Difference("st_ino of /sys", 1, "a hash", "/sys and /proc are on one file system here", _root_number),
    Difference(
        "mmap MAP_PRIVATE of an attribute", "ENODEV", "mapped", "the kernel's FUSE maps through the page cache", _mmap
    ),
    Difference(
        "SEEK_END after sendfile or splice",
        "st_size",
        "the content's length",
        "they go through the page cache, which believes a short read",
        _end_after_sendfile,
    ),
    Difference(
        "atime of a directory after listing it", "now", "unchanged", "FUSE leaves times to the server", _directory_time
    ),
    Difference("fsync of a directory", "EINVAL", 0, "the kernel's FUSE answers", _fsync_directory),
    Difference("name_to_handle_at", UNSUPPORTED, 0, "the kernel's FUSE makes handles", _handle),
    Difference("listxattr", [], UNSUPPORTED, XATTR, lambda machine: answer(os.listxattr, machine.possible)),
    Difference("getxattr user.x", "ENODATA", UNSUPPORTED, XATTR, _getxattr("user.x")),
    Difference("getxattr trusted.x", "ENODATA", UNSUPPORTED, XATTR, _getxattr("trusted.x")),
    Difference("getxattr security.selinux", "ENODATA", UNSUPPORTED, XATTR, _getxattr("security.selinux")),
    Difference("getxattr system.posix_acl_access", UNSUPPORTED, "ENODATA", XATTR, _getxattr("system.posix_acl_access")),
    Difference("setxattr trusted.x", 0, UNSUPPORTED, XATTR, _setxattr("trusted.x")),
    Difference("setxattr security.x", 0, UNSUPPORTED, XATTR, _setxattr("security.x")),
    Difference("setxattr system.posix_acl_access", UNSUPPORTED, "EINVAL", XATTR, _setxattr("system.posix_acl_access")),
    Difference("a name of more than 1024 bytes", "ENOENT", "ENAMETOOLONG", "FUSE_NAME_MAX", _long_name),
)
