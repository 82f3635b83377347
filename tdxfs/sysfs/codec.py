"""The text formats of sysfs: each is emitted and scanned in one place.

A `Codec` turns a value into the bytes of a file and back. `emit` follows the kernel's
``sysfs_emit()`` of that format, `scan` the ``kstrto*()`` that matches it. Every attribute
names its codec; nothing else in tdxfs formats or parses a sysfs file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import frozen

from tdxfs.errors import InvalidValue, OutOfRange
from tdxfs.idlist import format_list, parse_list

V = TypeVar("V")


def _itself(value: Any) -> Any:
    return value


@frozen
class Codec(Generic[V]):
    """How a value looks in a file, and as JSON."""

    name: str
    """What a value is called in an error and in the ABI text: "a decimal number"."""
    emit: Callable[[V], str]
    """The text without the final newline."""
    scan: Callable[[str], V]
    """Value of a text without its newline; ValueError if it has none."""
    plain: Callable[[V], Any] = _itself
    """The value as JSON knows it."""
    newline: str = "\n"

    def show(self, value: V) -> bytes:
        return (self.emit(value) + self.newline).encode("ascii", "surrogateescape")

    def parse(self, data: bytes) -> V:
        """
        Value of what a file holds, or of what somebody wrote into it: the codec's
        final newline and a trailing NUL are not part of it.
        """
        text = data.split(b"\0", 1)[0].decode("ascii", "surrogateescape")
        try:
            return self.scan(text.removesuffix(self.newline))
        except ValueError as error:
            raise InvalidValue(f"{text!r} is not {self.name}") from error

    def __str__(self) -> str:
        return self.name


@frozen
class Mask:
    """A set of ids that is printed as wide as `width` bits."""

    ids: frozenset[int]
    width: int


def _format_mask(mask: Mask) -> str:
    # %*pb: groups of 32 bits, the top one only as wide as the rest of the width
    value = sum(1 << number for number in mask.ids)
    digits = f"{value:0{-(-mask.width // 4)}x}"
    groups = []
    while digits:
        digits, group = digits[:-8], digits[-8:]
        groups.append(group)
    return ",".join(reversed(groups))


def _parse_mask(text: str) -> Mask:
    digits = text.strip().replace(",", "")
    value = int(digits, 16)
    ids = frozenset(bit for bit in range(value.bit_length()) if value >> bit & 1)
    return Mask(ids, 4 * len(digits))


def _number(base: int) -> Callable[[str], int]:
    def scan(text: str) -> int:
        if text != text.strip() or "_" in text:
            raise ValueError(text)
        return int(text, base)

    return scan


def kstrto(text: str, base: int, bits: int, *, signed: bool = False) -> int:
    """
    The number that ``kstrtoull()`` and its kin make of `text`; base 0 goes by the prefix. ValueError if it is
    none, OutOfRange if it has more than `bits` bits.
    """
    sign = text[:1] if text[:1] == "+" or (signed and text[:1] == "-") else ""
    digits = text.removeprefix(sign).lower()
    if base == 0:
        base = 16 if re.match("0x[0-9a-f]", digits) else 8 if digits.startswith("0") else 10
    if base == 16:
        digits = digits.removeprefix("0x")
    value, seen = 0, 0
    for digit in digits:
        if not digit.isascii() or not digit.isalnum() or (number := int(digit, 36)) >= base:
            break
        value, seen = value * base + number, seen + 1
    if not seen:
        raise ValueError(text)
    limit = 1 << (bits - 1 if signed else bits)
    if value >= limit + (sign == "-"):
        raise OutOfRange(f"{text!r} has more than {bits} bits")
    if seen < len(digits):
        raise ValueError(text)
    return -value if sign == "-" else value


def _word(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError(text)
    return text


def _bool(text: str) -> bool:
    # kstrtobool() looks at the first character, or at two for on and off
    if text[:1] in ("1", "y", "Y", "t", "T") or text[:2].lower() == "on":
        return True
    if text[:1] in ("0", "n", "N", "f", "F") or text[:2].lower() == "of":
        return False
    raise ValueError(text)


def _scan_stat(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.rsplit(None, 1) for line in text.splitlines())}


@frozen(eq=False)
class Records:
    """
    A stream of numbered records, of which the newest are kept, as ``/dev/kmsg`` has them. Those that
    read alike are equal.
    """

    kept: Sequence[Any]
    format: Callable[[int, Any], str]
    """Number and record -> its line."""
    first: int = 0
    """Number of the oldest that is kept."""

    @property
    def end(self) -> int:
        """Number of the next one."""
        return self.first + len(self.kept)

    def numbers(self) -> range:
        return range(self.first, self.end)

    def text(self, number: int) -> str:
        return self.format(number, self.kept[number - self.first])

    def __str__(self) -> str:
        return "".join(map(self.text, self.numbers()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def _scan_records(text: str) -> Records:
    return Records(text.splitlines(), lambda _, line: f"{line}\n")


def _format_choice(choice: tuple[str, Sequence[str]]) -> str:
    selected, words = choice
    return " ".join(f"[{word}]" if word == selected else word for word in words)


def _scan_choice(text: str) -> tuple[str, Sequence[str]]:
    words = text.split()
    selected = [word[1:-1] for word in words if word.startswith("[")]
    if len(selected) != 1:
        raise ValueError(text)
    return selected[0], [word.strip("[]") for word in words]


DECIMAL: Codec[int] = Codec("a decimal number", str, _number(10))
UNSIGNED: Codec[int] = Codec("a number, 0x for hexadecimal, 0 for octal", str, lambda text: kstrto(text, 0, 64))
ULONG: Codec[int] = Codec("a decimal number", str, lambda text: kstrto(text, 10, 64))
"""As DECIMAL, but ERANGE for what is too large."""
INT: Codec[int] = Codec("a number of 32 bits with sign", str, lambda text: kstrto(text, 0, 32, signed=True))
HEX: Codec[int] = Codec("a hexadecimal number with 0x", "{:#x}".format, _number(16))
BARE_HEX: Codec[int] = Codec("a hexadecimal number without 0x", "{:x}".format, _number(16))
BLOCK_INDEX: Codec[int] = Codec("eight hexadecimal digits", "{:08x}".format, _number(16))
BOOL: Codec[bool] = Codec("0 or 1", lambda value: str(int(value)), _bool)
YES_NO: Codec[bool] = Codec("Y or N", lambda value: "Y" if value else "N", _bool)
TRUE_FALSE: Codec[bool] = Codec("true or false", lambda value: str(value).lower(), _bool)
WORD: Codec[str] = Codec("a word", _itself, _word)
LINE: Codec[str] = Codec("a line of text", _itself, _itself)
LIST: Codec[frozenset[int]] = Codec("a range list", format_list, parse_list, format_list)
MASK: Codec[Mask] = Codec(
    "a bit mask in groups of 32 bits", _format_mask, _parse_mask, lambda mask: format_list(mask.ids)
)
ADDRESSES: Codec[tuple[int, int]] = Codec(
    "<start>-<end>, hexadecimal, end inclusive", "{0[0]:#x}-{0[1]:#x}".format, lambda text: _addresses(text)
)
STAT: Codec[Mapping[str, int]] = Codec(
    "lines of name and value",
    lambda stat: "\n".join(f"{name} {value}" for name, value in stat.items()),
    _scan_stat,
)
CHOICE: Codec[tuple[str, Sequence[str]]] = Codec(
    "words, the selected one in brackets", _format_choice, _scan_choice, lambda choice: choice[0]
)
RECORDS: Codec[Records] = Codec("records, one per read", str, _scan_records, newline="")
TEXT: Codec[str] = Codec("text", _itself, _itself, newline="")
"""Whole text, verbatim: no newline is added."""
BINARY: Codec[bytes] = Codec(
    "bytes",
    lambda data: data.decode("ascii", "surrogateescape"),
    lambda text: text.encode("ascii", "surrogateescape"),
    bytes.hex,
    newline="",
)
"""What is no text; only shown."""
NOTHING: Codec[None] = Codec("nothing", lambda _: "", lambda _: None, newline="")
VERSION: Codec[tuple[int, int, int]] = Codec(
    "a version",
    lambda version: "{}.{}.{:02}".format(*version),
    lambda text: _triple(text),
    lambda version: "{}.{}.{:02}".format(*version),
)


def _addresses(text: str) -> tuple[int, int]:
    start, end = text.split("-", 1)
    return kstrto(start, 16, 64), kstrto(end, 16, 64)


def _triple(text: str) -> tuple[int, int, int]:
    major, minor, update = (int(part) for part in text.split("."))
    return major, minor, update
