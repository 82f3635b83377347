"""Tables: rich on a terminal, aligned columns when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(value: int) -> str:
    """
    Bytes in the largest unit that divides them.

    >>> size(3 << 30), size(1000)
    ('3 GiB', '1000 B')
    """
    step = 0
    while value and value % 1024 == 0 and step < len(UNITS) - 1:
        value //= 1024
        step += 1
    return f"{value} {UNITS[step]}"


def rounded(value: int) -> str:
    """
    Bytes as a person says them: in the largest unit that fits, with one decimal where it is needed.

    >>> rounded(3 << 30), rounded((3 << 30) - 4096), rounded(5 << 19), rounded(1000)
    ('3 GiB', '3 GiB', '2.5 MiB', '1000 B')
    """
    step = min(max(value.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    return f"{value / 1024**step:.1f}".removesuffix(".0") + f" {UNITS[step]}"


def plain(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Aligned columns, two blanks apart, a row per line.

    >>> print(plain(("NODE", "WORD"), [("0", "capable"), ("10", "mixed")]))
    NODE  WORD
    0     capable
    10    mixed
    """
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as suits where it goes."""
    if not sys.stdout.isatty():
        print(plain(headers, rows))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD)
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in rows:
        drawn.add_row(*(cell.replace("[", r"\[") for cell in row))
    Console().print(drawn)
