"""``/proc/driver/nvidia``: which NUMA node is the memory of which GPU, as the GPUs' driver says."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs import nodes
from tdxfs.ranges import Ranges
from tdxfs.sysfs.attribute import Directory, always, directories, ro
from tdxfs.sysfs.codec import TEXT


class GpuDir(Directory[str]):
    """A GPU whose memory is a NUMA node; key: its PCI address."""

    WHAT = "/proc/driver/nvidia/gpus/<address>"

    @ro(TEXT, size=0)
    def numa_status(self) -> str:
        """The node, whether it has memory online, and where the memory is, hexadecimal."""
        machine = self.machine
        nid = next(node.id for node in machine.topology.nodes if node.gpu == self.key)
        memory = machine.node_ram.get(nid, Ranges())
        status = "online" if nid in nodes.has_memory(machine) else "offline"
        start = memory.parts[0].start if memory else 0
        return f"Node:      {nid}\nStatus:    {status}\nAddress:   {start:x}\nSize:      {memory.size:x}\n"


class GpusDir(Directory[Any]):
    """The GPUs whose memory is a NUMA node."""

    WHAT = "/proc/driver/nvidia/gpus"

    @directories("<address>", GpuDir, text=True)
    def gpus(self) -> Collection[str]:
        """One per GPU."""
        return [node.gpu for node in self.machine.topology.nodes if node.gpu]


class NvidiaDir(Directory[Any]):
    """What NVIDIA's driver says."""

    WHAT = "/proc/driver/nvidia"

    gpus = always(GpusDir)


class DriverDir(Directory[Any]):
    """What drivers say."""

    WHAT = "/proc/driver"

    nvidia = always(NvidiaDir)
