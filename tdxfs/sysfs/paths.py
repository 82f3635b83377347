"""Where the objects that links lead to live: each path is written once."""

from tdxfs.model import Machine

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
