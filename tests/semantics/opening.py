"""open(2) (section 6): flags against a 0444, a 0644 and a 0200 file, as root."""

import os

from syscalls import can_open

from semantics.rule import Rule

FLAGS = {
    "O_RDONLY": "ok ok EACCES",
    "O_WRONLY": "EACCES ok ok",
    "O_RDWR": "EACCES ok EACCES",
    "O_RDONLY+O_TRUNC": "ok ok EACCES",
    "O_WRONLY+O_TRUNC": "EACCES ok ok",
    "O_RDONLY+O_APPEND": "ok ok EACCES",
    "O_WRONLY+O_APPEND": "EACCES ok ok",
    "O_RDONLY+O_CREAT": "ok ok EACCES",
    "O_RDONLY+O_CREAT+O_EXCL": "EEXIST EEXIST EEXIST",
    "O_WRONLY+O_CREAT+O_TRUNC": "EACCES ok ok",
    "O_RDONLY+O_DIRECT": "EINVAL EINVAL EACCES",
    "O_RDONLY+O_NONBLOCK": "ok ok EACCES",
    "O_RDONLY+O_SYNC": "ok ok EACCES",
    "O_RDONLY+O_NOATIME": "ok ok EACCES",
    "O_PATH": "ok ok ok",
    "access mode 3": "ok ok ok",
}


def _flags(words):
    if words == "access mode 3":
        return 3
    return sum(getattr(os, word) for word in words.split("+"))


def _opens(words):
    flags = _flags(words)
    return lambda m: " ".join(can_open(path, flags) for path in (m.possible, m.aob, m.compact))


def _dax(words):
    files = ("bus/dax/devices/dax0.0/align", "bus/dax/drivers/device_dax/bind")
    return lambda m: " ".join(can_open(m.at(path), _flags(words)) for path in files)


RULES = (
    *(Rule("6", words, expected, _opens(words)) for words, expected in FLAGS.items()),
    *(
        Rule("6", f"{words}, static dax0.0/align and bind", " ".join(expected.split()[::2]), _dax(words), on="static")
        for words, expected in FLAGS.items()
    ),
)
