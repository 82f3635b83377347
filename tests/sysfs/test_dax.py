"""Tests for `tdxfs.sysfs.dax` and the devices above dax devices."""

import pytest
from attrs import evolve
from machines import MIXED, tree

from tdxfs.errors import NoAddress, NoEntry
from tdxfs.model import GIB, MIB, DaxDevice, DaxRegion, Driver, MemoryKind, MemoryLayout, Provider
from tdxfs.ranges import Range
from tdxfs.sysfs.attribute import Link
from tdxfs.tree import stat_of

FIRST, SECOND = Range(12 * GIB, 12 * GIB + 512 * MIB), Range(12 * GIB + 768 * MIB, 13 * GIB)


def with_region(region, **changes):
    return evolve(MIXED, dax_regions=(region,), **changes)


def region(provider, *devices, **changes):
    return DaxRegion(0, provider, Range(12 * GIB, 13 * GIB), target_node=3, devices=devices, **changes)


class TestPaths:
    @pytest.mark.parametrize(
        ("provider", "kind", "kernel", "expected"),
        [
            (Provider.HMEM, MemoryKind.DRAM, "6.12", "platform/hmem.0"),
            (Provider.HMEM, MemoryKind.DRAM, "7.3", "platform/hmem_platform.0/hmem.0"),
            (Provider.CXL, MemoryKind.CXL, "6.12", "platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0"),
            (Provider.NVDIMM, MemoryKind.NVDIMM, "6.1", "LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/dax0.0"),
            (Provider.NVDIMM, MemoryKind.NVDIMM, "7.3", "platform/ACPI0012:00/ndbus0/region0/dax0.0"),
            (
                Provider.NVDIMM,
                MemoryKind.CXL,
                "7.3",
                "platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus0/region0/dax0.0",
            ),
        ],
    )
    def test_a_device_is_where_its_kernel_has_it(self, provider, kind, kernel, expected):
        """The link on the bus leads to the directory that the provider and the kernel give it."""
        machine = with_region(region(provider, DaxDevice(0, (FIRST,)), kind=kind), kernel=kernel)
        real, _ = tree(machine).follow("/sys/bus/dax/devices/dax0.0")

        assert f"/sys/devices/{expected}/dax0.0" == real
        assert tree(machine).read(f"/sys/devices/{expected}/dax_region/id") == b"0\n"

    def test_both_nvdimm_buses_have_a_number(self):
        """DIMMs come before CXL memory where a machine has both."""
        other = evolve(region(Provider.NVDIMM, kind=MemoryKind.CXL), id=1, range=Range(14 * GIB, 15 * GIB))
        both = tree(evolve(MIXED, dax_regions=(region(Provider.NVDIMM), other)))

        assert both.read("/sys/bus/nd/devices/ndbus0/provider") == b"ACPI.NFIT\n"
        assert both.read("/sys/bus/nd/devices/ndbus1/provider") == b"CXL\n"

    def test_no_parents_without_regions(self):
        """A machine without dax regions has the buses and no device on them."""
        plain = tree(evolve(MIXED, dax_regions=()))

        assert plain.list("/sys/bus/dax/devices").names == ()
        assert plain.list("/sys/devices/platform").names == ()
        with pytest.raises(NoEntry):
            plain.lookup("/sys/devices/LNXSYSTM:00")


class TestDevice:
    def test_mappings_follow_their_page_offsets(self):
        """A second range starts in the device where the first one ends; ends are inclusive."""
        device = "/sys/bus/dax/devices/dax0.0"
        machine = tree(with_region(region(Provider.HMEM, DaxDevice(0, (FIRST, SECOND)))))

        assert f"{FIRST.size + SECOND.size}\n".encode() == machine.read(f"{device}/size")
        assert f"{SECOND.start:#x}\n".encode() == machine.read(f"{device}/mapping1/start")
        assert f"{SECOND.end - 1:#x}\n".encode() == machine.read(f"{device}/mapping1/end")
        assert f"{FIRST.size // 4096:#x}\n".encode() == machine.read(f"{device}/mapping1/page_offset")

    def test_a_device_without_memory(self):
        """A device of size 0 has no mapping, and its resource is the region's start."""
        device = "/sys/bus/dax/devices/dax0.0"
        machine = tree(with_region(region(Provider.HMEM, DaxDevice(0, driver=None))))

        assert machine.read(f"{device}/size") == b"0\n"
        assert f"{12 * GIB:#x}\n".encode() == machine.read(f"{device}/resource")
        for absent in ("mapping0", "driver"):
            with pytest.raises(NoEntry):
                machine.lookup(f"/sys/devices/platform/hmem_platform.0/hmem.0/dax0.0/{absent}")

    @pytest.mark.parametrize(("provider", "mode"), [(Provider.HMEM, 0o644), (Provider.NVDIMM, 0o444)])
    def test_only_dynamic_regions_can_be_changed(self, provider, mode):
        """Size and align are writable, and mapping is there, in a dynamic region only."""
        machine = tree(with_region(region(provider, DaxDevice(0, (FIRST,)))))
        real, directory = machine.follow("/sys/bus/dax/devices/dax0.0")

        assert mode == stat_of(machine.lookup(f"{real}/size")).mode & 0o777
        assert (mode == 0o644) == ("mapping" in machine.list(real).names)
        assert (mode == 0o644) == (directory.lookup("mapping") is not None)

    def test_target_node_is_absent_without_one(self):
        """A region that belongs to no node has no target_node, and a numa_node of -1."""
        nowhere = evolve(region(Provider.HMEM, DaxDevice(0, (FIRST,))), target_node=None)
        names = tree(with_region(nowhere)).list("/sys/devices/platform/hmem_platform.0/hmem.0/dax0.0").names

        assert "target_node" not in names
        assert tree(with_region(nowhere)).read("/sys/bus/dax/devices/dax0.0/numa_node") == b"-1\n"

    @pytest.mark.parametrize("auto_online", ["offline", "online", "online_movable"])
    def test_state_of_a_kmem_device(self, auto_online):
        """The state is what was done to the whole device when kmem took it; 7.3 only."""
        layout = MemoryLayout(auto_online=auto_online)
        machine = with_region(
            region(Provider.HMEM, DaxDevice(0, (FIRST,), Driver.KMEM)), memory=layout, tdx=None, kernel="7.3"
        )

        assert f"{auto_online}\n".encode() == tree(machine).read("/sys/bus/dax/devices/dax0.0/state")
        with pytest.raises(NoEntry):
            tree(evolve(machine, kernel="6.12")).follow("/sys/bus/dax/devices/dax0.0/state")

    def test_state_says_what_was_asked_for(self):
        """The state is that of the whole device's last change, whatever became of single blocks (TDX rejects these)."""
        machine = with_region(region(Provider.HMEM, DaxDevice(0, (FIRST,), Driver.KMEM)), kernel="7.3")

        assert tree(machine).read("/sys/bus/dax/devices/dax0.0/state") == b"online\n"

    def test_numbers_agree(self):
        """dev, uevent, /sys/dev/char and the minor number a topology gives say the same."""
        machine = tree(with_region(region(Provider.HMEM, DaxDevice(3, (FIRST,), minor=7)), kernel="6.1"))

        assert machine.read("/sys/bus/dax/devices/dax0.3/dev") == b"252:7\n"
        assert b"MAJOR=252\nMINOR=7\nDEVNAME=dax0.3\n" in machine.read("/sys/bus/dax/devices/dax0.3/uevent")
        assert machine.follow("/sys/dev/char/252:7")[0] == "/sys/devices/platform/hmem.0/dax0.3"
        assert machine.follow("/sys/dev/char/252:7/subsystem")[0] == "/sys/bus/dax"


