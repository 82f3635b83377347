"""What firmware does not say, and the caller may: here, or by a topology that the machine is like."""

from __future__ import annotations

from attrs import evolve, frozen

from tdxfs.formats.firmware.pfn_device import MapMode
from tdxfs.model import KERNELS, KIB, MIB, Cache, Driver, Topology, kernel_at_least


@frozen
class Unsaid:
    """What firmware does not say, and a default for it."""

    threads: int = 1
    """Hardware threads per core."""
    cores: int = 0
    """Cores per die; 0: as many as the APIC ids leave when no package spans two domains."""
    dies: int = 1
    """Dies per package, where `cores` is given."""
    hypervisor: bool | None = None
    """Whether CPUID has the hypervisor flag; None: what `Firmware` says."""
    block_size: int = 0
    """Bytes; 0: what Linux would choose."""
    devdax: bool = False
    """Whether the NVDIMM regions hold a namespace in devdax mode; its labels are on the DIMM. False: a raw one."""
    map: MapMode = MapMode.DEV
    """Where such a namespace keeps its page structs."""
    driver: Driver = Driver.DEVICE_DAX
    """Who has its device."""


NOTHING_SAID = Unsaid()

CACHES = (
    Cache(1, "Data", 48 * KIB, 12),
    Cache(1, "Instruction", 32 * KIB, 8),
    Cache(2, "Unified", 2 * MIB, 16),
    Cache(3, "Unified", 60 * MIB, 15, shared="package"),
)
"""Those of a processor with TDX, for machines of which nothing is known."""
AUTO_ONLINE_SINCE = "6.12"
"""The kernel since which distributions build memory to go online by itself."""


def default_base(like: Topology | None = None, kernel: str | None = None, cmdline: str | None = None) -> Topology:
    """
    What firmware will not change, from `like` or sensible, for this kernel and command line; ``memhp_default_state``
    counts.
    """
    base = Topology(caches=CACHES) if like is None else like
    kernel = kernel or (KERNELS[-1] if like is None else like.kernel)
    cmdline = base.cmdline if cmdline is None else cmdline
    auto_online = base.memory.auto_online
    if like is None:
        auto_online = "online" if kernel_at_least(kernel, AUTO_ONLINE_SINCE) else "offline"
    for word in cmdline.split():
        if word.startswith("memhp_default_state="):
            auto_online = word.partition("=")[2]
    return evolve(
        base,
        kernel=kernel,
        cmdline=cmdline,
        memory=evolve(base.memory, auto_online=auto_online),
        counters={},
        records={},
        pci_devices=(),
    )
