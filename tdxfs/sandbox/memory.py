"""The memory and the records of a supervised thread, through a /proc that nothing is mounted over."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tdxfs.caller import Mapped, file_name, parse_maps
from tdxfs.errors import BadAddress, BadDescriptor, NoProcess
from tdxfs.model import PAGE_SIZE
from tdxfs.processes import read
from tdxfs.procfs.task import anonymous
from tdxfs.ranges import Range, Ranges, align_down

CAP_SYS_NICE = 23
_PRESENT, _SWAPPED = 1 << 63, 1 << 62
_PAGEMAP_READ = 8192
"""Entries of pagemap that are read at once."""


class Processes:
    """
    The running system's processes, by a descriptor of its /proc. `waits` tells whether the thread whose call is being
    answered still waits; while it does, its number is not another's.
    """

    def __init__(self, proc: int, waits: Callable[[], bool] = lambda: True) -> None:
        self.proc = proc
        self.waits = waits

    def read_file(self, pid: int, name: str) -> str:
        """``/proc/PID/NAME``; NoProcess if there is none."""
        try:
            return read(f"{pid}/{name}", self.proc)
        except (FileNotFoundError, ProcessLookupError):
            raise NoProcess(f"process {pid}") from None

    def leader(self, tid: int) -> int:
        """The process of a thread."""
        return int(self.field(tid, "Tgid"))

    def origin(self, pid: int) -> tuple[str, int]:
        """Name of a process, and its parent."""
        head, _, tail = self.read_file(pid, "stat").rpartition(") ")
        return head.partition(" (")[2], int(tail.split(" ", 2)[1])

    def anonymous(self, pid: int) -> int:
        """Pages of anonymous memory that a process holds."""
        return anonymous(self.read_file(pid, "statm"))

    def field(self, pid: int, name: str) -> str:
        """A line of ``/proc/PID/status``."""
        start = f"{name}:\t"
        for line in self.read_file(pid, "status").split("\n"):
            if line.startswith(start):
                return line.removeprefix(start)
        raise NoProcess(f"process {pid} has no {name}")

    def is_privileged(self, tid: int) -> bool:
        """Whether a thread has CAP_SYS_NICE."""
        return bool(int(self.field(tid, "CapEff"), 16) >> CAP_SYS_NICE & 1)

    def mappings(self, pid: int) -> Ranges:
        """The addresses at which anything is mapped."""
        return Ranges.of(one.range for one in self.maps(pid))

    def maps(self, pid: int) -> list[Mapped]:
        """What is mapped."""
        return parse_maps(self.read_file(pid, "maps"))

    def file(self, pid: int, descriptor: int) -> str:
        """What a process has open under a number, as `Mapped.file`; BadDescriptor."""
        try:
            return file_name(os.stat(f"{pid}/fd/{descriptor}", dir_fd=self.proc))
        except OSError:
            raise BadDescriptor(f"descriptor {descriptor}") from None

    def opened(self, tid: int, descriptor: int) -> str:
        """The path of what a thread has open under a number, as the kernel last knew it; BadDescriptor."""
        try:
            return os.readlink(f"{tid}/fd/{descriptor}", dir_fd=self.proc).removesuffix(" (deleted)")
        except OSError:
            raise BadDescriptor(f"descriptor {descriptor}") from None

    def resident(self, pid: int, where: Range) -> Iterator[int]:
        """The addresses in a range at which there is a page."""
        try:
            pagemap = os.open(f"{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        except OSError:
            raise NoProcess(f"process {pid}") from None
        try:
            for start in range(align_down(where.start, PAGE_SIZE), where.end, _PAGEMAP_READ * PAGE_SIZE):
                size = min(_PAGEMAP_READ, -(-(where.end - start) // PAGE_SIZE)) * 8
                data = os.pread(pagemap, size, start // PAGE_SIZE * 8)
                for index, (entry,) in enumerate(struct.iter_unpack("=Q", data)):
                    if entry & (_PRESENT | _SWAPPED):
                        yield start + index * PAGE_SIZE
        finally:
            os.close(pagemap)

    def read(self, tid: int, address: int, size: int) -> bytes:
        """Bytes of a thread's memory; BadAddress if they are not all there."""
        if not size:
            return b""
        with self._memory(tid, os.O_RDONLY, address) as handle:
            data = os.pread(handle, size, address)
        if len(data) != size:
            raise BadAddress(hex(address))
        return data

    def write(self, tid: int, address: int, data: bytes) -> None:
        """Put bytes into a thread's memory; BadAddress if not all can be there."""
        with self._memory(tid, os.O_WRONLY, address) as handle:
            done = os.pwrite(handle, data, address)
        if done != len(data):
            raise BadAddress(hex(address))

    @contextmanager
    def _memory(self, tid: int, flags: int, address: int) -> Iterator[int]:
        # a thread's memory, open; what fails with it fails at `address`
        try:
            handle = os.open(f"{tid}/mem", flags | os.O_CLOEXEC, dir_fd=self.proc)
        except OSError:
            raise NoProcess(f"thread {tid}") from None
        try:
            if not self.waits():
                raise NoProcess(f"thread {tid}")
            yield handle
        except NoProcess:
            raise
        except (OSError, OverflowError):
            raise BadAddress(hex(address)) from None
        finally:
            os.close(handle)

    def string(self, tid: int, address: int) -> str:
        """A C string of at most a page in a thread's memory."""
        data = b""
        while len(data) < PAGE_SIZE and b"\0" not in data:
            here = address + len(data)
            data += self.read(tid, here, PAGE_SIZE - here % PAGE_SIZE)
        return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
