"""write(2) (section 11): how it is taken, keywords, memory blocks and other attributes."""

import ctypes
import os

from machines import MIXED, booted
from syscalls import libc, opened

from semantics.rule import OK, Rule

NODE, MEMORY, CPU = "devices/system/node/node0", "devices/system/memory", "devices/system/cpu"
AOB, AUTOPROBE = f"{MEMORY}/auto_online_blocks", "bus/dax/drivers_autoprobe"
POOL = f"{NODE}/hugepages/hugepages-2048kB"
PAMT = booted(MIXED).tdx.tdmrs[0].pamt.start // (128 << 20)
"""A block of the small machine with pages that cannot move."""


def stores(path, *texts, reads=None):
    """A probe that writes each text, and returns each answer and what a file, if not this one, says then."""

    def probe(m):
        answers = [m.write(path, text) for text in texts]
        return (*answers, m.read(path if reads is None else reads))

    return probe


def written(section, path, rows, *, on="plain", before=(), what=None):
    """A rule per text: (text, answer, what the file reads then); `before` is written first, and must succeed."""
    for text, expected, value in rows:
        probe = stores(path, *before, text)
        answers = (*[OK] * len(before), expected)
        name = text if len(text) < 40 else f"{text[:12]}... of {len(text)} bytes"
        yield Rule(section, f"{what or path}: {name!r}", (*answers, value), probe, on=on)


def _both(action):
    def probe(m):
        with opened(m.aob, os.O_RDWR) as file:
            return action(file)

    return probe


def _write_then_read(file):
    return os.write(file, b"online"), os.read(file, 10)


def _second(file):
    os.write(file, b"online")
    return os.write(file, b"offline"), os.lseek(file, 0, os.SEEK_CUR), os.pread(file, 20, 0)


def _nothing(file):
    before = os.pread(file, 20, 0)
    return os.write(file, b""), os.pread(file, 20, 0) == before


def _wild(file):
    return libc("write", file, ctypes.c_void_p(8), ctypes.c_size_t(4))


def _m(what, expected, action):
    return Rule("11.1", what, expected, _both(action), on="plain")


MECHANICS = (
    _m("write 0 bytes", (0, True), _nothing),
    _m("O_RDWR: write online, then read", (6, b"\n"), _write_then_read),
    _m("second write offline; offset then; pread 0", (7, 13, b"offline\n"), _second),
    _m("pwrite online at offset 3", (6, b"online\n"), lambda f: (os.pwrite(f, b"online", 3), os.pread(f, 20, 0))),
    _m("writev off, line", (7, b"offline\n"), lambda f: (os.writev(f, [b"off", b"line"]), os.pread(f, 20, 0))),
    _m("write from a bad pointer", "EFAULT", _wild),
    *(
        Rule(
            "11.1",
            f"{size} bytes beginning offline\\0",
            (4096 if size > 4096 else OK, "offline"),
            stores(AOB, text),
            on="plain",
        )
        for size, text in ((size, "offline\0".ljust(size, "x")) for size in (4096, 9000))
    ),
    *written("11.1", AOB, [(size * "a", "EINVAL", "online") for size in (4095, 4096, 4097, 9000)]),
    *written(
        "11.1",
        AUTOPROBE,
        [("1".ljust(size, "x"), OK if size <= 4096 else 4096, "1") for size in (4095, 4096, 4097, 9000)],
    ),
)
KEYWORDS = written(
    "11.2",
    AOB,
    [
        ("online", OK, "online"),
        ("offline\n", OK, "offline"),
        ("online_movable", OK, "online_movable"),
        ("online_kernel", OK, "online_kernel"),
        ("offline\0xyz", OK, "offline"),
        ("offline\n\0", OK, "offline"),
        *(
            (text, "EINVAL", "online")
            for text in ("garbage", "\n", "offline\n\n", " offline", "offline ", "OFFLINE", "offline" + 8993 * "\n")
        ),
    ],
)


def _block(number, file, rows, what, **more):
    return written("11.3", f"{MEMORY}/memory{number}/{file}", rows, what=f"{file} of {what}", **more)


