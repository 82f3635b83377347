"""The conflicts: every rule speaks where it should, and every remedy does what it says."""

import re
from collections import Counter

import pytest
from attrs import evolve
from click.testing import CliRunner
from hypothesis import given
from immutables import Map
from machines import MIXED, booted
from strategies import machines

from tdxfs import nodes, remedies
from tdxfs.boot import boot
from tdxfs.capability import judge_node
from tdxfs.cli import main
from tdxfs.conflicts import RULES, Severity, conflicts
from tdxfs.formats.topology import builtin_names, find
from tdxfs.idlist import parse_list
from tdxfs.model import (
    GIB,
    MIB,
    DaxDevice,
    DaxRegion,
    Driver,
    Memory,
    MemoryLayout,
    MemPolicy,
    Mode,
    Node,
    Provider,
    Task,
    TdxPlatform,
)
from tdxfs.policy import Boot, Cover, Firmware, Hotplug, Report, Validate
from tdxfs.ranges import Range, Ranges, RunMap
from tdxfs.transitions.policy import RUNTIME

BUILTINS = [name for name in builtin_names() if name != "huge"]


def found(machine):
    return {(finding.kind, finding.subject): finding for finding in conflicts(machine)}


def policy(topology, **axes):
    return booted(evolve(topology, policies=evolve(topology.policies, **axes)))


def only(machine, kind):
    """The one finding of a kind."""
    (finding,) = (finding for finding in conflicts(machine) if finding.kind == kind)
    return finding


BOUND = MemPolicy(Mode.BIND, frozenset({0}))


def running(*tasks):
    """A machine on which tasks run."""
    return evolve(booted(MIXED), tasks=Map({task.pid: task for task in tasks}))


def named(machine):
    """Findings about tasks, by subject."""
    return {finding.subject: finding for finding in conflicts(machine) if finding.kind == "task-policy"}


class TestRemedies:
    @given(machines)
    def test_a_remedy_removes_its_finding_and_causes_none_worse(self, machine):
        """Applied, a remedy leaves no finding of its kind and subject, and no new one of higher severity."""
        assert_remedies_hold(machine)

    @given(machines)
    def test_commands(self, machine):
        """A remedy is a command that can be typed on this machine, or says why there is none."""
        for finding in conflicts(machine):
            remedy = finding.remedy
            assert bool(remedy.command) == (remedy.action is not None) == (not remedy.why_none)
            if remedy.command:
                assert_typable(machine, remedy.command)
            else:
                assert str(remedy) == f"none: {remedy.why_none}"

    def test_nothing_to_apply(self):
        """Where there is no command there is nothing to apply either."""
        with pytest.raises(ValueError, match="none: because"):
            remedies.apply(booted(), remedies.none("because"))


def assert_remedies_hold(machine):
    """Each remedy removes its finding, and whatever is new is no worse."""
    before = found(machine)
    for key, finding in before.items():
        if finding.remedy.action is None:
            continue
        after = found(remedies.apply(machine, finding.remedy))
        new = [other for name, other in after.items() if name not in before]

        assert key not in after
        assert not [other for other in new if other.severity.rank > finding.severity.rank]


def assert_typable(machine, command):
    """The command has the form its program takes, and speaks of things that are there."""
    if match := re.fullmatch(r"numactl --membind=([0-9,-]+) COMMAND", command):
        assert parse_list(match[1]) <= nodes.has_memory(machine)
    elif match := re.fullmatch(r"echo ([a-z-]+) > /sys/kernel/mm/tdx/policy/([a-z]+)", command):
        assert match[2] in RUNTIME
        assert match[1] in {str(value) for value in type(getattr(machine.policies, match[2]))}
    elif command.startswith("tdxfs reboot "):
        help_text = CliRunner().invoke(main, ["reboot", "--help"]).output
        assert "--policy" in help_text
        assert re.fullmatch(r"tdxfs reboot( --policy [a-z]+=[a-z-]+)+ MOUNTPOINT", command)
    else:
        for part in command.split(" && "):
            match = re.fullmatch(r"chmem --disable -b ([0-9]+)-([0-9]+)", part)
            assert match, command
            states = [machine.blocks.get(number) for number in range(int(match[1]), int(match[2]) + 1)]
            # what Linux refuses: a block that is not there, is offline, or has several zones
            assert all(block and block.online and block.zone for block in states)


