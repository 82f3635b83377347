"""``/sys/dev/char``: devices by number; compare drivers/base/core.c ``device_create_sys_dev_entry``."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from tdxfs import delta
from tdxfs.model import Machine
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, LinkTo, links
from tdxfs.sysfs.dax import dax_major


@lru_cache(maxsize=4)
def _numbers(machine: Machine) -> dict[tuple[int, int], tuple[int, int]]:
    major = dax_major(machine.topology.kernel)
    return {(major, device.minor): key for key, device in machine.dax.items()}


def _device(machine: Machine, number: tuple[int, int]) -> str:
    return paths.dax(machine, _numbers(machine)[number])


class CharDir(Directory[None]):
    """Character devices by major and minor number."""

    WHAT = "/sys/dev/char"
    SHARED = True
    FOLLOWS = staticmethod(delta.dax)

    # a file of a mount has device number 0:0; daxctl looks the number of /dev/daxX.Y up to find the dax bus
    unnumbered: LinkTo[CharDir] = LinkTo(
        name="0:0",
        doc="A dax device: what a regular file in the place of a device node counts as. Absent if there is none.",
        target=lambda directory: next((paths.dax(directory.machine, key) for key in directory.machine.dax), None),
    )

    @links("<major>:<minor>", _device)
    def devices(self) -> Collection[tuple[int, int]]:
        """The dax devices."""
        return _numbers(self.machine)


DIRECTORIES = (CharDir,)
