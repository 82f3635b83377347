"""Range lists of ids, ``0-1,3``: the kernel's ``%*pbl``."""

from collections.abc import Iterable


def format_list(ids: Iterable[int]) -> str:
    """``%*pbl``: ``0-1,3``; nothing for the empty set."""
    runs: list[list[int]] = []
    for number in sorted(ids):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def parse_list(text: str) -> frozenset[int]:
    """The set that ``0-1,3`` names; ValueError if it names none."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise ValueError(f"{text!r} is not a list of ids such as 0-1,3")
        first, last = int(low), int(high or low)
        if last < first:
            raise ValueError(f"{part!r} runs backwards")
        found.update(range(first, last + 1))
    return frozenset(found)
