"""What a process that calls an ioctl has in its address space: read from ``/proc``, nothing emulated.

Its memory may be a file of the very mount whose server asks, and its address space may be locked by a fault
that waits for that server. So everything here happens in a thread of its own, and the server waits for a
second at most: whoever asks gets an answer or `BadAddress`.
"""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from attrs import evolve, frozen

from tdxfs.errors import BadAddress
from tdxfs.model import PAGE_SIZE, Backs, Stretch
from tdxfs.ranges import Range, Ranges

T = TypeVar("T")
PATIENCE = 1.0
"""Seconds."""
RESIDENT_RUNS = 64
"""How many runs of resident pages are told; what comes after them counts as not allocated."""
RESIDENT_WINDOW = 32 << 30
"""Bytes of a mapping whose residency is looked at."""
_MAPS_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) ([0-9]+) *(.*)")
_PRESENT = 1 << 63 | 1 << 62
"""Bits of a pagemap entry: in memory, or swapped out."""


@frozen
class Mapped:
    """One line of ``/proc/PID/maps``."""

    range: Range
    shared: bool
    offset: int
    device: str
    """``major:minor`` in hexadecimal."""
    inode: int
    path: str

    @property
    def file(self) -> str:
        """``DEVICE:INODE``, which no other file has."""
        return f"{self.device}:{self.inode}"


@frozen
class Device:
    """A file of the mount that is memory."""

    kind: Backs
    object: str
    align: int
    """Bytes: what a mapping of it must be a multiple of."""


@frozen
class Devices:
    """The mount, as ``/proc/PID/maps`` names it."""

    device: str
    inodes: Mapping[int, Device]


