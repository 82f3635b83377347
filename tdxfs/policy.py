"""The six policy axes: what a kernel and a firmware could do on a mixed machine.

Each axis is independent. A topology may set any of them; a ``--policy axis=value``
option overrides it. The words are those of the sysfs files under ``kernel/mm/tdx/policy``.
"""

from enum import Enum
from typing import Any

from attrs import Attribute, fields, frozen


class Axis(Enum):
    """A policy axis; each member's `value` is the word a user writes."""

    def __str__(self) -> str:
        return str(self.value)


class Boot(Axis):
    """What the kernel does at boot when some System RAM cannot back a TDX guest."""

    OFF = "off"
    """TDX is not enabled."""
    STRICT = "strict"
    """Any incapable System RAM disables TDX, with a message."""
    MIXED = "mixed"
    """TDX is on, System RAM may be mixed."""


class Firmware(Axis):
    """What the platform firmware does with CXL memory that is not convertible."""

    PERMISSIVE = "permissive"
    """It is on the memory map."""
    DISABLE_INCAPABLE = "disable-incapable"
    """It is taken off the memory map before the kernel sees it."""


class Cover(Axis):
    """Which memory the TDMRs cover."""

    RAM = "ram"
    """The System RAM present at boot only, as mainline does."""
    CONVERTIBLE = "convertible"
    """Every convertible range, so that memory onlined later can be used."""


class Hotplug(Axis):
    """What happens when memory outside TDX memory is about to go online."""

    REJECT = "reject"
    """EPERM for each block, nothing printed, as mainline."""
    REJECT_RANGE = "reject-range"
    """The whole range is refused at hot-add: EINVAL and one message."""
    ALLOW = "allow"
    """It goes online; the machine becomes mixed."""


class Validate(Axis):
    """What KVM checks when a memory slot is created."""

    NONE = "none"
    """Nothing: garbage in, garbage out."""
    FILE = "file"
    """File-backed mappings (dax, PCI BARs)."""
    PLEDGE = "pledge"
    """NUMA policies too, and later changes that would undermine them are declined."""


class Report(Axis):
    """What the kernel says when a guest meets memory that cannot back it."""

    SILENT = "silent"
    """What mainline prints, no more."""
    MESSAGE = "message"
    """Enhanced messages, and death records with a remedy."""


@frozen
class Policies:
    """One value per axis; the defaults are those of the design."""

    boot: Boot = Boot.MIXED
    firmware: Firmware = Firmware.PERMISSIVE
    cover: Cover = Cover.RAM
    hotplug: Hotplug = Hotplug.REJECT
    validate: Validate = Validate.NONE
    report: Report = Report.MESSAGE


def axes() -> dict[str, type[Axis]]:
    """Name of each axis -> its enum, in the design's order."""
    return {axis.name: _kind(axis) for axis in fields(Policies)}


def _kind(axis: "Attribute[Any]") -> type[Axis]:
    kind = axis.type
    assert isinstance(kind, type) and issubclass(kind, Axis)
    return kind


def parse_axis(name: str, word: str) -> Axis:
    """The value of axis `name` called `word`; ValueError says what is allowed."""
    kinds = axes()
    if name not in kinds:
        raise ValueError(f"policy {name!r} is not one of {', '.join(kinds)}")
    for value in kinds[name]:
        if value.value == word:
            return value
    allowed = ", ".join(str(value) for value in kinds[name])
    raise ValueError(f"policy {name}: {word!r} is not one of {allowed}")
