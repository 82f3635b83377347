"""What a section reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen


@frozen
class Options:
    """What every section may need."""

    golden: Path
    """The directory of the captures."""
    only: Callable[[str], bool]
    """Whether a row of that name is wanted."""
    hwloc: Path | None = None
    """The directory of hwloc's recordings; None: none are at hand."""


@frozen
class Row:
    """One comparison."""

    name: str
    good: int
    total: int
    differences: tuple[str, ...] = ()
    exact: bool = True
    """Whether a difference is a defect: false where the reference holds what the source cannot say."""
    note: str = ""

    @property
    def machine(self) -> str:
        """What the row is about, without the stage or rule."""
        return self.name.partition("/")[0]

    @property
    def defect(self) -> bool:
        """Whether it has a difference that is one."""
        return self.exact and self.good != self.total


@frozen
class Section:
    """A named group of comparisons."""

    name: str
    text: str
    rows: tuple[Row, ...]

    @property
    def good(self) -> int:
        return sum(row.good for row in self.rows)

    @property
    def total(self) -> int:
        return sum(row.total for row in self.rows)

    @property
    def whole(self) -> int:
        """How many rows have no difference."""
        return sum(row.good == row.total for row in self.rows)

    @property
    def defects(self) -> int:
        """How many rows have a difference that is a defect."""
        return sum(row.defect for row in self.rows)


Maker = Callable[[Options], Iterator[Row]]
