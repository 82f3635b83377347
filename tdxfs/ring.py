"""A sequence that keeps the newest of what was appended, and of which many versions can live at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar, overload

from attrs import frozen
from immutables import Map

T = TypeVar("T")


@frozen
class Ring(Sequence[T], Generic[T]):
    """At most `size` items. Appending costs the same however many there are: versions share what they both have."""

    size: int
    _items: Map[int, T] = Map()
    end: int = 0
    """The number of the next item; they are numbered from 0 on, also those that are no longer kept."""

    @property
    def first(self) -> int:
        """The number of the oldest item that is kept."""
        return self.end - len(self._items)

    def extended(self, items: Iterable[T]) -> Ring[T]:
        """The ring with more items; the oldest go."""
        kept, end = self._items.mutate(), self.end
        for item in items:
            kept[end] = item
            end += 1
            if end > self.size:
                kept.pop(end - 1 - self.size, None)
        return Ring(self.size, kept.finish(), end)

    def since(self, number: int) -> list[T]:
        """The items with this number and higher ones."""
        return [self._items[number] for number in range(max(number, self.first), self.end)]

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        numbers = range(self.first, self.end)[index]
        return self._items[numbers] if isinstance(numbers, int) else [self._items[number] for number in numbers]
