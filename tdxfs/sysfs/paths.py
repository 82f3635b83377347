"""Where the objects that links lead to live: each path is written once."""

from tdxfs.model import Machine, Provider, kernel_at_least

CPU_ROOT = "/sys/devices/system/cpu"
MEMORY_ROOT = "/sys/devices/system/memory"
NODE_ROOT = "/sys/devices/system/node"
PLATFORM_ROOT = "/sys/devices/platform"
ACPI_ROOT = "/sys/devices/LNXSYSTM:00/LNXSYBUS:00"
NFIT = "ACPI0012:00"
NFIT_MOVED = "7.3"
"""First kernel that has it below PLATFORM_ROOT, not ACPI_ROOT."""
CXL_ROOT = f"{PLATFORM_ROOT}/ACPI0017:00/root0"


def bus(name: str) -> str:
    return f"/sys/bus/{name}"


def cpu(machine: Machine, cpu_id: int) -> str:
    return f"{CPU_ROOT}/cpu{cpu_id}"


def memory_block(machine: Machine, block_id: int) -> str:
    return f"{MEMORY_ROOT}/memory{block_id}"


def node(machine: Machine, node_id: int) -> str:
    return f"{NODE_ROOT}/node{node_id}"


def nd_bus(machine: Machine, number: int) -> str:
    """An NVDIMM bus: that of the firmware's table or that of the CXL devices."""
    if list(machine.nd_buses)[number]:
        return f"{CXL_ROOT}/nvdimm-bridge0/ndbus{number}"
    new = kernel_at_least(machine.topology.kernel, NFIT_MOVED)
    return f"{PLATFORM_ROOT if new else ACPI_ROOT}/{NFIT}/ndbus{number}"


def nd_region(machine: Machine, region: int) -> str:
    """An NVDIMM region."""
    number = list(machine.nd_buses).index(machine.regions[region].on_cxl)
    return f"{nd_bus(machine, number)}/region{region}"


def nd_dax(machine: Machine, key: tuple[int, int]) -> str:
    """The nd device of a namespace in devdax mode, or an idle one; key: (region id, its own instance id)."""
    return f"{nd_region(machine, key[0])}/dax{key[0]}.{key[1]}"


def cxl_decoder(machine: Machine, region: int) -> str:
    """The root decoder of the window in which a CXL region lies."""
    return f"{CXL_ROOT}/decoder0.{region}"


def cxl_region(machine: Machine, region: int) -> str:
    """A CXL RAM region."""
    return f"{cxl_decoder(machine, region)}/region{region}"


def dax_parent(machine: Machine, key: tuple[int, int]) -> str:
    """The device whose child a dax device is; it holds ``dax_region/``."""
    region = key[0]
    new = kernel_at_least(machine.topology.kernel, "7.3")
    match machine.regions[region].provider:
        case Provider.HMEM:
            return f"{PLATFORM_ROOT}/hmem_platform.0/hmem.{region}" if new else f"{PLATFORM_ROOT}/hmem.{region}"
        case Provider.CXL:
            return f"{cxl_region(machine, region)}/dax_region{region}"
        case Provider.NVDIMM:
            return nd_dax(machine, (region, machine.dax[key].nd))


def dax(machine: Machine, key: tuple[int, int]) -> str:
    """A dax device."""
    return f"{dax_parent(machine, key)}/dax{key[0]}.{key[1]}"


def pci(machine: Machine, address: str) -> str:
    """A PCI function."""
    return f"/sys/devices/pci{address[:7]}/{address}"
