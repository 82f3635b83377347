"""stat, statfs and times (section 3)."""

import ctypes
import os
import stat
import time

from syscalls import LIBC, statx

from semantics.rule import Rule, by

KINDS = {stat.S_IFDIR: "dir", stat.S_IFREG: "reg", stat.S_IFLNK: "link"}
MNT_FLAGS = {os.ST_NOSUID: "nosuid", 4: "nodev"}


def _status(path):
    seen = os.lstat(path)
    return f"{KINDS[stat.S_IFMT(seen.st_mode)]} {stat.S_IMODE(seen.st_mode):04o} {seen.st_size} {seen.st_nlink}"


def _of(path):
    return lambda m: _status(m.at(path))


def _common(m):
    seen = [os.lstat(path) for path in (m.sys, m.node0, m.possible, m.link)]
    return {(one.st_blocks, one.st_blksize, one.st_uid, one.st_gid, one.st_rdev) for one in seen}


def _directories(m):
    wrong = []
    for where, names, _ in os.walk(m.nodes):
        seen = os.stat(where)
        below = [name for name in names if not os.path.islink(f"{where}/{name}")]
        if (stat.S_IMODE(seen.st_mode), seen.st_size, seen.st_nlink) != (0o755, 0, 2 + len(below)):
            wrong.append(where)
    return wrong


def _numbers(m):
    one, other = os.stat(m.possible), os.stat(m.aob)
    return one.st_ino != other.st_ino, one.st_dev == other.st_dev, os.major(one.st_dev)


def _type(m):
    buffer = ctypes.create_string_buffer(256)
    LIBC.statfs(os.fsencode(m.sys), buffer)
    return hex(ctypes.c_long.from_buffer(buffer).value)


def _counters(m):
    s = os.statvfs(m.sys)
    return (s.f_bsize, s.f_frsize, s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, s.f_namemax)


def _flags(m):
    flags = os.statvfs(m.sys).f_flag
    return ", ".join(word for bit, word in MNT_FLAGS.items() if flags & bit) or "none"


def _limits(m):
    return [os.pathconf(m.possible, f"PC_{name}") for name in ("NAME_MAX", "LINK_MAX", "PATH_MAX", "PIPE_BUF")]


def _times(path):
    seen = os.stat(path)
    return seen.st_atime_ns, seen.st_mtime_ns, seen.st_ctime_ns


def _untouched(m):
    # no other rule looks at this one
    return len(set(_times(f"{m.nodes}/has_cpu"))) == 1


def _after(action):
    def probe(m):
        os.utime(m.aob, (1, 2))
        before = _times(m.aob)
        action(m)
        return "unchanged" if _times(m.aob) == before else "changed"

    return probe


def _truncating(m):
    os.utime(m.aob, (1, 2))
    os.close(os.open(m.aob, os.O_WRONLY | os.O_TRUNC))
    times = _times(m.aob)
    return "now" if len(set(times)) == 1 and abs(times[0] - time.time_ns()) < 10**9 else times


def _listing(m):
    os.utime(m.nodes, (1, 1))
    os.listdir(m.nodes)
    return "now" if os.stat(m.nodes).st_atime > 1 else "unchanged"


def _reading_a_link(m):
    os.utime(m.link, (1, 1), follow_symlinks=False)
    os.readlink(m.link)
    return "now" if os.lstat(m.link).st_atime > 1 else "unchanged"


def _allowed(path, *how):
    return lambda m: [os.access(getattr(m, path), one) for one in how]


def _rule(*arguments, **options):
    return Rule("3", *arguments, **options)


TEXT = {
    "devices/system/node/possible": "reg 0444 4096 1",
    "devices/system/memory/auto_online_blocks": "reg 0644 4096 1",
    "devices/system/node/node0/compact": "reg 0200 4096 1",
    "bus/dax/devices/dax0.0/resource": "reg 0400 4096 1",
    "devices/system/node/node0/cpumap": "reg 0444 4096 1",
    "devices/system/cpu/cpu0/topology/core_cpus": "reg 0444 4096 1",
    "devices/system/cpu/cpu0/cache/index0/shared_cpu_map": "reg 0444 4096 1",
    "devices/system/node/node0/cpulist": "reg 0444 28672 1",
    "devices/system/cpu/cpu0/topology/core_cpus_list": "reg 0444 28672 1",
    "devices/system/node/node0/cpu0": "link 0777 0 1",
}
RULES = (
    _rule("mount root: type and mode", "dir 0555", lambda m: _status(m.sys)[:8]),
    _rule(
        "st_ino of /sys",
        1,
        lambda m: 1 if os.stat(m.sys).st_ino == 1 else "a hash",
        here="a hash",
        why="/sys and /proc are on one file system here",
    ),
    _rule("directories that are not 0755, of size 0, with 2 links and one more per subdirectory", [], _directories),
    *(_rule(f"{path}: type, mode, size, links", expected, _of(path)) for path, expected in TEXT.items()),
    _rule("blocks, blksize, uid, gid, rdev of all of these", {(0, 4096, 0, 0, 0)}, _common),
    _rule("statfs: f_type", "0x62656572", _type, here="0x65735546", why="the kernel's FUSE sets it"),
    _rule("statfs: bsize, frsize, blocks, free, avail, files, ffree, namelen", (4096, 4096, *[0] * 5, 255), _counters),
    _rule(
        "statfs: fsid is 0",
        by(True, False, False),
        lambda m: os.statvfs(m.sys).f_fsid == 0,
        here=True,
        why="the kernel's FUSE sets it",
    ),
    _rule(
        "statfs: mount flags",
        "none",
        _flags,
        here="nosuid, nodev",
        why="device nodes must not reach devices of the host",
    ),
    _rule("pathconf NAME_MAX, LINK_MAX, PATH_MAX, PIPE_BUF", [255, 127, 4096, 4096], _limits),
    _rule("st_ino of two files differ, st_dev is the same, major 0", (True, True, 0), _numbers),
    _rule(
        "st_ino of bus/node/devices/node0 is that of node0",
        True,
        lambda m: os.stat(m.at("bus/node/devices/node0")).st_ino == os.stat(m.node0).st_ino,
    ),
    _rule("statx of a file: mask, attributes", (0x17FF, 0), lambda m: statx(m.possible)[:2]),
    _rule("statx of the root: mask, attributes", (0x17FF, 0x2000), lambda m: statx(m.root)[:2]),
    _rule("a file never touched: all three times are equal", True, _untouched),
    _rule("read() changes times", "unchanged", _after(lambda m: m.read(m.aob))),
    _rule("write() changes times", "unchanged", _after(lambda m: m.write(m.aob, m.read(m.aob)))),
    _rule("open with O_TRUNC: all three times", "now", _truncating),
    _rule("atime of a directory after listing it", "now", _listing),
    _rule("atime of a link after reading it", "now", _reading_a_link),
    _rule("access as root: directory R, W, X", [True] * 3, _allowed("node0", os.R_OK, os.W_OK, os.X_OK)),
    _rule("access as root: 0444 R, W, X", [True, True, False], _allowed("possible", os.R_OK, os.W_OK, os.X_OK)),
    _rule("access as root: 0200 R", [True], _allowed("compact", os.R_OK)),
)
