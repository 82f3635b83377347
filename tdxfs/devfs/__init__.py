"""``/dev``: the kernel log, KVM, and the dax devices.

FUSE opens no character devices: what can be opened here is a regular file that behaves like the device.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs.errors import InvalidValue, NoAddress
from tdxfs.kmsg import format_kmsg, user_said
from tdxfs.model import Driver, Machine
from tdxfs.sysfs.attribute import Directory, MemoryFiles, Reader, ro
from tdxfs.sysfs.codec import RECORDS, TEXT, Records


def _no_read() -> bytes:
    raise InvalidValue("dax devices can only be mapped")


class DevRoot(Directory[Any]):
    """Device nodes."""

    WHAT = "/dev"

    @ro(RECORDS, mode=0o644, size=0, reader=Reader.RECORDS)
    def kmsg(self) -> Records:
        """
        The kernel log, one record per read: priority,sequence,microseconds,flags;text. At the end a read
        returns 0, EAGAIN with O_NONBLOCK, and poll waits for the next record.
        """
        return Records(self.machine.log, format_kmsg, self.machine.log.first)

    kmsg.takes = TEXT

    @kmsg.store
    def _log(self, text: str) -> Machine:
        return user_said(self.machine, text)

    @ro(TEXT, mode=0o666, size=0, reader=Reader.KVM)
    def kvm(self) -> str:
        """KVM: an open of it is one TD, which lives until it is closed; see tdxfs guest."""
        raise InvalidValue("KVM has ioctls only")

    def _dax_size(self, key: tuple[int, int]) -> int:
        return self.machine.dax[key].size

    def _may_open(self, key: tuple[int, int]) -> None:
        if self.machine.dax[key].driver is not Driver.DEVICE_DAX:
            raise NoAddress("device_dax does not have it")

    def _dax_keys(self) -> Collection[tuple[int, int]]:
        return self.machine.dax

    dax_devices: MemoryFiles[Any] = MemoryFiles(
        template="dax<region>.<id>",
        doc="The memory of a dax device, to be mapped: sparse, what is written reads back.",
        keys=_dax_keys,
        bytes_of=_dax_size,
        no_read=_no_read,
        may_open=_may_open,
    )


DIRECTORIES = (DevRoot,)
