"""Looking at the processes of the running system: the only place where the emulated machine reads real files."""

from __future__ import annotations

from functools import partial

from tdxfs.model import Machine
from tdxfs.procfs.task import held
from tdxfs.tasks import Held, Processes, account, exited, tell


def read(path: str) -> str:
    """The text of a file below /proc; OSError if the process is gone or somebody else's."""
    return _bytes(path).decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def look(machine: Machine) -> Machine:
    """
    The machine after a look at the memory that each of its processes holds: one short file per process, and two
    long ones, for which the kernel walks its page tables, if mappings have policies of their own. A process that
    is gone is no task any more.
    """
    found: dict[int, Held] = {}
    for pid in Processes(machine):
        try:
            _, resident, shared, *_ = map(int, _bytes(f"/proc/{pid}/statm").split())
            found[pid] = held(machine, machine.tasks[pid], resident - shared, partial(_file, pid))
        except (FileNotFoundError, ProcessLookupError):
            machine = tell(machine, exited(pid))
        except PermissionError:  # somebody else's
            found[pid] = Held()
    return account(machine, found)


def _file(pid: int, name: str) -> str:
    return read(f"/proc/{pid}/{name}")
