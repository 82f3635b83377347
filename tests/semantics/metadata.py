"""chmod, chown, times, extended attributes and truncate (section 10), as root."""

import os
import stat
import time
from contextlib import contextmanager

from syscalls import AT_FDCWD, AT_SYMLINK_NOFOLLOW, UNSUPPORTED, answer, can_open, libc

from semantics.rule import Rule, by

XATTR = "an answer would cost a request for each entry of ls -l; the kernel remembers that there are none"


@contextmanager
def _kept(path):
    # what is changed of it is changed back
    before = os.lstat(path)
    yield
    os.lchown(path, before.st_uid, before.st_gid)
    if not stat.S_ISLNK(before.st_mode):
        os.chmod(path, stat.S_IMODE(before.st_mode))


def _chmod(name, mode):
    def probe(m):
        path = getattr(m, name)
        with _kept(path):
            os.chmod(path, mode)
            return oct(stat.S_IMODE(os.lstat(path).st_mode))

    return probe


def _opens_after(mode, flags):
    def probe(m):
        with _kept(m.possible):
            os.chmod(m.possible, mode)
            return can_open(m.possible, flags)

    return probe


def _chown(name, *owners):
    def probe(m):
        path = getattr(m, name)
        with _kept(path):
            for owner in owners:
                os.lchown(path, *owner)
            seen = os.lstat(path)
            return seen.st_uid, seen.st_gid

    return probe


def _chown_back(m):
    os.chown(m.possible, 1000, 1000)
    os.chown(m.possible, 0, 0)
    seen = os.lstat(m.possible)
    return seen.st_uid, seen.st_gid


def _others(m):
    with _kept(m.possible):
        os.chmod(m.possible, 0o600)
        return oct(stat.S_IMODE(os.lstat(f"{m.nodes}/online").st_mode))


def _chmod_link(m):
    return libc("fchmodat", AT_FDCWD, os.fsencode(m.link), 0o600, AT_SYMLINK_NOFOLLOW)


def _utimes(m):
    os.utime(m.possible, (1000, 2000))
    seen = os.stat(m.possible)
    return seen.st_atime, seen.st_mtime, abs(seen.st_ctime_ns - time.time_ns()) < 10**9


def _lutimes(m):
    os.utime(m.link, (1, 2), follow_symlinks=False)
    seen = os.lstat(m.link)
    return seen.st_atime, seen.st_mtime


def _utimes_now(m):
    os.utime(m.possible, (1000, 2000))
    os.utime(m.possible)
    return abs(os.stat(m.possible).st_mtime_ns - time.time_ns()) < 10**9


def _truncate(name, length):
    def probe(m):
        path = getattr(m, name)
        before, size = m.read(path), os.stat(path).st_size
        done = answer(os.truncate, path, length)
        return done, os.stat(path).st_size == size, m.read(path) == before

    return probe


def _set(name):
    def probe(m):
        done = answer(os.setxattr, m.possible, name, b"1")
        return 0 if done is None else done

    return probe


def _rule(*arguments, **options):
    return Rule("10", *arguments, **options)


def _get(name, sysfs, here=None):
    probe = lambda m: answer(os.getxattr, m.possible, name)  # noqa: E731
    return _rule(f"getxattr {name}", sysfs, probe, here=here, why=XATTR if here else "")


def _setting(name, sysfs, here=None):
    return _rule(f"setxattr {name}", sysfs, _set(name), here=here, why=XATTR if here else "")


KEPT = (None, True, True)
RULES = (
    _get("user.x", "ENODATA", UNSUPPORTED),
    _get("trusted.x", "ENODATA", UNSUPPORTED),
    _get("security.selinux", "ENODATA", UNSUPPORTED),
    _get("system.posix_acl_access", UNSUPPORTED, "ENODATA"),
    _get("nothing", UNSUPPORTED),
    _rule("listxattr", [], lambda m: answer(os.listxattr, m.possible), here=UNSUPPORTED, why=XATTR),
    _setting("user.x", UNSUPPORTED),
    _setting("trusted.x", 0, UNSUPPORTED),
    _setting("security.x", 0, UNSUPPORTED),
    _setting("system.posix_acl_access", UNSUPPORTED, "EINVAL"),
    _rule("removexattr user.x", UNSUPPORTED, lambda m: answer(os.removexattr, m.possible, "user.x")),
    *(_rule(f"chmod {mode:04o}: lstat", oct(mode), _chmod("possible", mode)) for mode in (0o600, 0o444, 0o4755)),
    _rule("open O_WRONLY after chmod 0600, no store method", "ok", _opens_after(0o600, os.O_WRONLY)),
    _rule("open O_RDONLY after chmod 0200", "EACCES", _opens_after(0o200, os.O_RDONLY)),
    _rule("chmod of one file: lstat of another", "0o444", _others),
    _rule("chown 1000:1001: lstat", (1000, 1001), _chown("possible", (1000, 1001))),
    _rule("chown of one alone: lstat", (1002, 1001), _chown("possible", (1000, 1001), (1002, -1))),
    _rule("chown 1000:1000 and back: lstat", (0, 0), _chown_back),
    _rule("lchown of a link: lstat", (5, 6), _chown("link", (5, 6))),
    _rule("lutimes of a link", (1, 2), _lutimes),
    _rule("fchmodat AT_SYMLINK_NOFOLLOW on a link", UNSUPPORTED, _chmod_link),
    _rule("chmod 0700 on node0: lstat", "0o700", _chmod("node0", 0o700)),
    _rule("utimes(1000, 2000): both, ctime is now", (1000, 2000, True), _utimes),
    _rule("utimes(now)", True, _utimes_now),
    *(
        _rule(f"truncate {length} of {name}: st_size and content stay", KEPT, _truncate(name, length))
        for name in ("possible", "aob", "cpumap")
        for length in (0, 100, 4096)
    ),
    _rule(
        "truncate 2^40",
        by("EFBIG", "EFBIG", None),
        lambda m: answer(os.truncate, m.possible, 1 << 40),
    ),
    _rule("truncate -1", ("EINVAL", True, True), _truncate("possible", -1)),
)
