"""``/dev``: the kernel log and the dax devices."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs.kmsg import format_kmsg, user_said
from tdxfs.model import Machine
from tdxfs.sysfs.attribute import CharDevices, Directory, Reader, ro
from tdxfs.sysfs.codec import RECORDS, TEXT, Records
from tdxfs.sysfs.dax import dax_major


class DevRoot(Directory[Any]):
    """Device nodes."""

    WHAT = "/dev"

    @ro(RECORDS, mode=0o644, size=0, reader=Reader.RECORDS)
    def kmsg(self) -> Records:
        """
        The kernel log, one record per read: priority,sequence,microseconds,flags;text. At the end a read
        returns 0, EAGAIN with O_NONBLOCK, and poll waits for the next record.
        """
        return Records(self.machine.log, format_kmsg)

    kmsg.takes = TEXT

    @kmsg.store
    def _log(self, text: str) -> Machine:
        return user_said(self.machine, text)

    def _dax_number(self, key: tuple[int, int]) -> tuple[int, int]:
        return dax_major(self.machine.topology.kernel), self.machine.dax[key].minor

    def _dax_keys(self) -> Collection[tuple[int, int]]:
        """The dax devices, with their numbers."""
        return self.machine.dax

    dax_devices: CharDevices[Any] = CharDevices(
        template="dax<region>.<id>", doc="The dax devices.", keys=_dax_keys, number=_dax_number
    )


DIRECTORIES = (DevRoot,)