class TestFindings:
    @given(machines)
    def test_identity(self, machine):
        """Kind and subject identify a finding."""
        assert not [key for key, count in Counter((f.kind, f.subject) for f in conflicts(machine)).items() if count > 1]

    def test_a_block_of_two_nodes(self):
        """Each of two mixed nodes that share a memory block has its own finding about it."""
        here = Memory(Range(0, 16 * MIB)), Memory(Range(256 * MIB, 384 * MIB))
        nodes = Node(0, here), Node(1, (Memory(Range(16 * MIB, 144 * MIB)),))
        platform = TdxPlatform(cmrs=(Range(20 * MIB, 384 * MIB),))
        found = conflicts(
            boot(evolve(MIXED, nodes=nodes, cpus=MIXED.cpus[:1], distances=(), dax_regions=(), tdx=platform))
        )

        subjects = [finding.subject for finding in found if finding.kind == "incapable-blocks"]
        assert ["memory0 of node0", "memory0 of node1"] == subjects

    @given(machines)
    def test_kinds(self, machine):
        """A finding's kind is that of the rule which found it."""
        for kind, rule in RULES.items():
            if machine.topology.tdx and (machine.tdx.enabled or kind != "tdmr-nearly-exhausted"):
                assert {finding.kind for finding in rule(machine)} <= {kind}

    @given(machines)
    def test_sentences(self, machine):
        """A reason is one short sentence; numbers have human units, nothing is left unfilled."""
        for finding in conflicts(machine):
            assert re.fullmatch(r"[A-Zd0-9].*[^.]\.", finding.reason), finding.reason
            assert ". " not in finding.reason
            assert "\n" not in finding.reason
            assert len(finding.reason) < 200
            assert not re.search(
                r"\bNone\b|\bbytes\b|\bnodes \d+(?!\d*[-,]\d)|\bnode \d+[-,]\d| 0 B\b", finding.reason
            ), finding.reason

    @given(machines)
    def test_ranges(self, machine):
        """A finding's ranges are holes: no page in them can back a TDX guest that could be given it."""
        for finding in conflicts(machine):
            if finding.kind in {"incapable-node", "mixed-node", "incapable-blocks", "incapable-dax", "not-covered"}:
                whys = {w.value for p in finding.ranges for _, _, w in machine.tdx_memory.within(p.start, p.end)}
                assert finding.ranges
                assert "capable" not in whys

    @given(machines)
    def test_disabled(self, machine):
        """While TDX is disabled there is the error that says so, and nothing that would only follow from it."""
        kinds = {finding.kind for finding in conflicts(machine)}

        if machine.topology.tdx is None:
            assert kinds == set()
        else:
            assert ("tdx-disabled" in kinds) == (not machine.tdx.enabled)
            if not machine.tdx.enabled:
                assert kinds <= {"tdx-disabled", "tdmr-exhausted", "firmware-hidden"}

    @given(machines)
    def test_every_node_that_is_not_capable_is_found(self, machine):
        """Of the nodes with memory, exactly those that are not capable have a finding of their own."""
        if machine.tdx.enabled:
            expected = {f"node{nid}" for nid in nodes.has_memory(machine) if not judge_node(machine, nid)}
            actual = {f.subject for f in conflicts(machine) if f.kind in {"incapable-node", "mixed-node"}}
            assert expected == actual


def test_clean_has_none():
    """On the machine without conflicts every rule is silent."""
    assert conflicts(boot(find("clean"))) == ()


def test_no_tdx_has_none():
    """Where there is no TDX, nothing conflicts with it."""
    assert conflicts(booted(evolve(MIXED, tdx=None))) == ()


def test_severities():
    """From least to most: info, warning, error."""
    assert [s.value for s in sorted(Severity, key=lambda s: s.rank)] == ["info", "warning", "error"]


HALF = evolve(MIXED, nodes=MIXED.nodes[:2], distances=(), dax_regions=())
"""Node 0 capable, node 1 capable up to 7 GiB of 6 to 8 GiB."""
MODULE = evolve(
    MIXED,
    nodes=(*MIXED.nodes[:1], Node(1, (Memory(Range(16 * GIB, 18 * GIB), hotplug=True),))),
    distances=(), cpus=MIXED.cpus[:2], dax_regions=(), tdx=TdxPlatform(cmrs=(Range(MIB, 17 * GIB),)),
)  # fmt: skip
"""A memory module added after boot, half of it convertible."""


