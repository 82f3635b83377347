"""The processes and threads of a run: how they come, whom they inherit from, and how they end.

A process is known from its first call that is seen: the exec of a program, or the one by which libc begins in a
new process or thread. From then on its `OVER` files below /proc are the machine's, and of the files of its threads
the status of the first: the others would cost each exec, or each thread, a mount more. When it ends it is looked at
once more, so that what it allocated counts.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from tdxfs import tasks
from tdxfs.errors import NoProcess
from tdxfs.sandbox import linux
from tdxfs.sandbox.calls import Calls, signed
from tdxfs.sandbox.makers import Makers

OVER = ("status", "stat", "numa_maps")
"""Files of every process that are the machine's."""
AT_EMPTY_PATH, AT_EXECVE_CHECK = 0x1000, 0x10000


class Followed:
    """The processes of one run. `poll` tells when one that is watched is gone, by its pidfd."""

    def __init__(self, calls: Calls, root: int, poll: select.epoll) -> None:
        self.calls = calls
        self.proc = os.open("proc", os.O_PATH | os.O_DIRECTORY, dir_fd=root)
        self.poll = poll
        self.makers = Makers(calls.processes)
        self.processes: dict[int, int] = {}
        """Pid -> its pidfd."""
        self.pids: dict[int, int] = {}
        """Pidfd -> its process."""
        self.unsure: set[int] = set()
        """Processes that run what they had open, by a name that is a guess until they make their next call."""

    def process(self, tid: int, program: str = "", robust_list: int = 0) -> int:
        """
        The process of a thread. With its first call, which may be the exec of `program`, it becomes a task of the
        machine.
        """
        pid = self.calls.leaders.get(tid)
        if pid in self.processes:
            if pid in self.unsure:
                self._ask_name(pid)
            return pid
        try:
            pidfd, pid = os.pidfd_open(tid), tid  # refused for other threads than a process's first
        except OSError:
            pid = self.calls.leader(tid)
            if pid in self.processes:
                return pid
            pidfd = os.pidfd_open(pid)
        if not self.calls.processes.waits():
            os.close(pidfd)
            raise NoProcess(f"thread {tid}")
        name, parent = self.calls.processes.origin(pid)
        self.processes[pid], self.pids[pidfd] = pidfd, pid
        self.poll.register(pidfd, select.EPOLLIN)
        self.calls.leaders[tid] = self.calls.leaders[pid] = pid
        different = self.calls.different(parent)
        maker = self.makers.of_process(parent, different, robust_list) if different else 0
        change = tasks.executed(pid, maker or parent, program) if program else tasks.forked(pid, maker or parent, name)
        self.calls.tell(change)
        self._lay_over(pid)
        return pid

    def _lay_over(self, pid: int) -> None:
        try:
            directory = os.open(str(pid), os.O_PATH | os.O_DIRECTORY, dir_fd=self.proc)
        except FileNotFoundError:  # --abi kernel
            return
        here = f"/proc/{pid}"
        # when the process is gone the kernel takes away what is mounted in its directory: at once if that is a mount
        binds = [(here, here), *((f"/proc/self/fd/{directory}/{file}", f"{here}/{file}") for file in OVER)]
        for source, target in (*binds, (f"{here}/status", f"{here}/task/{pid}/status")):
            with suppress(FileNotFoundError):  # a kernel without NUMA, or the process was killed
                linux.bind(source, target)
        os.close(directory)

    def _ask_name(self, pid: int) -> None:
        self.unsure.discard(pid)
        name, _ = self.calls.processes.origin(pid)
        task = self.calls.tasks.get(pid)
        if task is not None and task.name != name:
            self.calls.tell(tasks.executed(pid, 0, name))

    def execve(self, tid: int, path: int, *_: int) -> None:
        self._execute(tid, self.calls.processes.string(tid, path))

    def execveat(self, tid: int, directory: int, path: int, _argv: int, _envp: int, flags: int, *_: int) -> None:
        """
        The program may be what is open as `directory`. Its name is then that number, or on newer kernels that of the
        file, for a script of its interpreter (``begin_new_exec``).
        """
        name = self.calls.processes.string(tid, path)
        if flags & AT_EXECVE_CHECK or not (name or flags & AT_EMPTY_PATH):  # nothing is run
            return
        pid = self._execute(tid, name or self.calls.processes.opened(tid, signed(directory)))
        if not name:
            self.unsure.add(pid)

    def _execute(self, tid: int, path: str) -> int:
        name = tasks.program_name(path)
        known = self.calls.leaders.get(tid) in self.processes
        pid = self.process(tid, name)
        task = self.calls.tasks.get(pid)
        if known and task is not None:
            if task.name != name or task.mappings or task.moved or self.calls.threads.get(pid):
                self.calls.tell(tasks.executed(pid, 0, name))
            self._alone(pid)
        return pid

    def begin(self, tid: int, robust_list: int, *_: int) -> None:
        """A thread, a process's first or another, says where the list of its robust mutexes is."""
        if tid not in self.processes:
            self.calls.leaders.pop(tid, None)  # the number may have been another's
        pid = self.process(tid, robust_list=robust_list)
        maker = self.makers.of_thread(pid, tid, robust_list)
        if tid != pid:
            self.calls.began(tid, maker or self.calls.task(pid))

    def clone(self, tid: int, flags: int, stack: int, parent: int, child: int, tls: int, *_: int) -> None:
        """A thread makes another one of its process."""
        self.makers.makes(self.process(tid), self.calls.task(tid), tls)

    def clone3(self, tid: int, arguments: int, *_: int) -> None:
        """A thread makes another one, or a process."""
        tls = self.makers.tls_of(tid, arguments)
        if tls is not None:
            self.makers.makes(self.process(tid), self.calls.task(tid), tls)

    def exit_thread(self, tid: int, *_: int) -> None:
        """One thread ends; the first of a process stays until the last one has ended."""
        pid = self.calls.leaders.get(tid)
        if pid in self.processes and pid != tid:
            self.calls.ended(tid)
            self.makers.ended(pid, tid)
            del self.calls.leaders[tid]

    def exit_process(self, tid: int, *_: int) -> None:
        """A process ends: the last chance to see what it has allocated."""
        pid = self.calls.leaders.get(tid, 0)
        task = self.calls.tasks.get(pid)
        if task is None or pid not in self.processes:
            return
        if task.mappings or task.moved:
            self.calls.kernel.look()
            self.calls.tell(tasks.exited(pid))
        else:
            self.calls.tell(tasks.exited(pid, self.calls.processes.anonymous(pid)))

    WATCHERS: ClassVar[dict[str, Callable[..., None]]] = {
        "execve": execve,
        "execveat": execveat,
        "set_robust_list": begin,
        "clone": clone,
        "clone3": clone3,
        "exit": exit_thread,
        "exit_group": exit_process,
    }
    """Call that is watched -> what is done about it before the kernel does it."""

    def gone(self, pidfd: int) -> None:
        """A process is gone, however it ended."""
        pid = self.pids.pop(pidfd)
        del self.processes[pid]
        self.unsure.discard(pid)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        self._alone(pid)
        for tid in [tid for tid, leader in self.calls.leaders.items() if leader == pid]:
            del self.calls.leaders[tid]
        if pid in self.calls.tasks:  # killed; or a thread made a call while another ended it
            with suppress(OSError):  # the server is gone as well
                self.calls.tell(tasks.exited(pid))

    def _alone(self, pid: int) -> None:
        # it has no other threads any more: it runs another program, or is gone
        self.makers.gone(pid)
        self.calls.alone(pid)
