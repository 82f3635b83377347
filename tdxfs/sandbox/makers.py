"""Which thread made another thread or a process: those have the policy and the CPUs that their maker had.

The kernel tells nobody. libc keeps the head of a thread's list of robust mutexes in the block that its maker gave it
as its TLS, and tells the kernel both; a forked child goes on with the very list of its maker; and whoever spawned a
program sleeps until that has begun.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from tdxfs.errors import Refusal
from tdxfs.model import PAGE_SIZE, Task
from tdxfs.sandbox import seccomp
from tdxfs.sandbox.memory import Processes

_CLONE_ARGS = struct.Struct("=Q48xQ")
"""``struct clone_args``: flags, and TLS."""
_WITHIN = PAGE_SIZE
"""How far behind the TLS the head of the list is at most: both are in glibc's ``struct pthread``."""
_MAKING = ("vfork", "clone", "clone3")
"""Calls in which the maker of a process sleeps until its child runs another program."""


class Makers:
    """What is known of who made whom, in the processes of one run."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._making: dict[int, dict[int, Task]] = {}
        """Process -> TLS of a thread that is being made -> its maker, as it was then."""
        self._lists: dict[int, dict[int, int]] = {}
        """Process -> head of a list of robust mutexes -> the thread whose it is."""
        self._calls = frozenset(str(seccomp.number(name)) for name in _MAKING)

    def tls_of(self, tid: int, arguments: int) -> int | None:
        """The TLS of the thread that a call of clone3 makes; None: it makes a process."""
        flags, tls = _CLONE_ARGS.unpack(self.processes.read(tid, arguments, _CLONE_ARGS.size))
        return int(tls) if flags & seccomp.CLONE_THREAD else None

    def makes(self, pid: int, maker: Task, tls: int) -> None:
        """A thread of a process is about to make another one."""
        self._making.setdefault(pid, {})[tls] = maker

    def of_thread(self, pid: int, tid: int, robust_list: int) -> Task | None:
        """The maker of a thread of `pid` that has begun; None: nobody knows, or it is the first."""
        self._lists.setdefault(pid, {})[robust_list] = tid
        making = self._making.get(pid, {})
        for tls in making:
            if tls <= robust_list < tls + _WITHIN:
                return making.pop(tls)
        return None

    def of_process(self, parent: int, threads: Iterable[int], robust_list: int) -> int:
        """
        Which of its parent's `threads` made a process that has begun with this list, or runs a program (0); 0: none.
        """
        if robust_list:
            maker = self._lists.get(parent, {}).get(robust_list, 0)
            return maker if maker in threads else 0
        return next((tid for tid in threads if self._sleeps(parent, tid)), 0)

    def _sleeps(self, pid: int, tid: int) -> bool:
        try:
            return self.processes.read_file(pid, f"task/{tid}/syscall").partition(" ")[0] in self._calls
        except Refusal:
            return False

    def ended(self, pid: int, tid: int) -> None:
        """A thread of a process is gone."""
        lists = self._lists.get(pid, {})
        for head in [head for head, thread in lists.items() if thread == tid]:
            del lists[head]

    def gone(self, pid: int) -> None:
        """A process is gone."""
        self._making.pop(pid, None)
        self._lists.pop(pid, None)
