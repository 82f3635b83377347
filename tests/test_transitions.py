"""A machine's life, as hypothesis makes it up: whatever is written, the tree stays one that a kernel could show."""

import re
import tempfile
from itertools import pairwise
from pathlib import Path

from attrs import evolve
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from machines import MIXED, everything, tree, wrote

from tdxfs import nodes
from tdxfs.capability import online_memory
from tdxfs.counters import free_kib
from tdxfs.journal import attach
from tdxfs.model import DERIVED, GIB, KERNELS, MIB, Cpu, DaxDevice, DaxRegion, Driver, MemoryLayout, Provider
from tdxfs.policy import Policies, axes
from tdxfs.ranges import Range, Ranges
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Link
from tdxfs.transitions.memory import POLICIES
from tdxfs.tree import Tree, inode_number
from tdxfs.zones import zone_ranges

MEMORY, NODE, CPU = "/sys/devices/system/memory", "/sys/devices/system/node", "/sys/devices/system/cpu"
DAX, TDXFS, POLICY = "/sys/bus/dax", "/sys/kernel/debug/tdxfs", "/sys/kernel/mm/tdx/policy"
BLOCK = 256 * MIB
DEVICE = DaxDevice(0, (Range(12 * GIB, 13 * GIB),))
SMALL = evolve(
    MIXED,
    cpus=tuple(Cpu(n, node=n // 2, package=n // 2, core=0, thread=n % 2) for n in range(4)),
    memory=MemoryLayout(BLOCK),
    possible_nodes="4",
    dax_regions=(
        DaxRegion(0, Provider.HMEM, Range(12 * GIB, 14 * GIB), 3, 0, devices=(DEVICE,)),
        DaxRegion(1, Provider.NVDIMM, Range(14 * GIB, 15 * GIB), 2, 0, devices=(
            DaxDevice(0, (Range(14 * GIB + 2 * MIB, 15 * GIB),)),
        )),
    ),
)  # fmt: skip
SIZES = st.sampled_from([0, 2 * MIB, 254 * MIB, 256 * MIB, 512 * MIB, GIB, 2 * GIB])
WORDS = st.sampled_from([*POLICIES, "garbage"])


class Life(RuleBasedStateMachine):
    @initialize(kernel=st.sampled_from(KERNELS), tdx=st.booleans(), auto=st.sampled_from(POLICIES), data=st.data())
    def boots(self, kernel, tdx, auto, data):
        policies = Policies(**{axis: data.draw(st.sampled_from(list(kind))) for axis, kind in axes().items()})
        layout = evolve(SMALL.memory, auto_online=auto)
        self.tree = tree(evolve(SMALL, kernel=kernel, tdx=SMALL.tdx if tdx else None, memory=layout, policies=policies))
        self.log = list(self.tree.machine.log)
        self.born = self.tree.machine
        self.home = tempfile.TemporaryDirectory()
        attach(self.tree, Path(self.home.name) / "journal")

    def teardown(self):
        # another tree that is attached to the journal shows the same machine, bit for bit
        if not hasattr(self, "home"):
            return
        with self.home:
            again = Tree(Root, self.born)
            attach(again, Path(self.home.name) / "journal")
            assert everything(self.tree) == everything(again)

    @property
    def machine(self):
        return self.tree.machine

    def write(self, path, text):
        before = self.machine
        generation = self.tree.generation
        answer = wrote(self.tree, path, text)
        if answer != "ok":
            # a refusal leaves a line in the log, or nothing; only a plug that is refused leaves the module there
            assert list(before.log) == list(self.machine.log)[: len(before.log)]
            assert (before.blocks, before.ram, before.dax) == (self.machine.blocks, self.machine.ram, self.machine.dax)
            assert before is self.machine or before.log != self.machine.log or "plug" in text
        assert (before is self.machine) is (generation == self.tree.generation)
        assert (before is self.machine) is (before.generation == self.machine.generation)

    @rule(data=st.data(), word=WORDS, file=st.sampled_from(["state", "online"]))
    def block(self, data, word, file):
        block = data.draw(st.sampled_from(sorted(self.machine.blocks)))
        self.write(f"{MEMORY}/memory{block}/{file}", word)

    @rule(data=st.data(), word=WORDS, count=st.integers(2, 8))
    def blocks(self, data, word, count):
        first = data.draw(st.sampled_from(sorted(self.machine.blocks)))
        for block in range(first, first + count):
            if block in self.machine.blocks:
                self.write(f"{MEMORY}/memory{block}/state", word)

    @rule(word=WORDS)
    def auto_online(self, word):
        self.write(f"{MEMORY}/auto_online_blocks", word)

    @rule(
        driver=st.sampled_from(["device_dax", "kmem"]),
        file=st.sampled_from(["bind", "unbind", "new_id", "remove_id"]),
        name=st.sampled_from(["dax0.0", "dax0.1", "dax0.2", "dax1.0", "dax2.0", "garbage"]),
    )
    def driver(self, driver, file, name):
        self.write(f"{DAX}/drivers/{driver}/{file}", name)

    @rule(data=st.data())
    def probe(self, data):
        self.write(f"{DAX}/drivers_probe", data.draw(st.sampled_from([device.name for device in self.devices()])))

    @rule(data=st.data(), file=st.sampled_from(["create", "delete"]))
    def region(self, data, file):
        device = data.draw(st.sampled_from(self.devices()))
        region = self.tree.follow(f"{DAX}/devices/{device.name}")[0].rpartition("/")[0] + "/dax_region"
        self.write(f"{region}/{file}", "1" if file == "create" else device.name)

    @rule(data=st.data(), size=SIZES)
    def resize(self, data, size):
        device = data.draw(st.sampled_from(self.devices()))
        self.write(f"{DAX}/devices/{device.name}/size", str(size))

    @rule(data=st.data(), start=SIZES, size=SIZES)
    def mapping(self, data, start, size):
        device = data.draw(st.sampled_from(self.devices()))
        base = self.machine.regions[device.region].range.start
        self.write(f"{DAX}/devices/{device.name}/mapping", f"{base + start:x}-{base + start + size - 1:x}")

    @rule(data=st.data(), align=st.sampled_from([4096, 2 * MIB, GIB, 1]))
    def align(self, data, align):
        self.write(f"{DAX}/devices/{data.draw(st.sampled_from(self.devices())).name}/align", str(align))

    @rule(data=st.data(), word=st.sampled_from(["unplugged", *POLICIES]))
    def state(self, data, word):
        self.write(f"{DAX}/devices/{data.draw(st.sampled_from(self.devices())).name}/state", word)

    @rule(
        kind=st.sampled_from(["memory", "cxl"]),
        node=st.integers(0, 5),
        base=st.sampled_from([16 * GIB, 17 * GIB, 3 * GIB]),
        size=SIZES,
    )
    def plug(self, kind, node, base, size):
        self.write(f"{TDXFS}/hotplug", f"plug kind={kind} node={node} base={base:#x} size={size:#x}")

    @rule(base=st.sampled_from([16 * GIB, 17 * GIB, 3 * GIB, 0]))
    def unplug(self, base):
        self.write(f"{TDXFS}/hotplug", f"unplug base={base:#x}")

    @rule(cpu=st.integers(0, 3), text=st.sampled_from(["0", "1", "x"]))
    def cpu(self, cpu, text):
        self.write(f"{CPU}/cpu{cpu}/online", text)

    @rule(word=st.sampled_from(["on", "off"]))
    def smt(self, word):
        self.write(f"{CPU}/smt/control", word)

    @rule(data=st.data(), size=st.sampled_from([2048, 1048576]), pages=st.sampled_from(["0", "1", "300", "99999"]))
    def hugepages(self, data, size, pages):
        nid = data.draw(st.sampled_from(sorted(nodes.has_memory(self.machine))))
        at = data.draw(st.sampled_from(["/sys/kernel/mm", f"{NODE}/node{nid}"]))
        self.write(f"{at}/hugepages/hugepages-{size}kB/nr_hugepages", pages)

    @rule(data=st.data(), axis=st.sampled_from(sorted(axes())))
    def policy(self, data, axis):
        self.write(f"{POLICY}/{axis}", str(data.draw(st.sampled_from(list(axes()[axis])))))

    @rule(data=st.data(), axis=st.sampled_from(sorted(axes())))
    def reboot(self, data, axis):
        self.log = []
        self.write(f"{TDXFS}/reboot", f"{axis}={data.draw(st.sampled_from(list(axes()[axis])))}\n")

    @rule(data=st.data(), word=st.sampled_from(["auto", "on", "x"]))
    def knob(self, data, word):
        block = data.draw(st.sampled_from(sorted(self.machine.blocks)))
        self.write(f"{MEMORY}/memory{block}/power/control", word)

    def devices(self):
        return [self.machine.dax[key] for key in sorted(self.machine.dax)]

    @invariant()
    def node_lists_agree(self):
        machine = self.machine
        online, memory = nodes.online_nodes(machine), nodes.has_memory(machine)
        assert nodes.has_normal_memory(machine) <= memory <= online <= nodes.possible_nodes(machine)
        assert nodes.has_cpu(machine) <= online
        if machine.topology.tdx is not None:
            lists = [self.ids(f"{NODE}/tdx_{word}") for word in ("capable", "mixed", "incapable")]
            assert sum(map(len, lists)) == len(memory)
            assert set().union(*lists) == memory
        for a in online:
            assert all(nodes.distance(machine, a, b) == nodes.distance(machine, b, a) for b in online)

    def ids(self, path):
        text = self.tree.read(path).decode().strip()
        return {n for part in filter(None, text.split(",")) for n in self.span(*map(int, part.split("-")))}

    def span(self, low, high=None):
        return range(low, (low if high is None else high) + 1)

    @invariant()
    def blocks_and_ranges_agree(self):
        machine = self.machine
        covered = Ranges.of(Range(start * BLOCK, end * BLOCK) for start, end, _ in machine.blocks.runs())
        ram = Ranges.of(Range(start, end) for start, end, _ in machine.ram.runs())
        assert not ram - covered
        for start, end, block in machine.blocks.runs():
            for number in range(start, end):
                owners = {nid for *_, nid in machine.ram.within(number * BLOCK, (number + 1) * BLOCK)}
                assert set(block.nodes) == owners
        for nid in machine.node_blocks:
            zones = zone_ranges(machine, nid)
            assert sum(memory.size for memory in zones.values()) == online_memory(machine, nid).size
            assert free_kib(machine, nid) >= 0

    @invariant()
    def dax_devices_agree(self):
        machine = self.machine
        for region in machine.topology.dax_regions:
            devices = [machine.dax[key] for key in machine.region_devices.get(region.id, ())]
            mappings = sorted(mapping for device in devices for mapping in device.mappings)
            assert all(a.end <= b.start for a, b in pairwise(mappings))
            assert all(region.range.covers(mapping) for mapping in mappings)
            assert all(device.size or device.driver is None for device in devices)
        assert len({device.minor for device in machine.dax.values()}) == len(machine.dax)
        for driver in Driver:
            for key in machine.bound_dax[driver]:
                assert machine.dax[key].driver is driver

    @invariant()
    def log_only_grows(self):
        log = list(self.machine.log)
        assert log[: len(self.log)] == self.log
        assert all(a.usec <= b.usec for a, b in pairwise(log))
        self.log = log

    @invariant()
    def derived_values_are_fresh(self):
        fresh = evolve(self.machine)
        for name in DERIVED:
            if name in vars(self.machine):
                assert getattr(fresh, name) == getattr(self.machine, name), name

    @invariant()
    def the_whole_tree_can_be_walked(self):
        for path, entry in self.tree.walk():
            assert inode_number(path) != 0
            if isinstance(entry, Link) and not re.search(r"/cpu[1-3]/", path):
                self.tree.follow(path)


Life.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    # what a step checks is dear, so a failure is shown as it was found
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
TestLife = Life.TestCase
