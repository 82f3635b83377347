"""Where the objects that links lead to live: each path is written once."""

from tdxfs.model import Machine, Provider, kernel_at_least

CPU_ROOT = "/sys/devices/system/cpu"
MEMORY_ROOT = "/sys/devices/system/memory"
NODE_ROOT = "/sys/devices/system/node"


def bus(name: str) -> str:
    return f"/sys/bus/{name}"


def cpu(machine: Machine, cpu_id: int) -> str:
    return f"{CPU_ROOT}/cpu{cpu_id}"


def memory_block(machine: Machine, block_id: int) -> str:
    return f"{MEMORY_ROOT}/memory{block_id}"


def node(machine: Machine, node_id: int) -> str:
    return f"{NODE_ROOT}/node{node_id}"


def dax_parent(machine: Machine, key: tuple[int, int]) -> str:
    """The device whose child a dax device is; it holds ``dax_region/``."""
    region, device = key
    platform = "/sys/devices/platform"
    new = kernel_at_least(machine.topology.kernel, "7.3")
    match machine.regions[region].provider:
        case Provider.HMEM:
            return f"{platform}/hmem_platform.0/hmem.{region}" if new else f"{platform}/hmem.{region}"
        case Provider.CXL:
            return f"{platform}/ACPI0017:00/root0/decoder0.{region}/region{region}/dax_region{region}"
        case Provider.NVDIMM:
            bus_parent = platform if new else "/sys/devices/LNXSYSTM:00/LNXSYBUS:00"
            return f"{bus_parent}/ACPI0012:00/ndbus0/region{region}/dax{region}.{device}"


def dax(machine: Machine, key: tuple[int, int]) -> str:
    """A dax device."""
    return f"{dax_parent(machine, key)}/dax{key[0]}.{key[1]}"


def pci(machine: Machine, address: str) -> str:
    """A PCI function."""
    return f"/sys/devices/pci{address[:7]}/{address}"
