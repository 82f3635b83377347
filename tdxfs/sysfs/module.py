"""``/sys/module``: the modules that links lead to."""

from __future__ import annotations

from typing import Any

from tdxfs.model import Machine
from tdxfs.sysfs.attribute import Directory, ro
from tdxfs.sysfs.codec import WORD


class _Module(Directory[Any]):
    @ro(WORD)
    def initstate(self) -> str:
        """live: the module is loaded."""
        return "live"


class DeviceDaxModule(_Module):
    """The driver of dax devices that programs map."""

    WHAT = "/sys/module/device_dax"


class KmemModule(_Module):
    """The driver that makes System RAM of dax devices."""

    WHAT = "/sys/module/kmem"

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """While it is loaded."""
        return machine.topology.kmem_driver


DIRECTORIES = (DeviceDaxModule, KmemModule)
