"""The Linux calls that Python has no function for."""

from __future__ import annotations

import ctypes
import errno
import os
import signal

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE = 1, 1 << 12, 1 << 14, 1 << 18
MNT_DETACH = 2

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_OPEN_TREE, _PIDFD_GETFD = 428, 438
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC, _AT_RECURSIVE, _AT_FDCWD = 1, os.O_CLOEXEC, 0x8000, -100

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces of the other processes; OSError."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); OSError names `target`."""
    args = (os.fsencode(source), os.fsencode(target), fstype.encode() or None, ctypes.c_ulong(flags), data.encode())
    _check(_libc.mount(*args), target)


def bind(source: str, target: str, recursive: bool = False) -> None:
    """Show `source`, a file or directory, at `target`, one of the same kind; OSError."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def clone_tree(path: str) -> int:
    """
    A descriptor of a private copy of the mounts at `path`: what is mounted over them later is not in it. OSError.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
    return _check(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags), path)


def copy_descriptor(pidfd: int, descriptor: int) -> int:
    """A descriptor of what a process has open under a number; OSError."""
    return _check(_libc.syscall(_PIDFD_GETFD, pidfd, descriptor, 0), f"descriptor {descriptor}")


def die_with_parent(parent: int) -> None:
    """Be killed as soon as the process `parent`, which forked this one, is gone."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def enter_private_namespace() -> None:
    """
    Give this process, which must have one thread, mounts that nobody else sees; not being root, with a user
    namespace in which it keeps its user id. OSError if the system allows neither.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        try:
            unshare(CLONE_NEWNS)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            _enter_user_namespace(uid, gid)
    else:
        _enter_user_namespace(uid, gid)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def _enter_user_namespace(uid: int, gid: int) -> None:
    unshare(CLONE_NEWUSER | CLONE_NEWNS)
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1), "prctl")  # it was lost; the supervisor looks into the command's memory
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
