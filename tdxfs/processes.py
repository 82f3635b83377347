"""Looking at the processes of the running system: the only place where the emulated machine reads real files."""

from __future__ import annotations

from tdxfs.model import Machine
from tdxfs.procfs.task import held
from tdxfs.tasks import account, exited, processes, tell


def read(path: str) -> str:
    """The text of a file below /proc; OSError if the process is gone or somebody else's."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def look(machine: Machine) -> Machine:
    """
    The machine after a look at the memory that each of its processes holds. Reads two files per process, and the
    kernel walks its page tables for one of them. A process that is gone is no task any more.
    """
    found: dict[int, dict[int, int]] = {}
    for pid in processes(machine):
        try:
            maps, numa_maps = read(f"/proc/{pid}/maps"), read(f"/proc/{pid}/numa_maps")
        except (FileNotFoundError, ProcessLookupError):
            machine = tell(machine, exited(pid))
        except OSError:  # somebody else's
            found[pid] = {}
        else:
            found[pid] = held(machine, machine.tasks[pid], numa_maps, maps)
    return account(machine, found)
