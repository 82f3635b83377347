"""Files that keep what is written: their values are the machine's, by path, until the object is gone or it reboots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tdxfs.errors import InvalidValue, OutOfRange
from tdxfs.model import Machine, changed
from tdxfs.sysfs.attribute import Attribute, Directory, rw
from tdxfs.sysfs.codec import Codec, kstrto

Check = Callable[[Any, Any], Any]
"""(directory, what was written) -> what is kept; raises Refusal."""


def knob(
    codec: Codec[Any],
    *,
    takes: Codec[Any] | None = None,
    check: Check | None = None,
    name: str = "",
    mode: int = 0o644,
    since: str = "",
    until: str = "",
) -> Callable[[Callable[[Any], Any]], Attribute[Any, Any]]:
    """A file that keeps what is written; the decorated function returns what it says before."""

    def declare(default: Callable[[Any], Any]) -> Attribute[Any, Any]:
        def show(directory: Directory[Any]) -> Any:
            path = f"{directory.path}/{attribute.name}"
            knobs = directory.machine.knobs
            return knobs[path] if path in knobs else default(directory)

        def store(directory: Directory[Any], value: Any) -> Machine:
            return kept(directory, attribute.name, value if check is None else check(directory, value))

        show.__doc__ = default.__doc__
        show.__name__ = default.__name__
        attribute: Attribute[Any, Any] = rw(codec, takes=takes, name=name, mode=mode, since=since, until=until)(show)
        attribute.store(store)
        return attribute

    return declare


def constant(
    codec: Codec[Any],
    value: Any,
    doc: str,
    *,
    takes: Codec[Any] | None = None,
    check: Check | None = None,
    mode: int = 0o644,
    since: str = "",
) -> Attribute[Any, Any]:
    """A knob of which the model has nothing more than Linux's default."""

    def show(directory: Directory[Any]) -> Any:
        return value

    show.__doc__ = doc
    return knob(codec, takes=takes, check=check, mode=mode, since=since)(show)


def kept(directory: Directory[Any], name: str, value: Any) -> Machine:
    """The machine in which a file of the directory says `value`."""
    machine = directory.machine
    return changed(machine, knobs=machine.knobs.set(f"{directory.path}/{name}", value))


def one_of(*words: str) -> Check:
    """Only these words."""

    def check(directory: Any, word: str) -> str:
        if word not in words:
            raise InvalidValue(f"{word!r} is not one of {', '.join(words)}")
        return word

    return check


def choice(*words: str) -> Check:
    """Only these words, shown with the one that was written in brackets."""
    only = one_of(*words)

    def check(directory: Any, word: str) -> tuple[str, Sequence[str]]:
        return only(directory, word), words

    return check


def between(low: int, high: int) -> Check:
    """Only numbers from `low` to `high`, both inclusive."""

    def check(directory: Any, number: int) -> int:
        if not low <= number <= high:
            raise InvalidValue(f"{number} is not {low} to {high}")
        return number

    return check


def refuses(refusal: type[OSError], why: str) -> Check:
    """Nothing at all: what is parsed is refused."""

    def check(directory: Any, value: Any) -> Any:
        raise refusal(why)

    return check


def _uint(text: str) -> int:
    return _unsigned(text, 10)


def _auto(text: str) -> int:
    return _unsigned(text, 0)


def _unsigned(text: str, base: int) -> int:
    try:
        return kstrto(text, base, 32)
    except OutOfRange as error:
        raise ValueError(text) from error


UINT: Codec[int] = Codec("a decimal number of 32 bits", str, _uint)
"""EINVAL also for what is too large, as most stores of mm/ say."""
AUTO: Codec[int] = Codec("a number of 32 bits, 0x for hexadecimal, 0 for octal", str, _auto)
