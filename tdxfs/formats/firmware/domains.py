"""Proximity domains and the nodes that Linux makes of them; compare drivers/acpi/numa/srat.c."""

from __future__ import annotations

from collections.abc import Iterator

from tdxfs.formats.firmware.facts import Firmware
from tdxfs.nodes import LOCAL_DISTANCE, REMOTE_DISTANCE
from tdxfs.ranges import Ranges


class Domains:
    """Proximity domains and the nodes that Linux makes of them, in the order in which it meets them."""

    def __init__(self, firmware: Firmware, kernel: str) -> None:
        self._nodes: dict[int, int] = {}
        for domain in (*firmware.processor_domains.values(), *firmware.initiators):
            self._meet(domain)
        for affinity in firmware.memory:
            self._meet(affinity.domain)
        if not self._nodes:
            self._meet(0)
        self.described = frozenset(self._nodes.values())
        """The nodes that SRAT describes."""
        self.windows = frozenset(self._window_nodes(firmware))
        """Nodes that only a CXL window brings."""
        self._ranges = [(affinity.range, self._nodes[affinity.domain]) for affinity in firmware.memory]

    def _meet(self, domain: int) -> int:
        return self._nodes.setdefault(domain, len(self._nodes))

    def _window_nodes(self, firmware: Firmware) -> Iterator[int]:
        covered = Ranges.of(affinity.range for affinity in firmware.memory)
        for window in firmware.windows:
            if not any(covered.within(window)):
                yield self._meet(max(self._nodes) + 1)

    def node(self, domain: int) -> int:
        """The node of a domain; that of a domain which nothing described is 0."""
        return self._nodes.get(domain, 0)

    def domain(self, node: int) -> int:
        return next(domain for domain, nid in self._nodes.items() if nid == node)

    def at(self, address: int) -> int | None:
        """phys_to_target_node(): the node whose SRAT range holds an address."""
        return next((nid for where, nid in self._ranges if address in where), None)

    def matrix(self, firmware: Firmware) -> tuple[tuple[int, ...], ...]:
        """Distances between the described nodes; empty without SLIT."""
        if not firmware.distances:
            return ()
        count = len(firmware.distances)
        order = [self.domain(nid) for nid in sorted(self.described)]
        return tuple(
            tuple(
                firmware.distances[a][b] if a < count and b < count else (LOCAL_DISTANCE if a == b else REMOTE_DISTANCE)
                for b in order
            )
            for a in order
        )
