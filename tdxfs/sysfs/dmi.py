"""``/sys/devices/virtual/dmi/id``: what the firmware calls the machine; compare drivers/firmware/dmi-id.c."""

from __future__ import annotations

from typing import Any

from tdxfs.model import DMI_IDS, Machine
from tdxfs.sysfs.attribute import Directory, link, ro
from tdxfs.sysfs.codec import LINE
from tdxfs.sysfs.power import DeviceDir, uevent

FOR_ROOT = ("board_serial", "chassis_serial", "product_serial", "product_uuid")
"""Those of mode 0400."""
ID = "/sys/devices/virtual/dmi/id"


class DmiIdDir(DeviceDir[None]):
    """What the firmware calls the machine, its board, chassis and BIOS."""

    WHAT = ID

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Where there are DMI tables."""
        return bool(machine.topology.dmi)

    @uevent
    def uevent(self) -> str:
        """Its modalias."""
        return f"MODALIAS={self.machine.topology.dmi.get('modalias', '')}\n"

    @link
    def subsystem(self) -> str:
        """The DMI class."""
        return DmiClass.WHAT


def _field(name: str) -> None:
    def show(directory: DmiIdDir) -> str:
        return directory.machine.topology.dmi[name]

    def given(directory: DmiIdDir) -> bool:
        return name in directory.machine.topology.dmi

    show.__doc__ = f"The tables' {name.replace('_', ' ')}. Absent where they have none."
    attribute = ro(LINE, name=name, mode=0o400 if name in FOR_ROOT else 0o444)(show)
    attribute.visible(given)
    DmiIdDir.DECLARED[name] = attribute


for _name in DMI_IDS:
    _field(_name)


class DmiClass(Directory[Any]):
    """The class of the DMI device."""

    WHAT = "/sys/class/dmi"

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Where there are DMI tables."""
        return DmiIdDir.exists(machine)

    @link
    def id(self) -> str:
        """The device."""
        return ID


DIRECTORIES = (DmiIdDir, DmiClass)
