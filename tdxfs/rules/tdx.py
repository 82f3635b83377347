"""Rules about the TDX module and the firmware."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from attrs import evolve

from tdxfs import remedies
from tdxfs.model import Machine
from tdxfs.policy import Boot, Cover, Firmware
from tdxfs.ranges import Range, Ranges
from tdxfs.remedies import Remedy
from tdxfs.render import rounded
from tdxfs.rules.finding import Finding, Severity
from tdxfs.tdmr import TDMR_NR_WARN

RESERVED_NR_WARN = 2


def tdx_disabled(machine: Machine) -> Iterator[Finding]:
    """
    TDX did not come up at boot, so no TDX guest can run. Under boot=strict one range of System RAM
    that is not convertible is enough; the exact range stands in `disabled_reason` and in the kernel log.
    """
    if machine.tdx.enabled:
        return
    reason = f"TDX is disabled: {machine.tdx.disabled_reason}."
    yield Finding("tdx-disabled", Severity.ERROR, "machine", reason, _enable(machine), ranges=machine.tdx.culprits)


def _enable(machine: Machine) -> Remedy:
    # of the policies under which TDX comes up, those that change least
    now = machine.policies
    changes = []
    for boot, cover, firmware in product(dict.fromkeys((now.boot, Boot.MIXED)), Cover, Firmware):
        wanted = {"boot": boot, "cover": cover, "firmware": firmware}
        changes.append({name: value for name, value in wanted.items() if value is not getattr(now, name)})
    for axes in sorted(changes, key=len):
        if axes and remedies.rebooted(machine, evolve(now, **axes)).tdx.enabled:
            return remedies.reboot(machine, **axes)
    return remedies.none("TDX comes up under no policy: the firmware gives it too few KeyIDs, or memory unfit for it")


def tdmr_exhausted(machine: Machine) -> Iterator[Finding]:
    """
    The memory is in more pieces than the TDX module can describe: it takes a fixed number of TDMRs, and
    each has a fixed number of reserved areas for the holes in it. The kernel gave up and TDX is disabled.
    """
    if machine.tdx.exhausted:
        what = "TDMRs" if machine.tdx.exhausted == "tdmrs" else "reserved areas of a TDMR"
        reason = f"The {what} are exhausted: the memory is in too many pieces."
        yield Finding("tdmr-exhausted", Severity.ERROR, "machine", reason, _enable(machine))


def tdmr_nearly_exhausted(machine: Machine) -> Iterator[Finding]:
    """
    TDX is on, but little more memory can be described to the TDX module: fewer than four TDMRs are
    left, or fewer than two reserved areas in one of them. A change of the memory map can disable TDX.
    """
    platform = machine.topology.tdx
    assert platform is not None
    fix = remedies.none("the firmware's memory map decides into how many pieces memory falls")
    left = platform.max_tdmrs - len(machine.tdx.tdmrs)
    if left < TDMR_NR_WARN:
        reason = f"TDMRs in use: {len(machine.tdx.tdmrs)} of {platform.max_tdmrs}."
        yield Finding("tdmr-nearly-exhausted", Severity.INFO, "machine", reason, fix)
    for number, tdmr in enumerate(machine.tdx.tdmrs):
        if platform.max_reserved_per_tdmr - len(tdmr.reserved) < RESERVED_NR_WARN:
            count = f"{len(tdmr.reserved)} of {platform.max_reserved_per_tdmr}"
            reason = f"Reserved areas of TDMR {number} in use: {count}."
            ranges = Ranges((tdmr.range,))
            yield Finding("tdmr-nearly-exhausted", Severity.INFO, f"tdmr{number}", reason, fix, ranges=ranges)


def firmware_hidden(machine: Machine) -> Iterator[Finding]:
    """
    The firmware took CXL memory that is not convertible off the memory map before the kernel saw it. Every
    node that is left can be capable, at the price of that memory.
    """
    for nid in sorted(set(machine.hidden.values)):
        ranges = Ranges.of(Range(start, end) for start, end, owner in machine.hidden.runs() if owner == nid)
        reason = f"The firmware hides {rounded(ranges.size)} of CXL memory, because not all of it is convertible."
        fix = remedies.none("with firmware=permissive the memory is there, but no TDX guest can use it")
        node = nid if nid >= 0 else None
        subject = "hidden memory" if node is None else f"hidden memory of node {nid}"
        yield Finding("firmware-hidden", Severity.INFO, subject, reason, fix, node, ranges=ranges)