def dax(target, driver=Driver.DEVICE_DAX, base=12 * GIB):
    whole = Range(base, base + GIB)
    return DaxRegion(0, Provider.HMEM, whole, target, 0, devices=(DaxDevice(0, (whole,), driver),))


class TestRules:
    """One test per rule: where it speaks, what it says, what to type."""

    def test_tdx_disabled(self):
        """One range of System RAM that is not convertible disables TDX under boot=strict."""
        finding = only(policy(MIXED, boot=Boot.STRICT), "tdx-disabled")

        assert finding.severity is Severity.ERROR
        assert finding.reason == "TDX is disabled: System RAM [0x1c0000000, 0x280000000) is not convertible memory."
        assert finding.ranges == Ranges((Range(7 * GIB, 10 * GIB),))
        assert str(finding.remedy) == "tdxfs reboot --policy boot=mixed MOUNTPOINT"

    def test_tdx_disabled_for_good(self):
        """Without KeyIDs for guests no policy helps."""
        finding = only(booted(evolve(MIXED, tdx=evolve(MIXED.tdx, keyids=1))), "tdx-disabled")

        assert str(finding.remedy).startswith("none: TDX comes up under no policy")

    def test_tdmr_exhausted(self):
        """More pieces than TDMRs: an error beside that of TDX being disabled, with the same remedy."""
        machine = booted(evolve(MIXED, tdx=evolve(MIXED.tdx, max_tdmrs=1)))

        assert [f.kind for f in conflicts(machine)] == ["tdx-disabled", "tdmr-exhausted"]
        assert only(machine, "tdmr-exhausted").reason == "The TDMRs are exhausted: the memory is in too many pieces."

    def test_reserved_areas_exhausted(self):
        """More holes than reserved areas is the same kind of conflict."""
        machine = booted(evolve(MIXED, tdx=evolve(MIXED.tdx, max_reserved_per_tdmr=1)))
        expected = "The reserved areas of a TDMR are exhausted: the memory is in too many pieces."

        assert expected == only(machine, "tdmr-exhausted").reason

    def test_tdmr_nearly_exhausted(self):
        """Fewer than four TDMRs left, or fewer than two reserved areas in one."""
        few = booted(evolve(MIXED, tdx=evolve(MIXED.tdx, max_tdmrs=6)))
        holes = booted(evolve(MIXED, tdx=evolve(MIXED.tdx, max_reserved_per_tdmr=3)))

        assert only(few, "tdmr-nearly-exhausted").reason == "TDMRs in use: 3 of 6."
        assert [f.subject for f in conflicts(holes) if f.kind == "tdmr-nearly-exhausted"] == ["tdmr1"]

    def test_default_policy(self):
        """Tasks without a memory policy can be given what kills a guest, although there is better."""
        finding = only(booted(MIXED), "default-policy")

        assert finding.reason == "The default memory policy can reach nodes 1-2, whose memory can kill a TDX guest."
        assert str(finding.remedy) == "numactl --membind=0 COMMAND"

    def test_task_policy(self):
        """A task that can reach an incapable node is named, with the nodes and a command that keeps it off them."""
        machine = running(
            Task(10, "sh"),
            Task(11, "cat", policy=BOUND),
            Task(12, "cat", policy=evolve(BOUND, nodes=frozenset({0, 2}))),
        )
        found = named(machine)

        assert {"PID 10 (sh)", "PID 12 (cat)"} == set(found)
        assert found["PID 12 (cat)"].reason == "PID 12 (cat) may allocate on node 2, which cannot back a TDX guest."
        assert str(found["PID 12 (cat)"].remedy) == "numactl --membind=0 COMMAND"

    def test_policies_of_mappings_and_threads_count(self):
        """The policy of one mapping or thread is enough to reach a node."""
        preferred = MemPolicy(Mode.PREFERRED, frozenset({0}))
        mapped = Task(10, "a", policy=BOUND, mappings=RunMap.of([(4096, 8192, preferred)]))
        machine = running(mapped, Task(12, "b", policy=BOUND), Task(13, "b", leader=12))

        assert {"PID 10 (a)", "PID 12 (b)"} == set(named(machine))

    def test_remedies_of_tasks_hold(self):
        """Bound to the nodes that its remedy names, a task is no conflict any more, and the others are untouched."""
        machine = running(Task(10, "cat"), Task(11, "cat", policy=MemPolicy(Mode.LOCAL)), Task(12, "cat", leader=11))

        assert_remedies_hold(machine)
        assert {"PID 11 (cat)"} == set(named(remedies.apply(machine, named(machine)["PID 10 (cat)"].remedy)))

    def test_incapable_node(self):
        """No page of node 2 can be used."""
        finding = only(booted(MIXED), "incapable-node")

        assert (finding.subject, finding.node, finding.severity) == ("node2", 2, Severity.WARNING)
        assert finding.reason == "No page of node 2 can back a TDX guest (2 GiB not convertible)."
        assert str(finding.remedy) == "numactl --membind=0 COMMAND"

    def test_incapable_node_and_nothing_else(self):
        """If there is no capable node, there is none to bind to."""
        machine = booted(evolve(MIXED, nodes=MIXED.nodes[1:], distances=(), cpus=MIXED.cpus[2:]))

        assert str(only(machine, "incapable-node").remedy).startswith("none: no node of this machine is TDX capable")

    def test_mixed_node(self):
        """Half of node 1 is lost; its blocks can go offline."""
        finding = only(booted(HALF), "mixed-node")

        assert finding.reason == "Not all of the 2 GiB of node 1 can back a TDX guest (1 GiB not convertible)."
        assert str(finding.remedy) == "chmem --disable -b 56-63"

    def test_incapable_blocks(self):
        """Those blocks by themselves."""
        finding = only(booted(HALF), "incapable-blocks")

        assert finding.subject == "memory56-memory63"
        assert finding.reason == (
            "Memory blocks 56 to 63 of node 1 have pages that cannot back a TDX guest (1 GiB not convertible)."
        )
        assert str(finding.remedy) == "chmem --disable -b 56-63"

    def test_one_incapable_block(self):
        """One block is spoken of in the singular, and chmem takes it as a range of one."""
        cmrs = (Range(MIB, 2 * GIB), Range(4 * GIB, 8 * GIB - MIB))
        finding = only(booted(evolve(HALF, tdx=TdxPlatform(cmrs=cmrs))), "incapable-blocks")

        assert finding.subject == "memory63"
        assert finding.reason == (
            "Memory block 63 of node 1 has pages that cannot back a TDX guest (1 MiB not convertible)."
        )
        assert str(finding.remedy) == "chmem --disable -b 63-63"

    def test_block_of_several_zones(self):
        """Block 0 has several zones, so Linux does not let it go offline: stay away from its node."""
        cmrs = (Range(16 * MIB, 2 * GIB), Range(4 * GIB, 8 * GIB))
        finding = only(booted(evolve(HALF, tdx=TdxPlatform(cmrs=cmrs))), "mixed-node")

        assert str(finding.remedy) == "numactl --membind=1 COMMAND"

    def test_block_with_a_pamt(self):
        """A block that holds a PAMT cannot go offline either."""
        cmrs = (Range(4 * GIB, 4 * GIB + 64 * MIB), Range(6 * GIB, 8 * GIB))
        machine = booted(evolve(HALF, tdx=TdxPlatform(cmrs=cmrs)))

        assert machine.tdx.tdmrs[0].pamt.start == 4 * GIB
        assert str(found(machine)["mixed-node", "node0"].remedy) == "numactl --membind=1 COMMAND"

    def test_offline_blocks_do_not_count(self):
        """What is offline cannot be given to a guest."""
        machine = booted(evolve(HALF, memory=MemoryLayout(offline="56-63")))

        assert [f.kind for f in conflicts(machine)] == ["hotplug-rejected"]

    def test_incapable_dax(self):
        """A dax device outside every CMR; bound to kmem, its node speaks for it."""
        finding = only(booted(MIXED), "incapable-dax")
        bound = evolve(MIXED, dax_regions=(dax(3, Driver.KMEM),))

        assert (finding.subject, finding.dax, finding.node) == ("dax0.0", "dax0.0", 3)
        assert finding.reason == "dax0.0 holds 1 GiB of memory that is not convertible."
        assert str(finding.remedy).startswith("none: the firmware reports no CMR there")
        kinds = {f.kind: f.subject for f in conflicts(policy(bound, hotplug=Hotplug.ALLOW)) if f.node == 3}
        assert kinds == {"incapable-node": "node3"}

    def test_dax_would_mix_node(self):
        """Onlining the device would spoil a node that is capable now; a spoilt node has nothing to lose."""
        finding = only(booted(evolve(MIXED, dax_regions=(dax(0),))), "dax-would-mix-node")

        assert (finding.subject, finding.node, finding.severity) == ("dax0.0", 0, Severity.INFO)
        assert finding.reason == "Onlining dax0.0 would make node 0 mixed (1 GiB not convertible)."
        assert "dax-would-mix-node" not in {f.kind for f in conflicts(booted(evolve(MIXED, dax_regions=(dax(1),))))}

    def test_target_node_absent(self):
        """The target node has no directory until kmem brings it."""
        finding = only(booted(MIXED), "target-node-absent")

        assert finding.reason == "dax0.0 would belong to node 3, which has no directory."

    def test_not_covered(self):
        """Convertible memory added after boot needs a boot that covers it."""
        finding = only(booted(MODULE), "not-covered")

        assert finding.reason == (
            "Node 1 has convertible memory that no TDX guest can use (1 GiB not covered by a TDMR)."
        )
        assert str(finding.remedy) == "tdxfs reboot --policy cover=convertible MOUNTPOINT"
        assert "not-covered" not in {f.kind for f in conflicts(policy(MODULE, cover=Cover.CONVERTIBLE))}
        assert only(policy(MODULE, hotplug=Hotplug.REJECT_RANGE), "not-covered").reason == finding.reason

    @pytest.mark.parametrize(
        ("hotplug", "cover", "ranges"),
        [
            (Hotplug.REJECT, Cover.RAM, [Range(16 * GIB, 18 * GIB)]),
            (Hotplug.REJECT, Cover.CONVERTIBLE, [Range(17 * GIB, 18 * GIB)]),
            (Hotplug.REJECT_RANGE, Cover.CONVERTIBLE, [Range(16 * GIB, 18 * GIB)]),
        ],
        ids=str,
    )
    def test_hotplug_rejected(self, hotplug, cover, ranges):
        """The blocks outside TDX memory, or the whole range, and how to let them in."""
        finding = only(policy(MODULE, hotplug=hotplug, cover=cover), "hotplug-rejected")

        assert list(finding.ranges) == ranges
        assert finding.reason == (
            f"{finding.ranges.size // GIB} GiB of memory of node 1 cannot go online while TDX is enabled."
        )
        assert str(finding.remedy) == "echo allow > /sys/kernel/mm/tdx/policy/hotplug"

    def test_firmware_hidden(self):
        """Memory that the firmware took away is missed."""
        finding = only(policy(MIXED, firmware=Firmware.DISABLE_INCAPABLE), "firmware-hidden")

        assert finding.subject == "hidden memory of node 2"
        assert finding.reason == "The firmware hides 2 GiB of CXL memory, because not all of it is convertible."

    def test_bar_in_guest_range(self):
        """A BAR is accepted as guest memory unless KVM checks files."""
        topology = find("mixed")
        machine = boot(topology)

        assert [f.subject for f in conflicts(machine) if f.kind == "bar-in-guest-range"] == [
            "0000:17:00.0 resource0",
            "0000:17:00.0 resource2",
        ]
        for checks in (Validate.FILE, Validate.PLEDGE):
            assert "bar-in-guest-range" not in {f.kind for f in conflicts(policy(topology, validate=checks))}

    def test_silent_report(self):
        """Under report=silent nobody learns why a guest died."""
        finding = only(policy(MIXED, report=Report.SILENT), "silent-report")

        assert str(finding.remedy) == "echo message > /sys/kernel/mm/tdx/policy/report"
        assert "silent-report" not in {f.kind for f in conflicts(policy(find("clean"), report=Report.SILENT))}


def test_every_rule_has_a_test():
    """Each rule of the table has a test of its name, and a docstring that explains it."""
    for kind, rule in RULES.items():
        assert hasattr(TestRules, f"test_{kind.replace('-', '_')}"), kind
        assert rule.__doc__ and rule.__doc__.strip().endswith(".")


@pytest.mark.parametrize("name", BUILTINS)
def test_remedies_of_the_builtin_machines(name):
    """On the built-in machines, too, every remedy holds, however they are booted."""
    topology = find(name)
    for boot_policy in Boot:
        for cover in Cover:
            for hotplug in Hotplug:
                machine = policy(topology, boot=boot_policy, cover=cover, hotplug=hotplug)
                assert_remedies_hold(machine)
