"""``/sys/kernel/debug/tdxfs``: what only the emulator has."""

from __future__ import annotations

from typing import Any

from tdxfs.kmsg import format_dmesg
from tdxfs.mempolicy import zonelists
from tdxfs.sysfs.attribute import Directory, Tier, ro
from tdxfs.sysfs.codec import LINE, TEXT, WORD


class TdxfsDir(Directory[Any]):
    """About the emulated machine itself."""

    WHAT = "/sys/kernel/debug/tdxfs"
    TIER = Tier.EMULATOR

    @ro(TEXT, size=0)
    def log(self) -> str:
        """The emulated kernel log as dmesg prints it, whole."""
        return format_dmesg(self.machine.log)

    @ro(LINE)
    def topology(self) -> str:
        """Name of the topology."""
        return self.machine.topology.name

    @ro(WORD)
    def kernel(self) -> str:
        """The kernel that is emulated."""
        return self.machine.topology.kernel

    @ro(TEXT, size=0)
    def zonelists(self) -> str:
        """One line per online node: in which order its allocations try the nodes with memory."""
        return "".join(f"{nid}: {' '.join(map(str, order))}\n" for nid, order in zonelists(self.machine).items())


DIRECTORIES = (TdxfsDir,)
