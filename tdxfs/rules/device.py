"""Rules about dax devices and PCI BARs."""

from __future__ import annotations

from collections.abc import Iterator

from tdxfs import nodes, remedies
from tdxfs.capability import judge, judge_dax, judge_target_node, node_verdicts
from tdxfs.model import Driver, Machine, Why
from tdxfs.policy import Validate
from tdxfs.ranges import Ranges
from tdxfs.render import rounded
from tdxfs.rules.finding import Finding, Severity, ranges_of, whys


def incapable_dax(machine: Machine) -> Iterator[Finding]:
    """
    A dax device holds memory that is not convertible: a guest that maps it dies at its first touch, and
    nothing that software does can change that. Bound to kmem the device cannot be mapped, and its node speaks for it.
    """
    fix = remedies.none("the firmware reports no CMR there, and no software can add one")
    for key, device in sorted(machine.dax.items()):
        if device.driver is Driver.KMEM:
            continue
        holes = [hole for hole in judge_dax(machine, key).holes if hole.why is Why.NOT_CONVERTIBLE]
        if holes:
            ranges = ranges_of(holes)
            reason = f"{device.name} holds {rounded(ranges.size)} of memory that is not convertible."
            target = machine.regions[key[0]].target_node
            yield Finding("incapable-dax", Severity.WARNING, device.name, reason, fix, target, device.name, ranges)


def dax_would_mix_node(machine: Machine) -> Iterator[Finding]:
    """
    The target node of a dax device is TDX capable now. With the device onlined there as System RAM it
    would not be any more, and guests on that node could be given memory that kills them. Unless
    hotplug=allow the kernel does not let it come to that.
    """
    verdicts = node_verdicts(machine)
    for key, device in sorted(machine.dax.items()):
        target = machine.regions[key[0]].target_node
        if device.driver is Driver.KMEM or target is None or not verdicts.get(target):
            continue
        after = judge_target_node(machine, key)
        if not after:
            reason = f"Onlining {device.name} would make node {target} {after.word} ({whys(after.holes)})."
            fix = remedies.none(f"nothing is wrong as long as {device.name} stays in devdax mode")
            ranges = ranges_of(after.holes)
            yield Finding("dax-would-mix-node", Severity.INFO, device.name, reason, fix, target, device.name, ranges)


def target_node_absent(machine: Machine) -> Iterator[Finding]:
    """
    A dax device's memory would belong to a node that has no directory until some of it is online, so
    nothing under devices/system/node speaks about it. The device's own x86/target_node_tdx_capable does.
    """
    online = nodes.online_nodes(machine)
    for key, device in sorted(machine.dax.items()):
        target = machine.regions[key[0]].target_node
        if device.size and target is not None and target not in online:
            reason = f"{device.name} would belong to node {target}, which has no directory."
            fix = remedies.none("the node appears when kmem takes the device; x86/target_node_tdx_capable answers now")
            yield Finding("target-node-absent", Severity.INFO, device.name, reason, fix, target, device.name)


def bar_in_guest_range(machine: Machine) -> Iterator[Finding]:
    """
    A program can hand a PCI BAR to KVM as guest memory and, under validate=none, KVM checks nothing: the
    guest dies when it touches the BAR. validate=file refuses the memory slot.
    """
    if machine.policies.validate is not Validate.NONE:
        return
    for device in machine.topology.pci_devices:
        for bar in device.bars:
            if not judge(machine, Ranges((bar.range,))):
                subject = f"{device.address} resource{bar.index}"
                reason = f"KVM accepts {subject} as guest memory although it cannot back a TDX guest."
                fix = remedies.set_policy(validate=Validate.FILE)
                node = device.numa_node if device.numa_node >= 0 else None
                ranges = Ranges((bar.range,))
                yield Finding("bar-in-guest-range", Severity.WARNING, subject, reason, fix, node, ranges=ranges)
