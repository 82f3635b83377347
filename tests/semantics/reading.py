"""read(2) and lseek(2) (section 7): text files, and the CPU masks with their short reads."""

import os

from syscalls import answer, opened

from semantics.rule import Rule

TEXT = (
    "devices/system/node/possible",
    "devices/system/node/node0/distance",
    "devices/system/memory/block_size_bytes",
    "devices/system/memory/memory0/state",
    "bus/dax/devices/dax0.0/size",
    "bus/dax/devices/dax0.0/resource",
    "devices/system/node/node0/meminfo",
)
MASKS = ("cpumap", "cpulist")


def _content(path):
    with open(path, "rb") as file:
        return file.read()


def _part(data, whole):
    # what was read, in terms of the whole content
    if isinstance(data, str) or not data:
        return data or "nothing"
    if data == whole:
        return "all"
    at = whole.find(data)
    if at < 0 or whole[at:] != data:
        return repr(data)
    return f"from {at}"


def _drain(descriptor, size):
    parts = []
    while not parts or (parts[-1] and not isinstance(parts[-1], str)):
        parts.append(answer(os.read, descriptor, size))
    return parts


def _probe(function):
    # of a file: called with a fresh descriptor and what the file contains
    def on(path):
        def probe(m):
            where = getattr(m, path) if path in MASKS else m.at(path)
            whole = _content(where)
            with opened(where) as file:
                return function(file, whole)

        return probe

    return on


@_probe
def _whole(file, whole):
    first, second = os.read(file, 1 << 16), os.read(file, 1 << 16)
    return _part(first, whole), _part(second, whole), os.lseek(file, 0, os.SEEK_CUR) == len(whole)


@_probe
def _rewound(file, whole):
    os.read(file, 1 << 16)
    os.lseek(file, 0, os.SEEK_SET)
    return _part(os.read(file, 1 << 16), whole)


def _pieces(size):
    return _probe(lambda file, whole: _part(b"".join(_drain(file, size)), whole))


def _at(*offsets):
    return _probe(lambda file, whole: [_part(answer(os.pread, file, 1 << 13, at), whole) for at in offsets])


def _beyond(*more):
    return _probe(lambda file, whole: [_part(answer(os.pread, file, 100, len(whole) + at), whole) for at in more])


@_probe
def _pread_then_read(file, whole):
    return _part(os.pread(file, 1 << 13, 0), whole), _part(os.read(file, 1 << 13), whole)


def _ends(whence, name):
    # in terms of st_size
    def end(file, whole):
        at = os.lseek(file, 0, whence)
        return name if at == os.fstat(file).st_size else at

    return _probe(end)


def _seek(*steps):
    def seek(file, whole):
        for offset, whence in steps:
            at = answer(os.lseek, file, offset, whence)
        return at, _part(answer(os.read, file, 1 << 13), whole)

    return _probe(seek)


@_probe
def _after_5(file, whole):
    os.lseek(file, 5, os.SEEK_SET)
    return answer(os.read, file, 1 << 13) == (whole[5:] if len(whole) >= 5 else b"")


@_probe
def _vector(file, whole):
    first, second = bytearray(4), bytearray(100)
    count = os.readv(file, [first, second])
    return count == len(whole[:104]), (first + second)[:count] == whole[:count]


@_probe
def _copied(file, whole):
    copy = os.dup(file)
    parts = os.read(file, 2), os.read(copy, 1 << 13)
    os.close(copy)
    return len(parts[0]), b"".join(parts) == whole


@_probe
def _sizes(file, whole):
    parts = _drain(file, 3)
    return {len(part) for part in parts[:-2]} <= {2}, b"".join(parts) == whole


@_probe
def _one_byte(file, whole):
    return os.read(file, 1)


@_probe
def _eperm_stays(file, whole):
    os.lseek(file, len(whole) + 1, os.SEEK_SET)
    return answer(os.read, file, 10), os.lseek(file, 0, os.SEEK_CUR) - len(whole)


@_probe
def _end_of_mask(file, whole):
    size = os.fstat(file).st_size
    return [_part(answer(os.pread, file, 100, at), whole) for at in (size - 1, size)]


@_probe
def _truncated(file, whole):
    os.truncate(f"/proc/self/fd/{file}", 0)
    return _part(os.read(file, 1 << 13), whole)


SET, CUR = os.SEEK_SET, os.SEEK_CUR
BOTH = (
    ("read 64 KiB; again; offset is then L", ("all", "nothing", True), _whole),
    ("lseek 0 and read", "all", _rewound),
    ("3-byte reads", "all", _pieces(3)),
    ("pread at 1", ["from 1"], _at(1)),
    ("pread at -1", ["EINVAL"], _at(-1)),
    ("pread at 2^40", ["nothing"], _at(1 << 40)),
    ("lseek 0 SEEK_END", "st_size", _ends(os.SEEK_END, "st_size")),
    ("lseek 0 SEEK_HOLE", "st_size", _ends(os.SEEK_HOLE, "st_size")),
    ("lseek 0 SEEK_DATA", 0, _probe(lambda file, whole: os.lseek(file, 0, os.SEEK_DATA))),
    ("lseek -1 SEEK_SET", "EINVAL", _probe(lambda file, whole: answer(os.lseek, file, -1, SET))),
    ("lseek 1000000; read", (1000000, "nothing"), _seek((1000000, SET))),
    ("read of 0 bytes", b"", _probe(lambda file, whole: os.read(file, 0))),
    ("readv(4 + 100) is one read", (True, True), _vector),
)
ONLY_TEXT = (
    ("1-byte reads", "all", _pieces(1)),
    ("pread at L, L+100", ["nothing", "nothing"], _beyond(0, 100)),
    ("pread at 0, then read", ("all", "all"), _pread_then_read),
    ("lseek 5 SEEK_SET; read: from byte 5, nothing if L <= 5", True, _after_5),
    ("lseek 3, -2 SEEK_CUR; read", (1, "from 1"), _seek((3, SET), (-2, CUR))),
    ("dup: read 2, then the rest on the copy", (2, True), _copied),
)
ONLY_MASKS = (
    ("1-byte read", b"", _one_byte),
    ("3-byte reads give two bytes at a time", (True, True), _sizes),
    ("pread at L, L+1, L+100", ["nothing", "EPERM", "EPERM"], _beyond(0, 1, 100)),
    ("pread at st_size-1, st_size", ["EPERM", "nothing"], _end_of_mask),
    ("lseek to L+1 and read: EPERM, the position stays", ("EPERM", 1), _eperm_stays),
    ("lseek 3, -2 SEEK_CUR; read", (1, "from 1"), _seek((3, SET), (-2, CUR))),
    ("dup: read 2, then the rest on the copy", (1, True), _copied),
    ("read after truncate(0)", "all", _truncated),
)
RULES = (
    *(
        Rule("7.1", f"{path}: {what}", expected, probe(path))
        for path in TEXT
        for what, expected, probe in (*BOTH, *ONLY_TEXT)
    ),
    Rule("7.1", "a file with nothing to say", b"", lambda m: _content(f"{m.node0}/uevent")),
    *(
        Rule("7.2", f"{name}: {what}", expected, probe(name))
        for name in MASKS
        for what, expected, probe in (*BOTH, *ONLY_MASKS)
    ),
)