@frozen
class Caller:
    """A thread that called an ioctl, by its id in this process's pid namespace; 0 is one of another namespace."""

    tid: int

    def process(self) -> tuple[int, str]:
        """Id of its process and its command line, quoted for a shell."""
        return self._asked(self._process)

    def backing(self, address: int, size: int, devices: Devices) -> tuple[Stretch, ...]:
        """What is behind an area of its address space."""
        return self._asked(lambda: tuple(_stretches(self._maps(), address, size, devices, self._tmpfs())))

    def resident(self, address: int, backing: Iterable[Stretch]) -> Ranges:
        """Offsets of the pages of shared memory and page cache, among `backing`, that it has touched."""
        return self._asked(lambda: Ranges.of(self._resident(address, backing)))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory."""
        return self._asked(lambda: self._copy(os.O_RDONLY, lambda memory: os.pread(memory, size, address), size))

    def write(self, address: int, data: bytes) -> None:
        """Change bytes of its memory."""
        self._asked(lambda: self._copy(os.O_RDWR, lambda memory: data[: os.pwrite(memory, data, address)], len(data)))

    def file(self, descriptor: int) -> str | None:
        """What it has open under that number, as `Mapped.file`; None: nothing."""
        return self._asked(lambda: self._file(descriptor))

    def _asked(self, question: Callable[[], T]) -> T:
        if self.tid <= 0:
            raise BadAddress("the caller is in another pid namespace")
        answers: list[T] = []
        failures: list[Exception] = []

        def ask() -> None:
            try:
                answers.append(question())
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if answers:
            return answers[0]
        if failures and not isinstance(failures[0], (OSError, OverflowError)):
            raise failures[0]
        raise BadAddress(f"process {self.tid}: {failures[0] if failures else 'its memory does not answer'}")

    def _process(self) -> tuple[int, str]:
        status = Path(f"/proc/{self.tid}/status").read_text(errors="surrogateescape")
        tgid = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Tgid:"))
        words = Path(f"/proc/{self.tid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        return tgid, " ".join(shlex.join(words[:-1]).split())

    def _file(self, descriptor: int) -> str | None:
        try:
            return file_name(os.stat(f"/proc/{self.tid}/fd/{descriptor}"))
        except FileNotFoundError:
            return None

    def _maps(self) -> list[Mapped]:
        return parse_maps(Path(f"/proc/{self.tid}/maps").read_text(errors="surrogateescape"))

    def _tmpfs(self) -> frozenset[str]:
        # devices of other mounts than tmpfs; that of memfd and of shared anonymous memory is no mount
        found = set()
        for line in Path(f"/proc/{self.tid}/mountinfo").read_text(errors="surrogateescape").splitlines():
            left, _, right = line.partition(" - ")
            if right.split()[0] != "tmpfs":
                found.add(maps_device(left.split()[2]))
        return frozenset(found)

    def _resident(self, address: int, backing: Iterable[Stretch]) -> list[Range]:
        runs: list[Range] = []
        with open(f"/proc/{self.tid}/pagemap", "rb", buffering=0) as pagemap:
            for stretch in backing:
                if stretch.kind not in (Backs.SHMEM, Backs.PAGECACHE):
                    continue
                stop = min(stretch.range.end, stretch.range.start + RESIDENT_WINDOW)
                for at in range(stretch.range.start, stop, 1 << 29):
                    size = min(1 << 29, stop - at) // PAGE_SIZE * 8
                    pagemap.seek((address + at) // PAGE_SIZE * 8)
                    chunk = pagemap.read(size)
                    if chunk.count(0) != len(chunk):
                        runs += _present(at, memoryview(chunk).cast("Q"))
                    if len(runs) > RESIDENT_RUNS:
                        return runs[:RESIDENT_RUNS]
        return runs

    def _copy(self, flags: int, copy: Callable[[int], bytes], size: int) -> bytes:
        memory = os.open(f"/proc/{self.tid}/mem", flags)
        try:
            done = copy(memory)
        finally:
            os.close(memory)
        if len(done) != size:
            raise BadAddress("the memory ends there")
        return done


def _present(offset: int, entries: memoryview[int]) -> list[Range]:
    runs: list[Range] = []
    for number, entry in enumerate(entries):
        if entry & _PRESENT:
            at = offset + number * PAGE_SIZE
            if runs and runs[-1].end == at:
                runs[-1] = Range(runs[-1].start, at + PAGE_SIZE)
            else:
                runs.append(Range(at, at + PAGE_SIZE))
    return runs


def parse_maps(text: str) -> list[Mapped]:
    """The lines of ``/proc/PID/maps``."""
    found = []
    for line in text.splitlines():
        match = _MAPS_LINE.fullmatch(line)
        if match is not None:
            start, end, perms, offset, device, inode, path = match.groups()
            area = Range(int(start, 16), int(end, 16))
            found.append(Mapped(area, perms[3] == "s", int(offset, 16), device, int(inode), path))
    return found


def file_name(status: os.stat_result) -> str:
    """The same as `Mapped.file`, by what stat(2) says of the file."""
    device = maps_device(f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}")
    return f"{device}:{status.st_ino}"


def maps_device(number: str) -> str:
    """``0:52`` of mountinfo as ``/proc/PID/maps`` prints it: ``00:34``."""
    major, minor = map(int, number.split(":"))
    return f"{major:02x}:{minor:02x}"


def mount_device(mountpoint: str) -> str:
    """The device number of what is mounted at an absolute path, as ``/proc/PID/maps`` prints it; empty: nothing."""
    found = ""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split()
        if fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape") == mountpoint:
            found = maps_device(fields[2])
    return found


def _stretches(
    maps: Iterable[Mapped], address: int, size: int, devices: Devices, other: frozenset[str]
) -> list[Stretch]:
    found: list[Stretch] = []
    for one in maps:
        start, end = max(one.range.start, address), min(one.range.end, address + size)
        if start >= end:
            continue
        stretch = _stretch(one, Range(start - address, end - address), start, devices, other)
        if stretch is None:
            continue
        last = found[-1] if found else None
        if last is not None and stretch == _following(last, stretch.range):
            found[-1] = evolve(last, range=Range(last.range.start, stretch.range.end))
        else:
            found.append(stretch)
    return found


def _following(stretch: Stretch, area: Range) -> Stretch | None:
    if stretch.range.end != area.start:
        return None
    offset = stretch.offset + stretch.range.size if stretch.kind.of_a_device else stretch.offset
    return evolve(stretch, range=area, offset=offset)


def _stretch(one: Mapped, area: Range, start: int, devices: Devices, other: frozenset[str]) -> Stretch | None:
    if one.device == devices.device and one.inode in devices.inodes:
        device = devices.inodes[one.inode]
        # device-DAX maps MAP_SHARED and whole multiples of its alignment only (drivers/dax/device.c)
        fits = not (one.range.start | one.range.end | one.offset) % device.align
        if not one.shared or not fits:
            return None
        return Stretch(area, device.kind, device.object, one.offset + start - one.range.start, one.path)
    if not one.inode:
        usable = not one.path or one.path in ("[heap]", "[stack]") or one.path.startswith("[anon:")
        return Stretch(area, Backs.ANON) if usable else None
    return Stretch(area, Backs.PAGECACHE if one.device in other else Backs.SHMEM)
