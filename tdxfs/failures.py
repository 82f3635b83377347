"""What the faults in force (`faults`) do to the accesses of a mount."""

from __future__ import annotations

import os
import time

from tdxfs.faults import Fault, Faults
from tdxfs.sysfs.debug import FAULTS_PATH


class Failures:
    """The faults of the machine that is mounted."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._faults = Faults(faults)

    def meet(self, access: str, path: str) -> int | None:
        """
        Go wrong as an access of a path should: OSError, a delay, or how many bytes a read gives at most. The file
        that faults are written to has none.
        """
        short = None
        where = path[1:]
        for fault in self._faults.due(access, where) if where != FAULTS_PATH else ():
            time.sleep(fault.delay)
            if fault.errno:
                raise OSError(fault.errno, os.strerror(fault.errno))
            short = fault.short if short is None else short
        return short

    def vanishing(self, paths: list[str]) -> list[str]:
        """Those of the paths in a listing that are gone until the next one."""
        return [path for path in paths if self._faults.vanishes(path[1:])]


def in_force(faults: tuple[Fault, ...]) -> Failures | None:
    """What the faults of a machine do; None: nothing."""
    return Failures(faults) if faults else None
