"""dax devices and drivers take what is written as real kernels did, errno for errno."""

import pytest
from machines import tree, wrote

from tdxfs.model import (
    GIB,
    KERNELS,
    MIB,
    Cpu,
    DaxDevice,
    DaxRegion,
    Driver,
    Memory,
    MemoryLayout,
    Node,
    Provider,
    Topology,
)
from tdxfs.ranges import Range
from tdxfs.sysfs.attribute import Link

SOFT = Range(0x50000000, 0x70000000)
NAMESPACE = Range(0x100200000, 0x140000000)
CPUS = tuple(Cpu(n, node=n // 2, package=n // 2, core=n % 2) for n in range(4))
BOOT_NODES = (Node(0, (Memory(Range(0, 512 * MIB)),)), Node(1, (Memory(Range(512 * MIB, GIB)),)))
DEVICE, REGION, DRIVERS = "/sys/bus/dax/devices/{}", "/sys/devices/platform/{}hmem.0/dax_region", "/sys/bus/dax/drivers"
OK = "ok"


def static(kernel, driver=Driver.DEVICE_DAX):
    """A persistent-memory namespace in devdax mode: a static region."""
    device = DaxDevice(0, (NAMESPACE,), driver)
    region = DaxRegion(0, Provider.NVDIMM, Range(4 * GIB, 5 * GIB), 2, 0, devices=(device,))
    layout = MemoryLayout(auto_online="offline")
    return tree(Topology(kernel=kernel, cpus=CPUS, nodes=BOOT_NODES, dax_regions=(region,), memory=layout))


def dynamic(kernel, driver=Driver.DEVICE_DAX, mappings=(SOFT,)):
    """Soft-reserved memory inside node 2: a dynamic region."""
    rest = Node(2, (Memory(Range(GIB, SOFT.start)), Memory(Range(SOFT.end, 2 * GIB))))
    region = DaxRegion(0, Provider.HMEM, SOFT, 2, 2, devices=(DaxDevice(0, mappings, driver),))
    layout = MemoryLayout(auto_online="offline")
    nodes = (*BOOT_NODES, rest)
    return tree(Topology(kernel=kernel, cpus=CPUS, nodes=nodes, dax_regions=(region,), memory=layout))


def region_of(machine):
    platform = "" if machine.machine.topology.kernel != "7.3" else "hmem_platform.0/"
    return REGION.format(platform)


def read(machine, path):
    return machine.read(path).decode().removesuffix("\n")


def names(machine, path):
    return set(machine.list(path).names)


@pytest.mark.parametrize("kernel", KERNELS)
class TestDrivers:
    """Section 12.1 of the measurements: bind, unbind, new_id, remove_id."""

    @pytest.mark.parametrize("make", [static, dynamic])
    @pytest.mark.parametrize("driver", ["device_dax", "kmem"])
    def test_what_they_do_not_know(self, kernel, make, driver):
        """No such device, or one that is bound elsewhere, is ENODEV; a name that is none is EINVAL."""
        machine = make(kernel, None)
        at = f"{DRIVERS}/{driver}"
        told = {
            "bind": [("garbage", "ENODEV"), ("\n", "ENODEV"), ("dax9.9", "ENODEV"), ("", OK)],
            "unbind": [("garbage", "ENODEV"), ("dax9.9", "ENODEV"), ("dax0.0", "ENODEV")],
            "new_id": [(name, "EINVAL") for name in ("garbage", "daxA.B", "dax", "a" * 200)],
            "remove_id": [("garbage", "EINVAL"), ("daxA.B", "EINVAL")],
        }
        for file, rows in told.items():
            for text, expected in rows:
                assert expected == wrote(machine, f"{at}/{file}", text), (file, text)

    @pytest.mark.parametrize("driver", ["device_dax", "kmem"])
    def test_ids_are_kept_for_devices_that_do_not_exist(self, kernel, driver):
        """new_id and remove_id take any name of the form, any number of times."""
        machine = static(kernel)
        for file in ("new_id", "new_id", "remove_id", "remove_id"):
            assert OK == wrote(machine, f"{DRIVERS}/{driver}/{file}", "dax9.9"), file

        assert OK == wrote(machine, f"{DRIVERS}/{driver}/new_id", "dax9.9\n")

    @pytest.mark.parametrize("text", ["dax0.0", "dax0.0\n"])
    def test_binding_what_is_bound(self, kernel, text):
        """EBUSY."""
        assert "EBUSY" == wrote(static(kernel), f"{DRIVERS}/device_dax/bind", text)

    def test_kmem_takes_what_it_matches(self, kernel):
        """A static region never is kmem's by default; a dynamic one is since 6.12, and EBUSY while it is bound."""
        assert "ENODEV" == wrote(static(kernel), f"{DRIVERS}/kmem/bind", "dax0.0")
        expected = "ENODEV" if kernel == "6.1" else "EBUSY"
        assert expected == wrote(dynamic(kernel), f"{DRIVERS}/kmem/bind", "dax0.0")

    def test_unbind_and_bind(self, kernel):
        """Unbound, the driver link is gone; bound again, it is back."""
        machine = static(kernel)
        path = DEVICE.format("dax0.0")
        real = machine.follow(path)[0]
        assert OK == wrote(machine, f"{DRIVERS}/device_dax/unbind", "dax0.0")
        assert "driver" not in names(machine, real)
        assert "dax0.0" not in names(machine, f"{DRIVERS}/device_dax")
        assert OK == wrote(machine, f"{DRIVERS}/device_dax/bind", "dax0.0")
        assert isinstance(machine.lookup(f"{real}/driver"), Link)

    def test_size_0_binds_nowhere(self, kernel):
        """ENXIO where the driver matches, ENODEV where it does not."""
        machine = dynamic(kernel, None, ())
        expected = "ENXIO" if kernel == "6.1" else "ENODEV"

        assert expected == wrote(machine, f"{DRIVERS}/device_dax/bind", "dax0.0")

    def test_new_id_lets_a_driver_take_a_device(self, kernel):
        """new_id binds the device at once, if it is free, and bind works from then on."""
        machine = dynamic(kernel, None)
        assert OK == wrote(machine, f"{DRIVERS}/device_dax/new_id", "dax0.0")
        assert "dax0.0" in names(machine, f"{DRIVERS}/device_dax")
        assert OK == wrote(machine, f"{DRIVERS}/device_dax/unbind", "dax0.0")
        assert OK == wrote(machine, f"{DRIVERS}/device_dax/bind", "dax0.0")

    def test_drivers_probe(self, kernel):
        """An unknown name is ENODEV, a bound device is left alone, a free one finds the driver that matches."""
        machine = dynamic(kernel)
        probe = "/sys/bus/dax/drivers_probe"
        assert "ENODEV" == wrote(machine, probe, "garbage")
        assert OK == wrote(machine, probe, "dax0.0")
        wrote(machine, f"{DRIVERS}/device_dax/unbind", "dax0.0")
        assert OK == wrote(machine, probe, "dax0.0")
        assert "dax0.0" in names(machine, f"{DRIVERS}/{'device_dax' if kernel == '6.1' else 'kmem'}")


@pytest.mark.parametrize("kernel", KERNELS)
class TestStaticRegion:
    """Section 12.2 of the measurements."""

    @pytest.mark.parametrize("file", ["size", "align", "numa_node"])
    def test_what_cannot_be_written(self, kernel, file):
        """open is EACCES: no w bit."""
        assert "EACCES" == wrote(static(kernel), f"{DEVICE.format('dax0.0')}/{file}", "0")

    def test_what_does_not_exist(self, kernel):
        """No mapping, no create, delete, seed."""
        machine = static(kernel)
        device = machine.follow(DEVICE.format("dax0.0"))[0]
        assert "mapping" not in names(machine, device)
        assert not {"create", "delete", "seed"} & names(machine, f"{device.rpartition('/')[0]}/dax_region")

    def test_uevent(self, kernel):
        """An action is taken, anything else is EINVAL."""
        machine = static(kernel)
        path = f"{DEVICE.format('dax0.0')}/uevent"
        assert ["EINVAL", OK] == [wrote(machine, path, text) for text in ("garbage", "change")]

    @pytest.mark.parametrize("driver", [Driver.DEVICE_DAX, None])
    def test_memmap_on_memory(self, kernel, driver):
        """Not before 6.8; it can be switched off, and on only where the kernel was booted for it."""
        machine = static(kernel, driver)
        path = f"{DEVICE.format('dax0.0')}/memmap_on_memory"
        expected = ["ENODEV"] * 3 if kernel == "6.1" else ["EINVAL", "ENOTSUP", OK]
        assert expected == [wrote(machine, path, text) for text in ("garbage", "1", "0")]


ALIGN = {
    "garbage": ("ENXIO", "ENXIO"),
    "": (OK, OK),
    "0": ("EINVAL", "EINVAL"),
    "1": ("EINVAL", "EINVAL"),
    "4097": ("EINVAL", "EINVAL"),
    "4096": ("EBUSY", OK),
    "2097152": ("EBUSY", OK),
    "2097152\n": ("EBUSY", OK),
    "0x200000": ("EBUSY", OK),
    "1073741824": ("EBUSY", "EINVAL"),
}
SIZE = {
    "garbage": ("EINVAL", "EINVAL"),
    "1": ("EINVAL", "EINVAL"),
    "4096": ("EINVAL", "EINVAL"),
    "1T": ("EINVAL", "EINVAL"),
    "-1": ("EINVAL", "EINVAL"),
    "99999999999999999999999": ("ERANGE", "ERANGE"),
    "": (OK, OK),
    "0": ("EBUSY", OK),
    "2097152": ("EBUSY", OK),
}


@pytest.mark.parametrize("kernel", KERNELS)
class TestDynamicRegion:
    """Section 12.3 of the measurements: a device of 512 MiB, bound to device_dax and unbound."""

    @pytest.mark.parametrize(("file", "rows"), [("align", ALIGN), ("size", SIZE)])
    @pytest.mark.parametrize("bound", [True, False])
    def test_align_and_size(self, kernel, bound, file, rows):
        """A bad value is refused before a bound device is."""
        path = f"{DEVICE.format('dax0.0')}/{file}"
        for text, expected in rows.items():
            machine = dynamic(kernel, Driver.DEVICE_DAX if bound else None)
            assert expected[not bound] == wrote(machine, path, text), text
            if expected[not bound] is OK and text:
                assert int(text, 0) == int(read(machine, path)), text

    @pytest.mark.parametrize("bound", [True, False])
    def test_mapping(self, kernel, bound):
        """What cannot be read is EINVAL, a length that is not aligned does nothing, a range elsewhere is ENOMEM."""
        machine = dynamic(kernel, Driver.DEVICE_DAX if bound else None)
        device = machine.follow(DEVICE.format("dax0.0"))[0]
        before = names(machine, device)
        rows = {"garbage": "EINVAL", "0-1": "ENXIO" if kernel == "6.1" else OK, "0-1fffff": "ENOMEM"}
        for text, expected in rows.items():
            assert expected == wrote(machine, f"{device}/mapping", text), text
        assert before == names(machine, device)

    def test_create_and_delete(self, kernel):
        """create takes only 1; delete only a device of the region that is unbound, has size 0, and is not its first."""
        machine = dynamic(kernel)
        region = region_of(machine)
        for text in ("garbage", "0", "2", "dax9.9", "dax0.0"):
            assert "EINVAL" == wrote(machine, f"{region}/create", text), text
        assert "ENOSPC" == wrote(machine, f"{region}/create", "1")
        for text in ("garbage", "0", "2", "dax9.9"):
            assert "ENXIO" == wrote(machine, f"{region}/delete", text), text
        assert "EBUSY" == wrote(machine, f"{region}/delete", "dax0.0")
        assert "EACCES" == wrote(machine, f"{region}/seed", "1")

    def test_device_0_is_never_deleted(self, kernel):
        """EBUSY, also with size 0."""
        machine = dynamic(kernel, None, ())

        assert "EBUSY" == wrote(machine, f"{region_of(machine)}/delete", "dax0.0")


@pytest.mark.parametrize("kernel", KERNELS)
def test_ordered_script(kernel):
    """Section 12.4 of the measurements, step by step."""
    old = kernel == "6.1"
    machine = dynamic(kernel, None, ())
    region, two = region_of(machine), DEVICE.format("dax0.2")
    bind, unbind = (f"{DRIVERS}/device_dax/{file}" for file in ("bind", "unbind"))

    def expect(rows, path):
        for text, expected in rows:
            assert expected == wrote(machine, path, text), (path, text)

    def says(path, *expected):
        assert list(expected) == [read(machine, f"{path}/{file}") for file in FILES[path]], path

    FILES = {region: ("seed", "create", "available_size"), two: ("size", "align")}
    says(region, "", "", "536870912")
    expect([("0", "EINVAL"), ("2", "EINVAL"), ("1", OK)], f"{region}/create")
    says(region, "dax0.1", "dax0.1", "536870912")
    expect([("1", OK)], f"{region}/create")
    says(region, "dax0.1", "dax0.2", "536870912")
    for number in range(3):
        device = machine.follow(DEVICE.format(f"dax0.{number}"))[0]
        shown = [read(machine, f"{device}/{file}") for file in ("size", "align", "target_node", "resource", "dev")]
        major = 251 if kernel == "7.3" else 252
        assert ["0", "2097152", "2", "0x50000000", f"{major}:{number}"] == shown
        assert not {"mapping0", "driver"} & names(machine, device)
    bad = ("1", "4096", "garbage", "3000000", "10000000000")
    expect([(text, "EINVAL") for text in bad], f"{two}/size")
    expect([("0x4000000", OK)], f"{two}/size")
    says(two, "67108864", "2097152")
    expect([("2097152", OK)], f"{two}/size")
    says(region, "dax0.1", "dax0.2", "534773760")
    mapping = [read(machine, f"{two}/mapping0/{file}") for file in ("start", "end", "page_offset")]
    assert ["0x50000000", "0x501fffff", "0x0"] == mapping
    expect([("4096", OK), ("1073741824", "EINVAL"), ("4097", "EINVAL"), ("0", "EINVAL")], f"{two}/align")
    says(two, "2097152", "4096")
    expect([("2097152", OK)], f"{two}/align")
    expect([("4194304", OK), ("4194304", OK)], f"{two}/size")
    expect([("garbage", "EINVAL"), ("0-1", "ENXIO" if old else OK), ("68000000-681fffff", OK)], f"{two}/mapping")
    says(two, "6291456", "2097152")
    assert "mapping1" in names(machine, machine.follow(two)[0])
    taken = [("0x68000000-0x681fffff", "ENOMEM"), ("68000000-681fffff", "ENOMEM")]
    expect([*taken, ("68200000-68200fff", "ENXIO" if old else OK)], f"{two}/mapping")
    expect([("dax0.2", OK if old else "ENODEV")], bind)
    expect([("0", "EBUSY" if old else OK)], f"{two}/size")
    expect([("2097152", "EBUSY" if old else OK)], f"{two}/align")
    expect([("69000000-691fffff", OK)], f"{two}/mapping")
    expect([("dax0.2", "EBUSY")], f"{region}/delete")
    expect([("dax0.2", OK if old else "ENODEV")], unbind)
    expect([("dax0.2", "EBUSY")], f"{region}/delete")
    expect([("0", OK)], f"{two}/size")
    # since 6.12 nothing was ever bound; on 6.1 it was dax0.2, not the seed
    says(region, "dax0.1", "dax0.2", "536870912")
    expect([("garbage", "ENXIO"), ("dax9.9", "ENXIO"), ("dax0.", "ENXIO"), ("dax0.2", OK)], f"{region}/delete")
    says(region, "dax0.1", "", "536870912")
    expect([("dax0.0", "EBUSY"), ("dax0.1", OK)], f"{region}/delete")
    says(region, "", "", "536870912")
    expect([("1", OK)], f"{region}/create")
    says(region, "dax0.1", "dax0.1", "536870912")
    expect([("dax0.0", "ENXIO" if old else "ENODEV")], bind)
