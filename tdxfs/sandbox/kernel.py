"""The emulated kernel as a supervisor sees it: the files of the mount that it answers from.

Files that are read again and again are kept open: a read at offset 0 shows them anew.
"""

from __future__ import annotations

import os
from contextlib import suppress

from tdxfs.guestctl import CONTROL
from tdxfs.idlist import parse_list
from tdxfs.model import KERNELS

NODES, CPUS, DEBUG = "sys/devices/system/node", "sys/devices/system/cpu", "sys/kernel/debug/tdxfs"
WEIGHTS = "sys/kernel/mm/mempolicy/weighted_interleave"
_LONGEST = 1 << 16


class Kernel:
    """A mounted machine, by a descriptor of its root."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._open: dict[str, int] = {}
        self.listens = True
        """Whether it wants to know of its tasks."""
        try:
            self.kernel = self.read(f"{DEBUG}/kernel").strip()
        except FileNotFoundError:  # --abi kernel
            self.kernel, self.listens = KERNELS[-1], False
        self.has_nodes = os.path.isdir(self._path(NODES))
        """Whether it knows of NUMA nodes (CONFIG_NUMA)."""
        self._sampled = f"{NODES}/node{min(self.online)}/numastat"
        self.nr_node_ids = max(self._list(NODES, "possible")) + 1
        self.cpus_possible = self._list(CPUS, "possible")
        self.nr_cpu_ids = max(self.cpus_possible, default=0) + 1

    def read(self, path: str) -> str:
        """A file below the root, whole; OSError."""
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.root)
        return os.pread(self._open[path], _LONGEST, 0).decode()

    def _path(self, directory: str) -> str:
        return f"/proc/self/fd/{self.root}/{directory}"

    def _list(self, directory: str, name: str) -> frozenset[int]:
        try:
            return parse_list(self.read(f"{directory}/{name}"))
        except FileNotFoundError:
            # imported from an old kernel, which shows directories only, or from one that knows of no nodes
            return self._numbered(directory) or frozenset((0,))

    def _numbered(self, directory: str) -> frozenset[int]:
        # of nodeN or cpuN in the directory that is called node or cpu
        kind = directory.rpartition("/")[2]
        path = self._path(directory)
        names = os.listdir(path) if os.path.isdir(path) else []
        numbers = (name.removeprefix(kind) for name in names if name.startswith(kind))
        return frozenset(int(number) for number in numbers if number.isdecimal())

    @property
    def memory(self) -> frozenset[int]:
        """Nodes with memory online."""
        return self._list(NODES, "has_memory")

    @property
    def cpus(self) -> frozenset[int]:
        """CPUs online."""
        return self._list(CPUS, "online")

    @property
    def online(self) -> frozenset[int]:
        """Nodes online."""
        return self._list(NODES, "online")

    def zonelists(self) -> dict[int, tuple[int, ...]]:
        """Online node -> nodes with memory in the order of its allocations; that of their numbers if nobody says."""
        try:
            text = self.read(f"{DEBUG}/zonelists")
        except FileNotFoundError:
            return {}
        rows = (line.partition(":") for line in text.splitlines())
        return {int(nid): tuple(map(int, order.split())) for nid, _, order in rows}

    def weight(self, nid: int) -> int:
        """Weight of a node under weighted interleave: 1 where the kernel has none."""
        try:
            with open(f"{self._path(WEIGHTS)}/node{nid}", encoding="ascii") as file:
                return int(file.read())
        except FileNotFoundError:
            return 1

    def node_of_cpu(self, cpu: int) -> int:
        """The node of a CPU."""
        for name in os.listdir(self._path(f"{CPUS}/cpu{cpu}")):
            if name.startswith("node") and name[4:].isdecimal():
                return int(name[4:])
        return 0

    def look(self) -> None:
        """Let the machine look at the memory that its tasks hold."""
        with suppress(FileNotFoundError):  # there are no such counters on some machines that were imported
            self.read(self._sampled)

    def tell(self, line: str) -> None:
        """Tell the machine how a task changed; OSError with the errno of what it refuses."""
        self._write(f"{DEBUG}/task_control/change", line)

    def tell_guest(self, line: str) -> None:
        """Tell the machine of an event in the life of a guest; OSError with the errno of what it refuses."""
        self._write(CONTROL.lstrip("/"), line)

    def _write(self, path: str, line: str) -> None:
        if not self.listens:
            return
        if path not in self._open:
            self._open[path] = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.root)
        os.write(self._open[path], line.encode("utf-8", "surrogateescape"))
