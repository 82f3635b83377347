"""Looking at the processes of the running system: the only place where the emulated machine reads real files."""

from __future__ import annotations

import os
from functools import partial

from tdxfs.model import PAGE_SIZE, Machine
from tdxfs.procfs.task import anonymous, held
from tdxfs.tasks import Held, Processes, account, exited, tell


def read(path: str, proc: int | None = None) -> str:
    """
    The text of a file below /proc, by its whole path or by that from a descriptor of /proc; OSError if the process is
    gone or somebody else's.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        data = b"".join(iter(lambda: os.read(handle, PAGE_SIZE), b""))  # /proc gives a page at most at a time
    finally:
        os.close(handle)
    return data.decode("utf-8", "surrogateescape")


def look(machine: Machine) -> Machine:
    """
    The machine after a look at the memory that each of its processes holds: one short file per process, and two
    long ones, for which the kernel walks its page tables, if mappings have policies of their own. A process that
    is gone is no task any more.
    """
    found: dict[int, Held] = {}
    for pid in Processes(machine):
        try:
            found[pid] = held(machine, machine.tasks[pid], anonymous(_file(pid, "statm")), partial(_file, pid))
        except (FileNotFoundError, ProcessLookupError):
            machine = tell(machine, exited(pid))
        except PermissionError:  # somebody else's
            found[pid] = Held()
    return account(machine, found)


def _file(pid: int, name: str) -> str:
    return read(f"/proc/{pid}/{name}")
