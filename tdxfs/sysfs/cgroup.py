"""``/sys/fs/cgroup``: the root group with what counts KeyIDs, and the cpuset of the group that one looks from.

Compare kernel/cgroup/misc.c and kernel/cgroup/cpuset.c.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs.idlist import parse_list
from tdxfs.model import Cgroup, Machine
from tdxfs.nodes import has_memory
from tdxfs.sysfs.attribute import Directory, directories, ro
from tdxfs.sysfs.codec import LINE, LIST

ROOT = "/sys/fs/cgroup"


class GroupDir(Directory[Any]):
    """A group on the way to the one that one looks from, or that one: which CPUs and nodes its tasks may use."""

    WHAT = f"{ROOT}/<group>"
    SHARED = True

    def below(self) -> str | None:
        """The path from here to the group that one looks from; None: it leads elsewhere."""
        cgroup = self.machine.topology.cgroup
        here = self.path.removeprefix(ROOT)
        if cgroup is None or not f"{cgroup.name.rstrip('/')}/".startswith(f"{here}/"):
            return None
        return cgroup.name[len(here) :].strip("/")

    def _limits(self) -> Cgroup:
        # the groups above have all there is
        cgroup = self.machine.topology.cgroup
        return Cgroup() if cgroup is None or self.below() else cgroup

    @ro(LINE, name="cgroup.controllers", size=0)
    def controllers(self) -> str:
        """What can be limited here. Absent where the topology says nothing of cpusets, as what follows."""
        return "cpuset misc"

    @ro(LIST, name="cpuset.cpus.effective", size=0)
    def cpus(self) -> frozenset[int]:
        """CPUs that tasks of the group may use: the online ones of those it was given."""
        given = self._limits().cpus
        return self.machine.cpus_online & parse_list(given) if given else self.machine.cpus_online

    @ro(LIST, name="cpuset.mems.effective", size=0)
    def mems(self) -> frozenset[int]:
        """Nodes that tasks of the group may allocate from: those with memory of those it was given."""
        given = self._limits().mems
        return has_memory(self.machine) & parse_list(given) if given else has_memory(self.machine)

    def _has_cpuset(self) -> bool:
        return self.machine.topology.cgroup is not None

    controllers.visible(_has_cpuset)
    cpus.visible(_has_cpuset)
    mems.visible(_has_cpuset)


@directories("<group>", GroupDir, nested=True, text=True)
def _groups(directory: GroupDir) -> Collection[str]:
    """The next group on the way to the one that one looks from."""
    below = directory.below()
    return (below.partition("/")[0],) if below else ()


GroupDir.FAMILIES = (_groups,)


class CgroupDir(GroupDir):
    """The root group."""

    WHAT = ROOT

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Where there are KeyIDs to count, or a cpuset to look at."""
        return machine.tdx.enabled or machine.topology.cgroup is not None

    @ro(LINE, name="misc.capacity", size=0)
    def misc_capacity(self) -> str:
        """Private KeyIDs that guests can have: all but TDX's global one."""
        platform = self.machine.topology.tdx
        assert platform is not None
        return f"tdx {platform.keyids - 1}"

    @misc_capacity.visible
    def _has_keyids(self) -> bool:
        return self.machine.tdx.enabled


DIRECTORIES = (CgroupDir,)