BLOCKS = (
    *_block(40, "state", [(word, "EINVAL", "online") for word in ("garbage", "ONLINE")], "a block"),
    Rule("11.3", "state of a block: 0 bytes", (OK, "online"), stores(f"{MEMORY}/memory40/state", ""), on="plain"),
    *_block(
        40,
        "state",
        [(word, "EINVAL", "online") for word in ("online", "online_kernel", "online_movable")],
        "an online block",
    ),
    *_block(40, "state", [("offline", OK, "offline"), ("offline\n", OK, "offline")], "a block that can go offline"),
    *_block(40, "state", [("offline", "EINVAL", "offline")], "an offline block", before=("offline",)),
    *_block(
        40,
        "state",
        [("online", OK, "online"), ("online_kernel", OK, "online"), ("online_movable", OK, "online")],
        "an offline block",
        before=("offline",),
    ),
    *_block(0, "state", [("offline", "EINVAL", "online")], "a block of several zones", on="odd"),
    *_block(39, "state", [("offline", "EINVAL", "online")], "a block with a hole", on="odd"),
    *_block(PAMT, "state", [("offline", "EBUSY", "online")], "a block with unmovable pages", on="small"),
    *_block(40, "online", [(text, OK, "1") for text in ("1", "y", "on", "Yes", "1 ", "10")], "an online block"),
    *_block(
        40,
        "online",
        [(text, OK, "1") for text in ("1", "y", "on", "Yes", "1 ", "10")],
        "an offline block",
        before=("0",),
    ),
    *_block(40, "online", [("0", OK, "0"), ("n", OK, "0")], "a block that can go offline"),
    *_block(39, "online", [("0", "EINVAL", "1"), ("n", "EINVAL", "1")], "a block with a hole", on="odd"),
    *_block(PAMT, "online", [("0", "EBUSY", "1"), ("n", "EBUSY", "1")], "a block with unmovable pages", on="small"),
    *_block(40, "online", [("2", "EINVAL", "1"), ("x", "EINVAL", "1")], "a block"),
)
WRITE_ONLY = "EACCES"
"""What a read of a file without r bits answers."""
OTHERS = {
    f"{MEMORY}/probe": [("1", "ENOENT", "ENOENT")],
    f"{MEMORY}/soft_offline_page": [("garbage", "EINVAL", WRITE_ONLY)],
    f"{NODE}/compact": [("garbage", OK, WRITE_ONLY), ("1", OK, WRITE_ONLY)],
    f"{NODE}/uevent": [("garbage", "EINVAL", ""), ("add", OK, "")],
    f"{NODE}/power/control": [("garbage", "EINVAL", "auto"), ("on", OK, "on")],
    f"{POOL}/nr_hugepages": [
        ("garbage", "EINVAL", "0"),
        ("-1", "EINVAL", "0"),
        ("2", OK, "2"),
        ("0", OK, "0"),
        ("99999999999999999999999", "ERANGE", "0"),
    ],
    f"{POOL}/free_hugepages": [("1", "EACCES", "0")],
    f"{CPU}/cpu1/online": [("garbage", "EINVAL", "1"), ("7", "EINVAL", "1"), ("1", OK, "1")],
    "kernel/mm/numa/demotion_enabled": [("garbage", "EINVAL", "false"), ("true", OK, "true"), ("0", OK, "false")],
    AUTOPROBE: [("garbage", OK, "1"), ("1", OK, "1")],
    "bus/dax/drivers_probe": [("garbage", "ENODEV", WRITE_ONLY), ("dax0.0", OK, WRITE_ONLY)],
    "bus/dax/uevent": [("garbage", "EINVAL", WRITE_ONLY)],
}
READ_ONLY = (
    "devices/system/node/possible",
    f"{NODE}/distance",
    f"{NODE}/cpumap",
    f"{MEMORY}/block_size_bytes",
    f"{MEMORY}/memory0/phys_index",
    f"{MEMORY}/memory0/valid_zones",
    f"{CPU}/possible",
    f"{CPU}/cpu0/topology/core_id",
    "bus/dax/devices/dax0.0/target_node",
    "bus/dax/devices/dax0.0/resource",
    "bus/dax/devices/dax0.0/mapping0/start",
)
RULES = (
    *MECHANICS,
    *KEYWORDS,
    *BLOCKS,
    *(Rule("11", f"{path}: anything", "EACCES", lambda m, path=path: m.write(path, "1")) for path in READ_ONLY),
    *(rule for path, rows in OTHERS.items() for rule in written("11.4", path, rows)),
)
