"""``/proc``: the files that say what the machine is made of."""

from __future__ import annotations

import stat
from collections.abc import Collection
from typing import Any

from tdxfs import delta
from tdxfs.procfs.cpuinfo import cpuinfo
from tdxfs.procfs.iomem import iomem
from tdxfs.procfs.meminfo import meminfo
from tdxfs.procfs.task import PidDir
from tdxfs.procfs.zoneinfo import zoneinfo
from tdxfs.sysfs.attribute import ALL_TIERS, Directory, Tier, directories, ro
from tdxfs.sysfs.codec import LINE, TEXT
from tdxfs.tasks import Processes


class ProcRoot(Directory[Any]):
    """Files of procfs; like procfs they have size 0."""

    WHAT = "/proc"
    OF_TASKS = True
    FOLLOWS = staticmethod(delta.topology)
    MODE = stat.S_IFDIR | 0o555

    def nlink(self, tiers: Collection[Tier] = ALL_TIERS) -> int:
        """2: its processes, which come and go all the time, do not count."""
        return 2

    @ro(LINE, size=0)
    def cmdline(self) -> str:
        """The kernel command line."""
        return self.machine.topology.cmdline

    @ro(TEXT, size=0)
    def cpuinfo(self) -> str:
        """What each online CPU is."""
        return cpuinfo(self.machine)

    @ro(TEXT, size=0)
    def iomem(self) -> str:
        """The physical address map."""
        return iomem(self.machine)

    @ro(TEXT, size=0, sampled=True)
    def meminfo(self) -> str:
        """Memory by use, kB."""
        return meminfo(self.machine)

    @ro(LINE, size=0)
    def version(self) -> str:
        """The kernel's name and version."""
        return self.machine.topology.banner

    @ro(TEXT, size=0)
    def zoneinfo(self) -> str:
        """Memory by zone, pages."""
        return zoneinfo(self.machine)

    @directories("<pid>", PidDir)
    def processes(self) -> Collection[int]:
        """One per process that runs on the machine; others are found by their number."""
        return Processes(self.machine)


DIRECTORIES = (ProcRoot,)
