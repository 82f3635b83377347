"""The emulated kernel log as ``/dev/kmsg`` and dmesg print it (Documentation/ABI/testing/dev-kmsg)."""

from __future__ import annotations

from collections.abc import Iterable

from tdxfs.model import LogRecord, Machine, changed

ERR, WARN, NOTICE, INFO = 3, 4, 5, 6
"""The kernel's log levels."""
_PAUSE = 1_731
"""Microseconds between two lines: the emulated kernel has no clock."""


def said(machine: Machine, level: int, text: str) -> Machine:
    """The machine after its kernel has logged one line."""
    usec = machine.log[-1].usec + _PAUSE if machine.log else 0
    return changed(machine, log=(*machine.log, LogRecord(level, usec, text)))


def format_kmsg(records: Iterable[LogRecord]) -> str:
    """``prio,seq,usec,flags;text`` per record; the facility is the kernel's, so prio is the level."""
    return "".join(f"{record.level},{seq},{record.usec},-;{record.text}\n" for seq, record in enumerate(records))


def format_dmesg(records: Iterable[LogRecord]) -> str:
    """Seconds since boot in brackets, then the text."""
    return "".join(f"[{record.usec / 1e6:12.6f}] {record.text}\n" for record in records)
