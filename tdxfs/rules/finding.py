"""What a rule finds, and what several rules look at."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache

from attrs import frozen

from tdxfs.capability import Hole, Verdict, node_verdicts
from tdxfs.model import Machine, Why
from tdxfs.ranges import Ranges
from tdxfs.remedies import Remedy
from tdxfs.render import rounded


class Severity(Enum):
    """How much a conflict matters; from least to most."""

    INFO = "info"
    """Worth knowing."""
    WARNING = "warning"
    """Memory cannot be used, or a guest can be given memory that kills it."""
    ERROR = "error"
    """No TDX guest can run."""

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


@frozen
class Finding:
    """One conflict; (kind, subject) identifies it."""

    kind: str
    severity: Severity
    subject: str
    reason: str
    """One sentence."""
    remedy: Remedy
    node: int | None = None
    dax: str = ""
    ranges: Ranges = Ranges()


@lru_cache(maxsize=8)
def verdicts(machine: Machine) -> dict[int, Verdict]:
    """Of the nodes that a task can be given memory from: node id -> verdict."""
    mems = machine.default_mems
    return {nid: verdict for nid, verdict in node_verdicts(machine).items() if mems is None or nid in mems}


def capable(machine: Machine) -> frozenset[int]:
    """Those of them that are TDX capable."""
    return frozenset(nid for nid, verdict in verdicts(machine).items() if verdict)


def ranges_of(holes: Iterable[Hole]) -> Ranges:
    """Where the holes are."""
    return Ranges.of(hole.range for hole in holes)


WORDS = {
    Why.NOT_CONVERTIBLE: "not convertible",
    Why.NOT_COVERED: "not covered by a TDMR",
    Why.RESERVED: "in a reserved area of a TDMR",
}


def whys(holes: Iterable[Hole]) -> str:
    """How much is lost for which reason: ``2 GiB not convertible, 1 MiB not covered by a TDMR``."""
    sizes: dict[Why, int] = {}
    for hole in holes:
        sizes[hole.why] = sizes.get(hole.why, 0) + hole.range.size
    return ", ".join(f"{rounded(sizes[why])} {word}" for why, word in WORDS.items() if why in sizes)
