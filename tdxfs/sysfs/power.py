"""``power/`` and ``uevent``, which every device has; compare drivers/base/power/sysfs.c."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from tdxfs.errors import InputOutput
from tdxfs.model import Machine, kernel_at_least
from tdxfs.sysfs.attribute import ALL_TIERS, Attribute, Directory, Entry, File, Link, Tier, always, ro, rw, wo
from tdxfs.sysfs.codec import DECIMAL, TEXT, WORD, Codec
from tdxfs.sysfs.knob import knob, one_of
from tdxfs.uevents import with_uevent

K = TypeVar("K")


UEVENT_ACTIONS = ("add", "remove", "change", "move", "online", "offline", "bind", "unbind")
_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_UEVENT = re.compile(f"({'|'.join(UEVENT_ACTIONS)})( {_UUID}( [0-9a-zA-Z]+=[0-9a-zA-Z]+)*)?")


def _action(text: str) -> str:
    match = _UEVENT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return text


ACTION: Codec[str] = Codec(f"{', '.join(UEVENT_ACTIONS)}, then a UUID and KEY=VALUE pairs if wanted", str, _action)


def uevent(show: Callable[[Any], str]) -> Attribute[Any, str]:
    """A device's ``uevent``: it reads as the decorated function says, and a write asks for a synthetic uevent."""
    attribute: Attribute[Any, str] = rw(TEXT, takes=ACTION)(show)
    attribute.store(_asked)
    return attribute


def uevent_request(doc: str) -> Attribute[Any, str]:
    """The ``uevent`` of a bus or driver: it can only be written."""
    attribute = wo(ACTION, doc)
    attribute.store(_asked)
    return attribute


def _asked(directory: Directory[Any], request: str) -> Machine:
    # kobject_synth_uevent(): its own lines, then who asked for it
    show = directory.lookup("uevent")
    own = show.show().decode().splitlines() if isinstance(show, File) and show.mode & 0o444 else []
    link = directory.lookup("subsystem")
    kind = link.target if isinstance(link, Link) else directory.path.rpartition("/")[0]
    action, uuid, *arguments = [*request.split(" "), "0"][: max(len(request.split(" ")), 2)]
    lines = (*own, f"SYNTH_UUID={uuid}", *(f"SYNTH_ARG_{argument}" for argument in arguments))
    return with_uevent(directory.machine, action, directory.path, kind.rpartition("/")[2], lines)


class PowerDir(Directory[Any]):
    """Power management of the device."""

    WHAT = "/sys/devices/.../power"

    @knob(WORD, check=one_of("enabled", "disabled"), name="async")
    def async_(self) -> str:
        """Whether the device is suspended asynchronously: enabled or disabled."""
        return "disabled"

    @rw(DECIMAL)
    def autosuspend_delay_ms(self) -> int:
        """Milliseconds until autosuspend. EIO where the device does not use autosuspend."""
        raise InputOutput("autosuspend is not used")

    @autosuspend_delay_ms.store
    def _set_delay(self, delay: int) -> Machine:
        raise InputOutput("autosuspend is not used")

    @knob(WORD, check=one_of("auto", "on"))
    def control(self) -> str:
        """auto: the device may be suspended at run time; on: it may not."""
        return "auto"

    @ro(DECIMAL)
    def runtime_active_kids(self) -> int:
        """Number of runtime-active children."""
        return 0

    @ro(DECIMAL)
    def runtime_active_time(self) -> int:
        """Milliseconds the device was active."""
        return 0

    @ro(WORD)
    def runtime_enabled(self) -> str:
        """Whether runtime PM is enabled for the device."""
        return "disabled"

    @ro(WORD)
    def runtime_status(self) -> str:
        """Runtime PM status; unsupported where runtime PM is disabled."""
        return "unsupported"

    @ro(DECIMAL)
    def runtime_suspended_time(self) -> int:
        """Milliseconds the device was suspended."""
        return 0

    @ro(DECIMAL)
    def runtime_usage(self) -> int:
        """Usage count of the device."""
        return 0


class ContainerPowerDir(PowerDir):
    """Power management of a device that is only a container (``accessN``, side caches)."""

    SINCE_7_3 = ("async",)
    BEFORE = ("async", "runtime_active_kids", "runtime_enabled", "runtime_status", "runtime_usage")

    @classmethod
    def shown(cls, machine: Machine) -> tuple[str, ...]:
        return cls.SINCE_7_3 if kernel_at_least(machine.topology.kernel, "7.3") else cls.BEFORE

    def lookup(self, name: str, tiers: Collection[Tier] = ALL_TIERS) -> Entry | None:
        return super().lookup(name, tiers) if name in self.shown(self.machine) else None

    def entries(self, tiers: Collection[Tier] = ALL_TIERS) -> Iterator[tuple[str, int]]:
        return (entry for entry in super().entries(tiers) if entry[0] in self.shown(self.machine))


class DeviceDir(Directory[K]):
    """What every device directory has."""

    power = always(PowerDir)

    @uevent
    def uevent(self) -> str:
        """Reads empty; a write asks for a uevent (add, remove, change, ...)."""
        return ""
