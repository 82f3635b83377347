"""
What munmap(2), mremap(2) and mmap(2) with MAP_FIXED do to the policies of mappings, which belong to the mapping, not to
its addresses.

Not watched: mmap(2) with MAP_DENYWRITE, which means nothing to Linux, and with which the dynamic loader maps libraries;
shmat(2) with SHM_REMAP, and brk(2). What mremap(2) has to move to wherever there is room comes there without a policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from tdxfs import mempolicy, tasks
from tdxfs.model import PAGE_SIZE, Task
from tdxfs.ranges import Range, align_up
from tdxfs.sandbox.calls import Calls

MREMAP_FIXED, MREMAP_DONTUNMAP = 2, 4
MAP_FIXED_NOREPLACE = 0x100000


class Remapping:
    """The mappings of the processes of one run that are unmapped, resized and moved."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def munmap(self, tid: int, start: int, length: int, *_: int) -> None:
        task = self._task(tid)
        if task is not None and start % PAGE_SIZE == 0 and length:
            self._forget(task.pid, start, start + align_up(length, PAGE_SIZE))

    def mmap(self, tid: int, start: int, length: int, _protection: int, flags: int, *_: int) -> None:
        """With MAP_FIXED: what is there is unmapped first."""
        if not flags & MAP_FIXED_NOREPLACE:
            self.munmap(tid, start, length)

    def mremap(self, tid: int, start: int, length: int, wanted: int, flags: int, target: int, *_: int) -> None:
        task = self._task(tid)
        if task is None or start % PAGE_SIZE or not wanted:
            return
        length, wanted = align_up(length, PAGE_SIZE), align_up(wanted, PAGE_SIZE)
        end = start + length
        if not flags & MREMAP_FIXED:
            more = Range(end, start + wanted) if wanted > length else None
            fits = more is None or not any(self.calls.processes.mappings(task.pid).within(more))
            target = start if fits else 0
        kept = start + min(length, wanted)
        policies, moved = list(task.mappings.within(start, kept)), list(task.moved.within(start, kept))
        if target != start:
            if not flags & MREMAP_DONTUNMAP:
                self._forget(task.pid, start, end)
            self._forget(task.pid, target, target + wanted)
        elif wanted < length:
            self._forget(task.pid, start + wanted, end)
        if not target:
            return
        for low, high, policy in policies:
            last = target + wanted if high == end < start + wanted else high - start + target
            if (low, high) != (low - start + target, last):
                self.calls.tell(tasks.mapping_set(task.pid, Range(low - start + target, last), policy))
        if target != start:
            for low, high, node in moved:
                self.calls.tell(tasks.pages_moved(task.pid, Range(low - start + target, high - start + target), node))

    WATCHERS: ClassVar[dict[str, Callable[..., None]]] = {
        "munmap": munmap,
        "mmap": mmap,
        "mremap": mremap,
    }
    """Call that is watched -> what is done about it before the kernel does it."""

    def _task(self, tid: int) -> Task | None:
        # the process of a thread, if any of its mappings has a policy or pages that were moved
        task = self.calls.tasks.get(self.calls.leaders.get(tid, 0))
        return task if task is not None and (task.mappings or task.moved) else None

    def _forget(self, pid: int, start: int, end: int) -> None:
        task = self.calls.tasks[pid]
        if any(task.mappings.within(start, end)) or any(task.moved.within(start, end)):
            self.calls.tell(tasks.mapping_set(pid, Range(start, end), mempolicy.DEFAULT))
