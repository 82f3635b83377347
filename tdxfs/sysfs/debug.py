"""``/sys/kernel/debug/tdxfs``: what only the emulator has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from tdxfs.errors import InvalidValue
from tdxfs.kmsg import format_dmesg
from tdxfs.mempolicy import zonelists
from tdxfs.model import Machine
from tdxfs.policy import Axis, parse_axis
from tdxfs.ranges import Range
from tdxfs.sysfs.attribute import Directory, Tier, ro, wo
from tdxfs.sysfs.codec import LINE, TEXT, WORD, Codec, kstrto
from tdxfs.transitions.hotplug import plug_cxl, plug_memory, unplug
from tdxfs.transitions.policy import reboot

VERBS = {"plug": ("node", "base", "size"), "unplug": ("base",)}
"""Verb of a hotplug request -> the numbers that it takes."""
KINDS = {"memory": plug_memory, "cxl": plug_cxl}
"""What can be plugged; a memory module unless it is said."""


@frozen
class Request:
    """One line that was written to `hotplug`."""

    verb: str
    numbers: Mapping[str, int]
    kind: str = "memory"

    def __str__(self) -> str:
        kind = f" kind={self.kind}" if self.kind != "memory" else ""
        return f"{self.verb}{kind}" + "".join(
            f" {name}={value if name == 'node' else hex(value)}" for name, value in self.numbers.items()
        )


def _request(text: str) -> Request:
    verb, *words = text.split()
    fields = dict(word.split("=", 1) for word in words)
    kind = fields.pop("kind", "memory")
    if verb not in VERBS or kind not in KINDS or fields.keys() != set(VERBS[verb]):
        raise ValueError(text)
    return Request(verb, {name: kstrto(fields[name], 0, 64) for name in VERBS[verb]}, kind)


REQUEST: Codec[Request] = Codec(
    "plug [kind=memory|cxl] node=<id> base=<address> size=<bytes>, or unplug base=<address>", str, _request
)


def _axes(text: str) -> dict[str, Axis]:
    words = [word.partition("=") for word in text.split()]
    return {name: parse_axis(name, value) for name, _, value in words}


AXES: Codec[dict[str, Axis]] = Codec(
    "policies to boot with, AXIS=VALUE",
    lambda policies: " ".join(f"{name}={value}" for name, value in policies.items()),
    _axes,
)


class TdxfsDir(Directory[Any]):
    """About the emulated machine itself."""

    WHAT = "/sys/kernel/debug/tdxfs"
    TIER = Tier.EMULATOR

    @ro(TEXT, size=0)
    def log(self) -> str:
        """The emulated kernel log as dmesg prints it, whole."""
        return format_dmesg(self.machine.log)

    @ro(LINE)
    def topology(self) -> str:
        """Name of the topology."""
        return self.machine.topology.name

    @ro(WORD)
    def kernel(self) -> str:
        """The kernel that is emulated."""
        return self.machine.topology.kernel

    @ro(TEXT, size=0)
    def zonelists(self) -> str:
        """One line per online node: in which order its allocations try the nodes with memory."""
        return "".join(f"{nid}: {' '.join(map(str, order))}\n" for nid, order in zonelists(self.machine).items())

    hotplug = wo(
        REQUEST,
        f"One request: {REQUEST}. EINVAL for memory that the machine cannot take there, EEXIST where something is, "
        "ENODEV if nothing is plugged at base, EBUSY for what cannot go.",
    )

    @hotplug.store
    def _hotplug(self, request: Request) -> Machine:
        numbers = request.numbers
        if request.verb == "unplug":
            return unplug(self.machine, numbers["base"])
        if not numbers["size"]:
            raise InvalidValue("a size of 0")
        memory = Range(numbers["base"], numbers["base"] + numbers["size"])
        return KINDS[request.kind](self.machine, numbers["node"], memory)

    reboot = wo(AXES, "Boots the same machine again, under the policies written: AXIS=VALUE, separated by blanks.")

    @reboot.store
    def _reboot(self, axes: dict[str, Any]) -> Machine:
        return reboot(self.machine, evolve(self.machine.policies, **axes))


DIRECTORIES = (TdxfsDir,)
