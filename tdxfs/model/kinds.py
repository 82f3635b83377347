"""What memory, drivers and kernels are called, and the units everything is in."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

PAGE_SIZE = 4096
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
HUGEPAGE_SIZES = (2048, 1048576)
"""Huge page sizes of x86-64, kB."""

KERNELS = ("6.1", "6.12", "7.3")
"""The kernels that a topology may name, oldest first."""


def kernel_at_least(kernel: str, since: str) -> bool:
    """Whether `kernel` ("6.12") is `since` or newer."""
    return _release(kernel) >= _release(since)


@lru_cache(maxsize=64)
def _release(kernel: str) -> tuple[int, ...]:
    return tuple(int(part) for part in kernel.split("."))


class MemoryKind(Enum):
    """
    What memory is made of. Capability never depends on it; `firmware =
    "disable-incapable"` does (it takes only CXL memory off the map).
    """

    DRAM = "dram"
    HBM = "hbm"
    CXL = "cxl"
    NVDIMM = "nvdimm"


class Provider(Enum):
    """Which driver made a dax region; it decides the region's place in sysfs."""

    HMEM = "hmem"
    """Soft-reserved memory (EFI_MEMORY_SP), drivers/dax/hmem."""
    CXL = "cxl"
    """A CXL RAM region, drivers/dax/cxl.c."""
    NVDIMM = "nvdimm"
    """A persistent-memory namespace in devdax mode, drivers/dax/pmem.c."""


class Driver(Enum):
    """The two drivers of the dax bus, spelled as in ``/sys/bus/dax/drivers``."""

    DEVICE_DAX = "device_dax"
    KMEM = "kmem"


class Zone(Enum):
    """A memory zone, spelled as in ``valid_zones``."""

    DMA = "DMA"
    DMA32 = "DMA32"
    NORMAL = "Normal"
    MOVABLE = "Movable"


DMI_IDS = tuple(
    """
    bios_date bios_release bios_vendor bios_version board_asset_tag board_name board_serial board_vendor board_version
    chassis_asset_tag chassis_serial chassis_type chassis_vendor chassis_version ec_firmware_release modalias
    product_family product_name product_serial product_sku product_uuid product_version sys_vendor
    """.split()
)
"""The files in ``/sys/devices/virtual/dmi/id`` that a machine may have."""
