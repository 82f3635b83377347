"""``/sys/kernel/mm/tdx``: the ABI that the discussion asks for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from tdxfs import delta
from tdxfs.conflicts import Finding, numbered
from tdxfs.model import Machine, Tdmr
from tdxfs.policy import axes
from tdxfs.ranges import Range
from tdxfs.sysfs.attribute import Attribute, Directory, Tier, always, directories, ro, rw
from tdxfs.sysfs.codec import CHOICE, DECIMAL, HEX, LINE, WORD
from tdxfs.sysfs.guests import GuestsDir
from tdxfs.transitions.policy import RUNTIME, set_policy

K = TypeVar("K")


class RangeDir(Directory[K]):
    """A physical address range."""

    WHAT = "/sys/kernel/mm/tdx/.../<range>"
    TIER = Tier.PROPOSED

    @property
    def range(self) -> Range:
        raise NotImplementedError

    @ro(HEX)
    def start(self) -> int:
        """First physical address."""
        return self.range.start

    @ro(HEX)
    def end(self) -> int:
        """Last physical address (inclusive), as in a dax mapping."""
        return self.range.end - 1


class CmrDir(RangeDir[int]):
    """A convertible memory range, as the firmware reports it."""

    WHAT = "/sys/kernel/mm/tdx/cmr/cmr<id>"

    @property
    def range(self) -> Range:
        assert self.machine.topology.tdx is not None
        return self.machine.topology.tdx.cmrs[self.key]


class CmrsDir(Directory[Any]):
    """The convertible memory ranges."""

    WHAT = "/sys/kernel/mm/tdx/cmr"
    FOLLOWS = staticmethod(delta.topology)
    TIER = Tier.PROPOSED

    @directories("cmr<id>", CmrDir)
    def cmrs(self) -> Collection[int]:
        """One per range."""
        return range(len(self.machine.topology.tdx.cmrs)) if self.machine.topology.tdx else ()


class ReservedDir(RangeDir[tuple[int, int]]):
    """A reserved area of a TDMR; key: (TDMR, index)."""

    WHAT = "/sys/kernel/mm/tdx/tdmr/tdmr<id>/reserved/r<id>"

    @property
    def range(self) -> Range:
        tdmr, number = self.key
        return self.machine.tdx.tdmrs[tdmr].reserved[number]


class ReservedAreasDir(Directory[int]):
    """The reserved areas of a TDMR: PAMTs, and what is not TDX memory."""

    WHAT = "/sys/kernel/mm/tdx/tdmr/tdmr<id>/reserved"
    TIER = Tier.PROPOSED

    @directories("r<id>", ReservedDir, nested=True)
    def areas(self) -> Collection[int]:
        """One per area."""
        return range(len(self.machine.tdx.tdmrs[self.key].reserved))


class TdmrDir(RangeDir[int]):
    """A TD memory region."""

    WHAT = "/sys/kernel/mm/tdx/tdmr/tdmr<id>"

    reserved = always(ReservedAreasDir)

    @property
    def tdmr(self) -> Tdmr:
        return self.machine.tdx.tdmrs[self.key]

    @property
    def range(self) -> Range:
        return self.tdmr.range

    @ro(DECIMAL)
    def pamt_bytes(self) -> int:
        """Size of the PAMT, bytes."""
        return self.tdmr.pamt.size

    @ro(HEX)
    def pamt_start(self) -> int:
        """First physical address of the PAMT."""
        return self.tdmr.pamt.start


class TdmrsDir(Directory[Any]):
    """The TD memory regions."""

    WHAT = "/sys/kernel/mm/tdx/tdmr"
    FOLLOWS = staticmethod(delta.tdx)
    TIER = Tier.PROPOSED

    @directories("tdmr<id>", TdmrDir)
    def tdmrs(self) -> Collection[int]:
        """One per region."""
        return range(len(self.machine.tdx.tdmrs))


class PolicyDir(Directory[Any]):
    """The policy axes: the value in force in brackets, then the others."""

    WHAT = "/sys/kernel/mm/tdx/policy"
    TIER = Tier.PROPOSED


def _axis(name: str) -> Attribute[PolicyDir, tuple[str, Sequence[str]]]:
    kind = axes()[name]

    def show(directory: PolicyDir) -> tuple[str, Sequence[str]]:
        return str(getattr(directory.machine.policies, name)), [str(value) for value in kind]

    def store(directory: PolicyDir, word: str) -> Machine:
        return set_policy(directory.machine, name, word)

    change = "" if name in RUNTIME else " Only a boot changes it: EPERM."
    show.__doc__ = f"{kind.__doc__} {', '.join(map(str, kind))}.{change}"
    attribute = rw(CHOICE, takes=WORD, name=name)(show)
    attribute.store(store)
    return attribute


for _name in axes():
    PolicyDir.DECLARED[_name] = _axis(_name)


class ConflictRangeDir(RangeDir[tuple[int, int]]):
    """One of the ranges of a conflict; key: (conflict, index)."""

    WHAT = "/sys/kernel/mm/tdx/conflicts/conflict<id>/range<id>"
    OF_TASKS = True

    @property
    def range(self) -> Range:
        number, index = self.key
        return numbered(self.machine)[number].ranges.parts[index]


class ConflictDir(Directory[int]):
    """A conflict."""

    WHAT = "/sys/kernel/mm/tdx/conflicts/conflict<id>"
    TIER = Tier.PROPOSED
    OF_TASKS = True

    @property
    def finding(self) -> Finding:
        return numbered(self.machine)[self.key]

    @ro(WORD)
    def kind(self) -> str:
        """What sort of conflict it is; tdxfs explain says more."""
        return self.finding.kind

    @ro(WORD)
    def severity(self) -> str:
        """info, warning or error."""
        return self.finding.severity.value

    @ro(LINE)
    def subject(self) -> str:
        """What the conflict is about."""
        return self.finding.subject

    @ro(DECIMAL)
    def node(self) -> int:
        """The node concerned. Absent if there is none."""
        assert self.finding.node is not None
        return self.finding.node

    @node.visible
    def _has_node(self) -> bool:
        return self.finding.node is not None

    @ro(WORD)
    def dax(self) -> str:
        """The dax device concerned. Absent if there is none."""
        return self.finding.dax

    @dax.visible
    def _has_dax(self) -> bool:
        return bool(self.finding.dax)

    @ro(HEX)
    def start(self) -> int:
        """First physical address of all ranges. Absent if there are none."""
        return self.finding.ranges.parts[0].start

    @ro(HEX)
    def end(self) -> int:
        """Last physical address (inclusive) of all ranges. Absent if there are none."""
        return self.finding.ranges.parts[-1].end - 1

    def _has_ranges(self) -> bool:
        return bool(self.finding.ranges)

    start.visible(_has_ranges)
    end.visible(_has_ranges)

    @ro(LINE)
    def reason(self) -> str:
        """One sentence that says why."""
        return self.finding.reason

    @ro(LINE)
    def remedy(self) -> str:
        """A command that removes the conflict, or none: and why there is none."""
        return str(self.finding.remedy)

    @directories("range<id>", ConflictRangeDir, nested=True)
    def ranges(self) -> Collection[int]:
        """One per range."""
        return range(len(self.finding.ranges))


class ConflictsDir(Directory[Any]):
    """The conflicts of the machine."""

    WHAT = "/sys/kernel/mm/tdx/conflicts"
    TIER = Tier.PROPOSED
    OF_TASKS = True

    @ro(DECIMAL, notifies=True)
    def count(self) -> int:
        """How many conflicts there are."""
        return len(numbered(self.machine))

    @ro(DECIMAL, notifies=True)
    def generation(self) -> int:
        """Changes of the machine since it booted."""
        return self.machine.generation

    @directories("conflict<id>", ConflictDir)
    def all(self) -> Collection[int]:
        """One per conflict; it keeps its number while it lasts, and no other ever gets it."""
        return numbered(self.machine)


class TdxDir(Directory[Any]):
    """What TDX became at boot. Absent when the platform has no TDX."""

    WHAT = "/sys/kernel/mm/tdx"
    TIER = Tier.PROPOSED

    cmr = always(CmrsDir)
    tdmr = always(TdmrsDir)
    policy = always(PolicyDir)
    conflicts = always(ConflictsDir)
    guests = always(GuestsDir)

    @ro(WORD, notifies=True)
    def state(self) -> str:
        """enabled or disabled."""
        return "enabled" if self.machine.tdx.enabled else "disabled"

    @ro(LINE)
    def disabled_reason(self) -> str:
        """Why TDX is disabled. Absent while it is enabled."""
        return self.machine.tdx.disabled_reason

    @disabled_reason.visible
    def _is_disabled(self) -> bool:
        return not self.machine.tdx.enabled
