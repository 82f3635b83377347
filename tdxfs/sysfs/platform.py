"""What devices on the platform bus and ACPI devices have; compare drivers/base/platform.c."""

from __future__ import annotations

from typing import Any, ClassVar

from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import link, ro
from tdxfs.sysfs.codec import LINE, TEXT, WORD
from tdxfs.sysfs.knob import knob
from tdxfs.sysfs.power import DeviceDir, uevent


def _override(directory: object, text: str) -> str:
    # driver_set_override(): up to a newline, and nothing takes it back
    return text.partition("\n")[0] or "(null)"


class PlatformDeviceDir(DeviceDir[Any]):
    """A device on the platform bus that has its driver."""

    WHAT = "/sys/bus/platform/devices/<device>"
    DRIVER: ClassVar[str] = ""
    MODALIAS: ClassVar[str] = ""

    @uevent
    def uevent(self) -> str:
        """Driver and modalias."""
        return f"DRIVER={self.DRIVER}\nMODALIAS={self.MODALIAS}\n"

    @ro(LINE)
    def modalias(self) -> str:
        """Modalias of the device."""
        return self.MODALIAS

    @knob(LINE, takes=TEXT, check=_override)
    def driver_override(self) -> str:
        """The only driver that may bind; (null): any."""
        return "(null)"

    @link
    def driver(self) -> str:
        """The driver it is bound to."""
        return f"{paths.bus('platform')}/drivers/{self.DRIVER}"

    @link
    def subsystem(self) -> str:
        """The platform bus."""
        return paths.bus("platform")


class AcpiDeviceDir(DeviceDir[Any]):
    """A device of the ACPI namespace."""

    WHAT = "/sys/bus/acpi/devices/<device>"
    HID: ClassVar[str] = ""
    DRIVER: ClassVar[str] = ""
    """Empty: none binds."""

    @uevent
    def uevent(self) -> str:
        """Driver, if there is one, and modalias."""
        driver = f"DRIVER={self.DRIVER}\n" if self.DRIVER else ""
        return f"{driver}MODALIAS=acpi:{self.HID}:\n"

    @ro(WORD)
    def hid(self) -> str:
        """Hardware id."""
        return self.HID

    @ro(LINE)
    def modalias(self) -> str:
        """Modalias of the device."""
        return f"acpi:{self.HID}:"

    @link
    def driver(self) -> str | None:
        """The driver it is bound to. Absent when unbound."""
        return f"{paths.bus('acpi')}/drivers/{self.DRIVER}" if self.DRIVER else None

    @link
    def subsystem(self) -> str:
        """The ACPI bus."""
        return paths.bus("acpi")
