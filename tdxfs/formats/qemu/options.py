"""QEMU's command line as options: ``-option key=value,...``, each with its keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from attrs import frozen

from tdxfs.errors import UserError

FLAGS = {
    "nodefaults",
    "no-user-config",
    "no-reboot",
    "no-shutdown",
    "nographic",
    "daemonize",
    "S",
    "enable-kvm",
    "snapshot",
}
"""Options without a value, of those that one meets."""
FIRST_KEY = {"m": "size", "smp": "cpus", "numa": "type", "object": "qom-type", "device": "driver", "cpu": "model"}
"""The key that a first word without one is the value of."""
FIRST_KEY |= {"machine": "type", "M": "type"}
UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}
TRUE, FALSE = ("on", "yes", "true", "y"), ("off", "no", "false", "n")


@frozen
class Option:
    """One option: its name and its keys, in the order given; a key may come twice."""

    name: str
    items: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"-{self.name} {','.join(f'{key}={value}' for key, value in self.items)}"

    def get(self, key: str, default: str = "") -> str:
        """The last value of a key."""
        return next((value for name, value in reversed(self.items) if name == key), default)

    def all(self, key: str) -> list[str]:
        return [value for name, value in self.items if name == key]

    def need(self, key: str) -> str:
        """The value of a key; UserError if there is none."""
        value = self.get(key)
        if not value:
            raise UserError(f"{self}: {key}: must be given")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        """The whole number that a key has; UserError if it is none, or missing without a default."""
        text = self.get(key) if default is not None and not self.get(key) else self.need(key)
        try:
            return int(text, 0) if text else default or 0
        except ValueError:
            raise UserError(f"{self}: {key}: {text!r} is no whole number") from None

    def size(self, key: str, default: int = 0, unit: str = "B") -> int:
        """The bytes that a key has, in `unit` where it names none; UserError if it is no size."""
        text = self.get(key)
        match = re.fullmatch(r"(0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?)([BKMGTPE]?)", text, re.IGNORECASE)
        if not text:
            return default
        if match is None:
            raise UserError(f"{self}: {key}: {text!r} is no size")
        number = Decimal(int(match[1], 16)) if match[1].startswith("0x") else Decimal(match[1])
        return int(number * UNITS[match[2].upper() or unit])

    def on(self, key: str, default: bool = False) -> bool:
        """Whether a key is on; UserError if it is neither on nor off."""
        text = self.get(key, TRUE[0] if default else FALSE[0])
        if text not in TRUE + FALSE:
            raise UserError(f"{self}: {key}: {text!r} must be on or off")
        return text in TRUE


def parse_command(words: Sequence[str]) -> tuple[Option, ...]:
    """The options of a command; its name may lead. UserError if an option lacks its value."""
    return tuple(_options(list(words)))


def _options(words: list[str]) -> Iterator[Option]:
    if words and not words[0].startswith("-"):
        words = words[1:]
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("-"):
            continue  # a disk image
        name = word.lstrip("-")
        if name in FLAGS:
            yield Option(name, ())
            continue
        if at == len(words):
            raise UserError(f"{word}: its value is missing")
        yield Option(name, tuple(_items(name, words[at])))
        at += 1


def _items(name: str, text: str) -> Iterator[tuple[str, str]]:
    first = FIRST_KEY.get(name)
    if first is None:
        yield "", text
        return
    if text.startswith("{"):
        yield from _json(name, text)
        return
    # a comma in a value is written twice
    for at, part in enumerate(re.split(r"(?<!,),(?!,)", text)):
        key, equals, value = part.replace(",,", ",").partition("=")
        if not equals and at == 0:
            yield first, key
        elif not equals:
            yield key.removeprefix("no").lstrip("+-"), FALSE[0] if key.startswith(("no", "-")) else TRUE[0]
        else:
            yield key, value


def _json(name: str, text: str) -> Iterator[tuple[str, str]]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"-{name} {text}: {error}") from error
    for key, value in found.items():
        for one in value if isinstance(value, list) else [value]:
            yield key, ("on" if one else "off") if isinstance(one, bool) else str(one)


def named(options: Iterable[Option], *names: str) -> list[Option]:
    """The options of these names."""
    return [option for option in options if option.name in names]
