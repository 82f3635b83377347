"""The emulated kernel log as ``/dev/kmsg`` and dmesg print it (Documentation/ABI/testing/dev-kmsg)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import define, field

from tdxfs.model import LOG_KEPT, LogRecord, Machine, changed
from tdxfs.ring import Ring

ALERT, ERR, WARN, NOTICE, INFO = 1, 3, 4, 5, 6
"""The kernel's log levels."""
USER = 1
"""The facility of what programs write."""
_PAUSE = 1_731
"""Microseconds between two lines: the emulated kernel has no clock."""


@define
class Log:
    """The emulated kernel log while it is being written."""

    records: list[LogRecord] = field(factory=list)

    def say(self, level: int, text: str) -> None:
        """Append one line, a plausible while after the one before."""
        self.records.append(_next(self.records, level, text))

    @property
    def kept(self) -> Ring[LogRecord]:
        """As a machine has it."""
        return Ring[LogRecord](LOG_KEPT).extended(self.records)

    def tdx(self, level: int, text: str) -> None:
        self.say(level, f"virt/tdx: {text}")


def said(machine: Machine, level: int, text: str) -> Machine:
    """The machine after its kernel has logged one line."""
    return changed(machine, log=machine.log.extended((_next(machine.log, level, text),)))


def _next(records: Sequence[LogRecord], level: int, text: str) -> LogRecord:
    return LogRecord(level, records[-1].usec + _PAUSE if records else 0, text)


def user_said(machine: Machine, text: str) -> Machine:
    """
    The machine after a program has written to ``/dev/kmsg`` (``devkmsg_write``): ``<priority>text``; without a
    priority, or with the kernel's facility, the facility is user and the level is warning or what was given.
    """
    match = re.match("<([0-9]+)>", text)
    priority = int(match[1]) if match else WARN
    facility, level = priority >> 3 or USER, priority & 7
    body = (text[match.end() :] if match else text).removesuffix("\n").replace("\n", "\\x0a")
    return said(machine, facility << 3 | level, body)


def format_kmsg(number: int, record: LogRecord) -> str:
    """``prio,seq,usec,flags;text``; prio is 8 times the facility, 0 for the kernel, and the level."""
    return f"{record.level},{number},{record.usec},-;{record.text}\n"


def format_dmesg(records: Iterable[LogRecord]) -> str:
    """Seconds since boot in brackets, then the text."""
    return "".join(f"[{record.usec / 1e6:12.6f}] {record.text}\n" for record in records)