class TestRegion:
    def test_what_is_left(self):
        """available_size is what no device has; seed and create name the idle and the youngest device."""
        devices = DaxDevice(0, (FIRST,)), DaxDevice(1, driver=None), DaxDevice(2, (SECOND,))
        machine = tree(with_region(region(Provider.HMEM, *devices, seed=1, youngest=2)))
        group = "/sys/devices/platform/hmem_platform.0/hmem.0/dax_region"

        assert f"{256 * MIB}\n".encode() == machine.read(f"{group}/available_size")
        assert machine.read(f"{group}/seed") == b"dax0.1\n"
        assert machine.read(f"{group}/create") == b"dax0.2\n"

    def test_static_regions_have_little(self):
        """An NVDIMM region has id, size and align, as large as its device."""
        machine = tree(with_region(region(Provider.NVDIMM, DaxDevice(0, (FIRST,)))))
        group = "/sys/devices/platform/ACPI0012:00/ndbus0/region0/dax0.0/dax_region"

        assert {"id", "size", "align"} == set(machine.list(group).names)
        assert f"{FIRST.size}\n".encode() == machine.read(f"{group}/size")

    def test_an_idle_namespace_device(self):
        """An NVDIMM region always has one idle nd device more; its size cannot be read."""
        raw = tree(with_region(region(Provider.NVDIMM)))
        devdax = tree(with_region(region(Provider.NVDIMM, DaxDevice(0, (FIRST,)))))
        nd = "/sys/devices/platform/ACPI0012:00/ndbus0/region0"

        assert raw.read(f"{nd}/dax_seed") == b"dax0.0\n"
        assert devdax.read(f"{nd}/dax_seed") == b"dax0.1\n"
        assert raw.list("/sys/bus/dax/devices").names == ()
        with pytest.raises(NoAddress):
            raw.read(f"{nd}/dax0.0/size")


class TestTdx:
    def test_own_memory_and_target_node(self):
        """The device answers for its memory and for its target node, which need not exist."""
        device = "/sys/bus/dax/devices/dax0.0/x86"

        assert tree().read(f"{device}/tdx_capable") == b"0\n"
        assert tree().read(f"{device}/target_node_tdx_capable") == b"0\n"
        with pytest.raises(NoEntry):
            tree().lookup("/sys/devices/system/node/node3")

    def test_absent_without_tdx(self):
        """On a platform without TDX a dax device has no x86 directory."""
        with pytest.raises(NoEntry):
            tree(evolve(MIXED, tdx=None)).follow("/sys/bus/dax/devices/dax0.0/x86")


class TestManyRegions:
    def test_a_look_up_does_not_scan(self):
        """Links among thousands of regions resolve, and every device is listed once."""
        many = tuple(
            DaxRegion(n, Provider.HMEM, Range(base, base + GIB), 3, devices=(DaxDevice(0, (Range(base, base + GIB),)),))
            for n, base in enumerate(range(12 * GIB, 2012 * GIB, GIB))
        )
        machine = tree(evolve(MIXED, dax_regions=many))

        assert len(machine.list("/sys/bus/dax/devices").names) == 2000
        assert isinstance(machine.lookup("/sys/bus/dax/drivers/device_dax/dax1999.0"), Link)
        assert (
            machine.follow("/sys/bus/platform/devices/hmem.1999")[0]
            == "/sys/devices/platform/hmem_platform.0/hmem.1999"
        )
