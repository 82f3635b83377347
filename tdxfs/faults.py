"""Fault injection: which accesses of which files go wrong, and how.

A fault is written as one line: what is done to which files, what goes wrong, and when ::

    read sys/devices/system/memory/*/state errno=EIO nth=3
    list sys/bus/dax/devices/dax0.* vanish
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from fnmatch import fnmatchcase
from random import Random

from attrs import evolve, frozen

ACCESSES = ("open", "read", "write", "list")
"""What is done to a file; ``list`` is to open a directory."""
DELAY_MAX = 60.0
"""Seconds."""


@frozen
class Fault:
    """What goes wrong, and when."""

    access: str
    """One of `ACCESSES`."""
    pattern: str
    """A shell pattern of paths without the first slash; ``*`` matches slashes too."""
    number: int = 0
    """By which it is removed."""
    errno: int = 0
    """The access fails with it; 0: it does not."""
    delay: float = 0
    """Seconds that the access takes longer, and with it all that the mount is asked meanwhile."""
    short: int | None = None
    """A read gives so many bytes at most."""
    vanish: bool = False
    """A listing still names what matches, but it is gone when somebody looks, until the next listing."""
    nth: int = 0
    """Only the n-th access of each path; 0: all."""
    every: int = 1
    """Only each n-th access of each path."""
    chance: float = 1
    """How likely it is, from 0 to 1."""
    seed: int = 0
    """Of the numbers that `chance` is compared with."""

    def __str__(self) -> str:
        words = [self.access, self.pattern]
        if self.errno:
            words.append(f"errno={errno.errorcode[self.errno]}")
        words += [f"delay={self.delay:g}"] if self.delay else []
        words += [f"short={self.short}"] if self.short is not None else []
        words += ["vanish"] if self.vanish else []
        words += [f"nth={self.nth}"] if self.nth else []
        words += [f"every={self.every}"] if self.every != 1 else []
        words += [f"chance={self.chance:g}", f"seed={self.seed}"] if self.chance != 1 else []
        return " ".join(words)


def parse(text: str) -> Fault:
    """The fault that a line describes; ValueError says what is wrong."""
    access, pattern, *words = [*text.split(), "", ""][: max(len(text.split()), 2)]
    if access not in ACCESSES:
        raise ValueError(f"{access!r}: must be one of {', '.join(ACCESSES)}")
    if not pattern or pattern.startswith("/"):
        raise ValueError(f"{pattern!r}: must be a pattern of paths without the first slash")
    fault = Fault(access, pattern)
    for word in words:
        fault = _with(fault, *word.partition("="))
    if not (fault.errno or fault.delay or fault.short is not None or fault.vanish):
        raise ValueError(f"{text!r}: must have errno=, delay=, short= or vanish")
    if fault.short is not None and access != "read":
        raise ValueError("short=: must be of a read")
    if fault.vanish and access != "list":
        raise ValueError("vanish: must be of a list")
    return fault


def _with(fault: Fault, key: str, equals: str, value: str) -> Fault:
    try:
        match key:
            case "vanish" if not equals:
                return evolve(fault, vanish=True)
            case "errno":
                return evolve(fault, errno={name: number for number, name in errno.errorcode.items()}[value])
            case "delay" if 0 <= float(value) <= DELAY_MAX:
                return evolve(fault, delay=float(value))
            case "chance" if 0 <= float(value) <= 1:
                return evolve(fault, chance=float(value))
            case "short" | "nth" | "every" | "seed" if int(value) >= (key == "every"):
                changed: dict[str, int] = {key: int(value)}
                return evolve(fault, **changed)  # type: ignore[arg-type]
    except (ValueError, KeyError):
        pass
    forms = "errno=NAME, delay=SECONDS, short=BYTES, vanish, nth=N, every=N, chance=FRACTION or seed=N"
    raise ValueError(f"{key + equals + value!r}: must be {forms}")


class Faults:
    """Faults in force, and how often each path of theirs has been accessed."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults = [(fault, Random(fault.seed)) for fault in faults]
        self._counts: dict[tuple[int, str], int] = {}

    def due(self, access: str, path: str) -> list[Fault]:
        """Those that an access of a path (without the first slash) meets now: it is counted."""
        return [fault for fault, random in self._faults if self._is_due(fault, random, access, path)]

    def vanishes(self, path: str) -> bool:
        """Whether what is listed at a path is gone until the next listing: it is counted."""
        return any(fault.vanish for fault in self.due("list", path))

    def _is_due(self, fault: Fault, random: Random, access: str, path: str) -> bool:
        if fault.access != access or not fnmatchcase(path, fault.pattern):
            return False
        count = self._counts[fault.number, path] = self._counts.get((fault.number, path), 0) + 1
        timely = count == fault.nth if fault.nth else count % fault.every == 0
        return timely and (fault.chance == 1 or random.random() < fault.chance)
