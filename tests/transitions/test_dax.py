"""What else follows when dax devices and drivers take what is written; tests/semantics/ has every answer."""

import pytest
from attrs import evolve
from machines import tree, wrote
from semantics.rule import MACHINES

from tdxfs.model import KERNELS
from tdxfs.sysfs.attribute import Link

DEVICE, DRIVERS = "/sys/bus/dax/devices/dax0.0", "/sys/bus/dax/drivers"
OK = "ok"
pytestmark = pytest.mark.parametrize("kernel", KERNELS)


def machine_of(name, kernel):
    return tree(evolve(MACHINES[name], kernel=kernel))


def names(machine, path):
    return set(machine.list(path).names)


def test_unbind_and_bind(kernel):
    """Unbound, the driver link is gone; bound again, it is back."""
    machine = machine_of("static", kernel)
    real = machine.follow(DEVICE)[0]
    assert OK == wrote(machine, f"{DRIVERS}/device_dax/unbind", "dax0.0")
    assert "driver" not in names(machine, real)
    assert "dax0.0" not in names(machine, f"{DRIVERS}/device_dax")
    assert OK == wrote(machine, f"{DRIVERS}/device_dax/bind", "dax0.0")
    assert isinstance(machine.lookup(f"{real}/driver"), Link)


def test_new_id_lets_a_driver_take_a_device(kernel):
    """new_id binds the device at once, if it is free."""
    machine = machine_of("dynamic, unbound", kernel)
    assert OK == wrote(machine, f"{DRIVERS}/device_dax/new_id", "dax0.0")
    assert "dax0.0" in names(machine, f"{DRIVERS}/device_dax")


def test_a_driver_knows_what_it_had_at_boot(kernel):
    """A device that was bound at boot can be bound again, even where its driver would not take it by itself."""
    machine = machine_of("dynamic", kernel)
    for file in ("unbind", "bind"):
        assert OK == wrote(machine, f"{DRIVERS}/device_dax/{file}", "dax0.0")
    for file in ("remove_id", "unbind"):
        assert OK == wrote(machine, f"{DRIVERS}/device_dax/{file}", "dax0.0")
    expected = OK if kernel == "6.1" else "ENODEV"
    assert expected == wrote(machine, f"{DRIVERS}/device_dax/bind", "dax0.0")


def test_drivers_probe(kernel):
    """An unknown name is ENODEV, a bound device is left alone, a free one finds the driver that matches."""
    machine = machine_of("dynamic, unbound", kernel)
    probe = "/sys/bus/dax/drivers_probe"
    assert "ENODEV" == wrote(machine, probe, "garbage")
    taker = "device_dax" if kernel == "6.1" else "kmem"
    for _ in range(2):
        assert OK == wrote(machine, probe, "dax0.0")
        assert "dax0.0" in names(machine, f"{DRIVERS}/{taker}")


def test_no_device_where_no_room_is_left(kernel):
    """create is ENOSPC while all of the region is taken."""
    machine = machine_of("dynamic", kernel)

    assert "ENOSPC" == wrote(machine, f"{machine.follow(DEVICE)[0].rpartition('/')[0]}/dax_region/create", "1")
