"""Namespace operations (section 9), as root."""

import os
import stat
import tempfile

from syscalls import AT_FDCWD, RENAME_EXCHANGE, answer, can_open, libc

from semantics.rule import Rule

PLACES = ("", "devices/system/node", "devices/system/node/node0", "bus/dax/devices", "kernel")
NULL = os.makedev(1, 3)


def _rule(*arguments, **options):
    return Rule("9", *arguments, **options)


NEW = {
    "open O_CREAT+O_WRONLY": ("EACCES", lambda m, new: can_open(new, os.O_CREAT | os.O_WRONLY)),
    "open O_CREAT+O_EXCL+O_RDWR": ("EACCES", lambda m, new: can_open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR)),
    "creat": ("EACCES", lambda m, new: can_open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)),
    "mknod S_IFREG": ("EACCES", lambda m, new: answer(os.mknod, new, stat.S_IFREG | 0o600)),
    "mkdir": ("EPERM", lambda m, new: answer(os.mkdir, new)),
    "symlink": ("EPERM", lambda m, new: answer(os.symlink, "x", new)),
    "mknod S_IFIFO": ("EPERM", lambda m, new: answer(os.mknod, new, stat.S_IFIFO | 0o600)),
    "mknod S_IFCHR": ("EPERM", lambda m, new: answer(os.mknod, new, stat.S_IFCHR | 0o600, NULL)),
    "link(possible, new)": ("EPERM", lambda m, new: answer(os.link, m.possible, new)),
    "rename(possible, new)": ("EPERM", lambda m, new: answer(os.rename, m.possible, new)),
    "unlink of the absent name": ("ENOENT", lambda m, new: answer(os.unlink, new)),
    "rmdir of the absent name": ("ENOENT", lambda m, new: answer(os.rmdir, new)),
    "rename of the absent name": ("ENOENT", lambda m, new: answer(os.rename, new, new + "2")),
}


def _in(place, call):
    return lambda m: call(m, f"{m.at(place)}/zz_new")


def _exchanged(m):
    one, other = os.fsencode(m.possible), os.fsencode(f"{m.nodes}/online")
    return libc("renameat2", AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)


def _abroad(call):
    # a file outside of the mount, and a name beside it
    def probe(m):
        with tempfile.TemporaryDirectory() as where:
            mine = f"{where}/mine"
            os.close(os.open(mine, os.O_CREAT))
            return call(m, mine, f"{where}/out")

    return probe


RULES = (
    *(
        _rule(f"{what} in /{place}", expected, _in(place, call))
        for place in PLACES
        for what, (expected, call) in NEW.items()
    ),
    _rule("unlink a file", "EPERM", lambda m: answer(os.unlink, m.possible)),
    _rule("unlink a link", "EPERM", lambda m: answer(os.unlink, m.link)),
    _rule("unlink a directory", "EISDIR", lambda m: answer(os.unlink, m.node0)),
    _rule("rmdir a directory", "EPERM", lambda m: answer(os.rmdir, m.node0)),
    _rule("rmdir a directory in one", "EPERM", lambda m: answer(os.rmdir, f"{m.node0}/power")),
    _rule("rmdir a file", "ENOTDIR", lambda m: answer(os.rmdir, m.possible)),
    _rule("rmdir the mount root", "EBUSY", lambda m: answer(os.rmdir, m.root)),
    _rule("rename a file in its directory", "EPERM", lambda m: answer(os.rename, m.possible, f"{m.nodes}/zz_new")),
    _rule("rename a file onto a sibling", "EPERM", lambda m: answer(os.rename, m.possible, f"{m.nodes}/online")),
    _rule("rename a directory", "EPERM", lambda m: answer(os.rename, m.node0, f"{m.nodes}/zz_new")),
    _rule("rename a link", "EPERM", lambda m: answer(os.rename, m.link, f"{m.node0}/zz_new")),
    _rule("rename a file onto itself", None, lambda m: answer(os.rename, m.possible, m.possible)),
    _rule("renameat2 RENAME_EXCHANGE", "EINVAL", _exchanged),
    _rule("rename out of sysfs", "EXDEV", _abroad(lambda m, mine, out: answer(os.rename, m.possible, out))),
    _rule("link out of sysfs", "EXDEV", _abroad(lambda m, mine, out: answer(os.link, m.possible, out))),
    _rule("rename into sysfs", "EXDEV", _abroad(lambda m, mine, out: answer(os.rename, mine, f"{m.nodes}/zz_new"))),
    _rule("mkdir on an existing name", "EEXIST", lambda m: answer(os.mkdir, m.node0)),
    _rule("symlink on an existing name", "EEXIST", lambda m: answer(os.symlink, "x", m.possible)),
)
