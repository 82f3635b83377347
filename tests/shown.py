"""What a machine shows in the judge's scope, without mounting it: for comparing two topologies of one machine."""

import re

from attrs import evolve
from captures import GOLDEN

from tdxfs.boot import boot
from tdxfs.errors import Refusal
from tdxfs.formats.firmware.pfn_device import MapMode
from tdxfs.formats.firmware.unsaid import Unsaid, default_base
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.model import Driver
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Directory, File, Tier
from tdxfs.tree import Tree, content

COUNTERS = re.compile(r"/(meminfo|vmstat|numastat|free_hugepages|seed)$")
UUID = re.compile(r"/uuid$")
"""What no firmware says."""
AS_BOOTED = (
    "m1/base",
    "m2-k73/base",
    "m3-k73/base",
    "m4-k73/base",
    "m4-k73/devdax",
    "m5/back-to-devdax",
    "m5-k612/back-to-devdax",
    "m7-k73/base",
    "m9-k73/base",
    "m13-k73/devdax",
    "m15/base",
)
"""The captured stages that firmware, and what is on the NVDIMMs, account for: nothing was done since that lasts."""


def shown(topology, top="/sys"):
    """Path -> mode and content, link text or names below `top`; counters by their shape, no uuid."""
    tree = Tree(Root, boot(topology), frozenset({Tier.KERNEL}))
    found = {}
    todo = [top]
    while todo:
        path = todo.pop()
        entry = tree.lookup(path)
        if isinstance(entry, Directory):
            names = tuple(tree.list(path).names)
            found[path] = names
            todo += [f"{path}/{name}" for name in names]
        elif isinstance(entry, File):
            found[path] = (oct(entry.mode), _content(path, entry))
        else:
            found[path] = entry.target
    return found


def _content(path, file):
    if not file.mode & 0o444 or UUID.search(path):
        return None
    try:
        text = content(file).decode("latin1")
    except Refusal as refusal:
        return refusal.errno
    return re.sub(r" *\d+", " #", text) if COUNTERS.search(path) else text


def difference(one, other):
    """The paths that two machines do not show alike, with what each shows."""
    return {
        path: (one.get(path), other.get(path)) for path in one.keys() | other.keys() if one.get(path) != other.get(path)
    }


BOOTED = {
    machine: stage for machine, _, stage in (name.partition("/") for name in (*AS_BOOTED, "m8b-k612/all-movable"))
}
"""Machine -> the stage that tells how it booted, and what is on its NVDIMMs; what was done later can be replayed."""


def recorded(stage, golden=GOLDEN):
    """A captured stage as the sysfs import reads it, and a base with everything of it that firmware does not say."""
    topology = import_sysfs(golden / stage)
    layout = evolve(topology.memory, offline="", movable="", online="")
    silent = default_base(evolve(topology, dax_regions=(), memory=layout))
    return topology, evolve(silent, cpus=(), nodes=(), distances=(), possible_nodes="", generic_initiators="")


def unsaid_of(topology):
    """What firmware does not say of a recorded machine: SMT, and what was on the NVDIMMs."""
    devices = [device for region in topology.dax_regions if region.static for device in region.devices]
    return Unsaid(
        threads=max(cpu.thread for cpu in topology.cpus) + 1,
        hypervisor=topology.microcode == 0,
        devdax=bool(devices),
        map=MapMode.DEV if any(device.map_on_pmem for device in devices) else MapMode.MEM,
        driver=devices[0].driver or Driver.DEVICE_DAX if devices else Driver.DEVICE_DAX,
    )
