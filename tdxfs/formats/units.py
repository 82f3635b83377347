"""Sizes and addresses as people write them: ``"64 GiB"``, ``"0x1_0000_0000"``, ``4096``."""

from __future__ import annotations

import re

UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}
_FORM = re.compile(r"(0x[0-9a-fA-F_]+|[0-9][0-9_]*)\s*([A-Za-z]*)")


def parse_size(value: object) -> int:
    """Bytes of an integer or a text with an optional unit; ValueError says what is wrong."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _FORM.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or (match[2] and match[2] not in UNITS):
        raise ValueError(f"{value!r}: must be a whole number or a text such as '64 GiB' or '0x1_0000_0000'")
    return int(match[1].replace("_", ""), 0) * UNITS[match[2] or "B"]


def format_size(size: int) -> int | str:
    """The shortest exact way to write a size: with the largest unit that divides it."""
    for unit, factor in reversed(UNITS.items()):
        if size and size % factor == 0 and factor > 1:
            return f"{size // factor} {unit}"
    return size


def format_address(address: int) -> int | str:
    """An address as ``0x1_0000_0000``."""
    return f"0x{address:_x}" if address else 0
