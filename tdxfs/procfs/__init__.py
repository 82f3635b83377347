"""``/proc``: the files that say what the machine is made of."""

from __future__ import annotations

import stat
from collections.abc import Collection
from typing import Any

from tdxfs import delta
from tdxfs.procfs.cpuinfo import cpuinfo
from tdxfs.procfs.driver import DriverDir
from tdxfs.procfs.iomem import iomem
from tdxfs.procfs.meminfo import meminfo
from tdxfs.procfs.nofile_info import nofile_info
from tdxfs.procfs.task import PidDir
from tdxfs.procfs.zoneinfo import zoneinfo
from tdxfs.sysfs.attribute import ALL_TIERS, Directory, Tier, directories, link, ro, subdirectory
from tdxfs.sysfs.cgroup import CgroupDir
from tdxfs.sysfs.codec import LINE, TEXT
from tdxfs.tasks import Processes


class SelfDir(Directory[Any]):
    """Whoever reads it, as far as it goes by the topology: its control group, and where that is mounted."""

    WHAT = "/proc/self"
    MODE = stat.S_IFDIR | 0o555

    @property
    def cgroup_name(self) -> str:
        cgroup = self.machine.topology.cgroup
        assert cgroup is not None
        return cgroup.name

    @ro(LINE, size=0)
    def cgroup(self) -> str:
        """The control group."""
        return f"0::{self.cgroup_name}"

    @ro(LINE, size=0)
    def cpuset(self) -> str:
        """The control group that says which CPUs and nodes may be used."""
        return self.cgroup_name

    @ro(LINE, size=0)
    def mounts(self) -> str:
        """Where the hierarchy of control groups is mounted."""
        return f"cgroup2 {CgroupDir.WHAT} cgroup2 rw,nosuid,nodev,noexec,relatime 0 0"


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

    @subdirectory(SelfDir, name="self")
    def self_(self) -> bool:
        """Whoever reads it. Absent where the topology says nothing of control groups."""
        return self.machine.topology.cgroup is not None

    @link
    def mounts(self) -> str | None:
        """What is mounted. Absent where the topology says nothing of control groups."""
        return f"{SelfDir.WHAT}/mounts" if self.machine.topology.cgroup is not None else None

    @ro(TEXT, name="hwloc-nofile-info", size=0, tier=Tier.EMULATOR)
    def nofile_info(self) -> str:
        """What uname(2) and getpagesize(2) say, as hwloc expects it in a sysroot. Absent where it is not known."""
        return nofile_info(self.machine)

    @nofile_info.visible
    def _uname_is_known(self) -> bool:
        return self.machine.topology.uname is not None

    @subdirectory(DriverDir)
    def driver(self) -> bool:
        """What drivers say. Absent where no node is a GPU's memory."""
        return any(node.gpu for node in self.machine.topology.nodes)

    @directories("<pid>", PidDir)
    def processes(self) -> Collection[int]:
        """One per process that runs on the machine; others are found by their number."""
        return Processes(self.machine)


DIRECTORIES = (ProcRoot,)
