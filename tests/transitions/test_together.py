"""Readers walk the tree while a writer changes it: nobody sees half a change, and the server does not grow."""

import errno
import os
import re
import threading
from pathlib import Path

import pytest
from attrs import evolve
from machines import MIXED

from tdxfs.model import MemoryLayout
from tdxfs.server import mounted

TOGGLES = int(os.environ.get("TDXFS_TOGGLES", "100"))
"""``scripts/soak`` sets it to 10,000."""
READERS = 8
GROWTH = 16 << 10
"""kB that a server may grow by, whatever happens."""
TOPS = ("sys/devices/system/memory", "sys/devices/system/node", "sys/bus/dax", "sys/devices/platform")
GONE = {errno.ENOENT, errno.ENODEV}
"""What an object that went away meanwhile may answer."""
ALWAYS = {"autosuspend_delay_ms": errno.EIO}
WORDS = {
    r"/memory[0-9]+/state$": r"(online|offline)\n",
    r"/memory[0-9]+/valid_zones$": r"(none|DMA32|Normal|Movable|Normal Movable|Movable Normal|DMA32 Movable)\n",
    r"/node/(online|possible)$": r"0-[23]\n",
    r"/node/has_memory$": r"0-2\n",
    r"/dax0.0/size$": r"1073741824\n",
    r"/auto_online_blocks$": r"offline\n",
}


def look(path):
    """What is wrong with a file, if anything."""
    try:
        text = path.read_text()
    except OSError as error:
        known = ALWAYS.get(path.name)
        return None if error.errno in GONE or error.errno == known else f"{path}: {errno.errorcode[error.errno]}"
    for pattern, allowed in WORDS.items():
        if re.search(pattern, str(path)) and not re.fullmatch(allowed, text):
            return f"{path}: {text!r}"
    if path.name == "meminfo":
        total, free, used = (int(line.split()[3]) for line in text.splitlines()[:3])
        if total != free + used:
            return f"{path}: {total} is not {free} + {used}"
    return None


def walk(root, end, found):
    while not end.is_set():
        for top in TOPS:
            for directory, _, files in os.walk(root / top, onerror=lambda error: note(error, found)):
                for name in files:
                    path = Path(directory, name)
                    if os.access(path, os.R_OK) and (path.is_symlink() or path.exists()) and readable(path):
                        wrong = look(path) if not path.is_symlink() else None
                        if wrong:
                            found.append(wrong)
                if end.is_set():
                    return


def readable(path):
    try:
        return bool(path.lstat().st_mode & 0o444)
    except OSError:
        return False


def note(error, found):
    if error.errno not in GONE:
        found.append(f"{error.filename}: {errno.errorcode[error.errno]}")


def server_of(root):
    """The process that serves a mount."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"tdxfs.server" in words and str(root).encode() in words:
            return process
    pytest.fail(f"no server of {root}")


def resident(process):
    """kB."""
    return int(re.search(r"VmRSS:\s*([0-9]+)", (process / "status").read_text())[1])


def toggle(root, number):
    """A memory block goes offline and back, a dax device to kmem and back."""
    block = root / f"sys/devices/system/memory/memory{64 + number % 16}/state"
    drivers = root / "sys/bus/dax/drivers"
    block.write_text("offline")
    (drivers / "device_dax/unbind").write_text("dax0.0")
    (drivers / "kmem/bind").write_text("dax0.0")
    block.write_text("online_movable" if number % 2 else "online_kernel")
    (drivers / "kmem/unbind").write_text("dax0.0")
    (drivers / "device_dax/bind").write_text("dax0.0")


def test_readers_and_a_writer():
    """No torn content, no wrong errno, no growth; in the end everything is as it was."""
    topology = evolve(MIXED, tdx=None, memory=MemoryLayout(auto_online="offline"))
    found: list[str] = []
    end = threading.Event()
    with mounted(topology) as root:
        for driver in ("kmem", "device_dax"):
            (root / f"sys/bus/dax/drivers/{driver}/new_id").write_text("dax0.0")
        for number in range(16):
            toggle(root, number)
        server = server_of(root)
        before = resident(server)
        readers = [threading.Thread(target=walk, args=(root, end, found)) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        try:
            for number in range(TOGGLES):
                toggle(root, number)
        finally:
            end.set()
            for reader in readers:
                reader.join()
        assert [] == found[:10]
        assert resident(server) - before < GROWTH
        assert "0-2\n" == (root / "sys/devices/system/node/online").read_text()
