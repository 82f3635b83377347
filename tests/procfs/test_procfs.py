"""Tests for `tdxfs.procfs`."""

from attrs import evolve
from machines import MIXED, tree

from tdxfs.model import GIB, Driver


def test_meminfo_sums_the_nodes():
    """MemTotal of the machine is that of its nodes."""
    first = tree().read("/proc/meminfo").decode().splitlines()[0]

    assert f"MemTotal:       {8 * GIB // 1024:8} kB" == first


def test_iomem_is_sorted_and_names_devices():
    """RAM and dax ranges stand in address order, ends inclusive."""
    lines = tree().read("/proc/iomem").decode().splitlines()

    assert "300000000-33fffffff : dax0.0" in lines
    assert sorted(lines, key=lambda line: int(line.split("-")[0], 16)) == lines


def test_kmem_memory_is_a_child_of_its_device():
    """Bound to kmem, a device's memory is System RAM below the device."""
    device = evolve(MIXED.dax_regions[0].devices[0], driver=Driver.KMEM)
    kmem = evolve(MIXED, tdx=None, dax_regions=(evolve(MIXED.dax_regions[0], devices=(device,)),))

    assert "\n  300000000-33fffffff : System RAM (kmem)\n" in tree(kmem).read("/proc/iomem").decode()


def test_cpuinfo_has_a_paragraph_per_cpu():
    """Four CPUs, each with the flag of a TDX host."""
    text = tree().read("/proc/cpuinfo").decode()

    assert text.count("processor\t:") == 4
    assert text.count("tdx_host_platform") == 4


def test_zoneinfo_spans():
    """Present pages of a node's zones are its online memory."""
    text = tree().read("/proc/zoneinfo").decode()
    present = [int(line.split()[1]) for line in text.splitlines() if line.strip().startswith("present")]

    assert sum(present) == 8 * GIB // 4096
