"""Symbolic links (section 5)."""

import ctypes
import os

from syscalls import answer, can_open, libc

from semantics.rule import Rule, by

TARGETS = {
    "devices/system/node/node0/cpu0": "../../cpu/cpu0",
    "devices/system/cpu/cpu0/node0": "../../node/node0",
    "devices/system/node/node0/memory0": "../../memory/memory0",
    "devices/system/memory/memory0/node0": "../../node/node0",
    "devices/system/node/node0/subsystem": "../../../../bus/node",
    "devices/system/memory/memory0/subsystem": "../../../../bus/memory",
    "devices/system/cpu/cpu0/subsystem": "../../../../bus/cpu",
    "bus/node/devices/node0": "../../../devices/system/node/node0",
    "bus/memory/devices/memory0": "../../../devices/system/memory/memory0",
    "bus/cpu/devices/cpu0": "../../../devices/system/cpu/cpu0",
}
OLD = "LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/dax0.0/dax0.0"
NEW = "platform/ACPI0012:00/ndbus0/region0/dax0.0/dax0.0"
DAX = {
    "bus/dax/devices/dax0.0": by(*(f"../../../devices/{path}" for path in (OLD, OLD, NEW))),
    "bus/dax/drivers/device_dax/dax0.0": by(*(f"../../../../devices/{path}" for path in (OLD, OLD, NEW))),
    "bus/dax/devices/dax0.0/driver": by(*(f"{'../' * ups}bus/dax/drivers/device_dax" for ups in (8, 8, 7))),
    "bus/dax/devices/dax0.0/subsystem": by(*(f"{'../' * ups}bus/dax" for ups in (8, 8, 7))),
    "bus/dax/drivers/device_dax/module": "../../../../module/device_dax",
}


def _target(path):
    return lambda m: os.readlink(m.at(path))


def _short(m):
    buffer = ctypes.create_string_buffer(5)
    return libc("readlink", os.fsencode(m.link), buffer, ctypes.c_size_t(4)), buffer.value


def _rule(*arguments, **options):
    return Rule("5", *arguments, **options)


RULES = (
    *(_rule(path, target, _target(path)) for path, target in TARGETS.items()),
    *(_rule(f"{path} of a static region", target, _target(path), on="static") for path, target in DAX.items()),
    _rule("readlink with a 4-byte buffer", (4, b"../."), _short),
    _rule("readlink of a file", "EINVAL", lambda m: answer(os.readlink, m.possible)),
    _rule("readlink of a directory", "EINVAL", lambda m: answer(os.readlink, m.node0)),
    _rule("open O_NOFOLLOW", "ELOOP", lambda m: can_open(m.link, os.O_NOFOLLOW)),
    _rule("open O_PATH+O_NOFOLLOW", "ok", lambda m: can_open(m.link, os.O_NOFOLLOW | os.O_PATH)),
)
