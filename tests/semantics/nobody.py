"""What a user without privileges is answered (section 14)."""

import os
import stat
from pathlib import Path

from syscalls import as_nobody, can_open

from semantics.rule import Rule

CLOSED = {
    "compact": "devices/system/node/node0/compact",
    "dax0.0/resource": "bus/dax/devices/dax0.0/resource",
    "mapping0/start": "bus/dax/devices/dax0.0/mapping0/start",
    "bind": "bus/dax/drivers/device_dax/bind",
    "new_id": "bus/dax/drivers/device_dax/new_id",
}


def _rule(*arguments, **options):
    return Rule("14", *arguments, **options)


def _opens(path, flags):
    return lambda m: as_nobody(can_open, path(m), flags)


def _does(call, *more, path=lambda m: m.possible):
    return lambda m: as_nobody(call, path(m), *more)


def _new(m):
    return f"{m.nodes}/zz_new"


RULES = (
    _rule("open O_RDONLY of 0444", "ok", _opens(lambda m: m.possible, os.O_RDONLY)),
    _rule("open O_RDONLY of 0644", "ok", _opens(lambda m: m.aob, os.O_RDONLY)),
    _rule("read of 0444", "0-3\n", lambda m: as_nobody(Path(m.possible).read_text)),
    _rule("list a directory", True, lambda m: "node0" in as_nobody(os.listdir, m.nodes)),
    *(
        _rule(f"open O_RDONLY of {name}", "EACCES", _opens(lambda m, path=path: m.at(path), os.O_RDONLY))
        for name, path in CLOSED.items()
    ),
    *(
        _rule(f"open O_WRONLY of {name}", "EACCES", _opens(lambda m, name=name: getattr(m, name), os.O_WRONLY))
        for name in ("possible", "aob", "compact")
    ),
    _rule("open O_CREAT+O_EXCL of an existing file", "EEXIST", _opens(lambda m: m.possible, os.O_CREAT | os.O_EXCL)),
    _rule("truncate", "EACCES", _does(os.truncate, 0)),
    _rule("truncate of 0644", "EACCES", _does(os.truncate, 0, path=lambda m: m.aob)),
    _rule("chmod", "EPERM", _does(os.chmod, 0o777)),
    _rule("chown", "EPERM", _does(os.chown, 65534, 65534)),
    _rule("utimes to a given time", "EPERM", _does(os.utime, (1, 2))),
    _rule("utimes(now)", "EACCES", _does(os.utime)),
    _rule("mkdir", "EACCES", _does(os.mkdir, path=_new)),
    _rule("creat", "EACCES", _opens(_new, os.O_CREAT | os.O_WRONLY)),
    _rule("symlink", "EACCES", lambda m: as_nobody(os.symlink, "x", _new(m))),
    _rule("mknod fifo", "EACCES", _does(os.mknod, stat.S_IFIFO | 0o600, path=_new)),
    _rule("unlink", "EACCES", _does(os.unlink)),
    _rule("rmdir", "EACCES", _does(os.rmdir, path=lambda m: m.node0)),
    _rule("rename", "EACCES", lambda m: as_nobody(os.rename, m.possible, _new(m))),
    _rule("link", "EPERM", lambda m: as_nobody(os.link, m.possible, _new(m))),
)
