"""Every file of the kernel tier that can be written takes what the kernel takes, or is listed here with its answer."""

import re

import pytest
from attrs import evolve
from machines import MIXED, tree, wrote

from tdxfs.errors import Refusal
from tdxfs.model import (
    GIB,
    KERNELS,
    Bar,
    Cpu,
    DaxDevice,
    DaxRegion,
    Driver,
    MemoryKind,
    NodeCounters,
    PciDevice,
    Provider,
)
from tdxfs.ranges import Range
from tdxfs.sysfs.attribute import File, Tier
from tdxfs.tree import content

CPU, NODE, KERNEL = "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm"


def region(number, provider, driver=Driver.DEVICE_DAX, kind=MemoryKind.DRAM):
    memory = Range((12 + number) * GIB, (13 + number) * GIB)
    return DaxRegion(number, provider, memory, 3, 0, devices=(DaxDevice(0, (memory,), driver),), kind=kind)


EVERYTHING = evolve(
    MIXED,
    cpus=tuple(Cpu(n, node=n // 4, package=n // 4, core=n // 2 % 2, thread=n % 2) for n in range(8)),
    dax_regions=(
        region(0, Provider.HMEM),
        region(1, Provider.NVDIMM, kind=MemoryKind.NVDIMM),
        region(2, Provider.CXL, Driver.KMEM, MemoryKind.CXL),
        region(3, Provider.NVDIMM, kind=MemoryKind.CXL),
        region(4, Provider.HMEM, None),
    ),
    pci_devices=(PciDevice("0000:3a:00.0", 0x10DE, 0x2901, 0x030200, 1, (Bar(0, Range(30 * GIB, 31 * GIB)),)),),
)
KEPT = {
    r"/uevent$": "EINVAL",  # what it reads is no action
    r"/memory/memory[0-9]+/state$": "EINVAL",  # the state that it is in
    r"/transparent_hugepage/(enabled|defrag|shmem_enabled)$|/ksm/advisor_mode$": "EINVAL",  # several words
    r"/dax_region/create$": "EINVAL",  # what it reads is a name, and only 1 is taken
    r"/(hmem.0|dax_region2)/dax[02].0/(size|align)$": "EBUSY",  # bound
    r"/nd[^/]*/region[13]/dax[0-9.]+/(align|mode|namespace|uuid)$": "EBUSY",  # namespaces do not change
    r"/weighted_interleave/auto$": "ENODEV",  # no node's bandwidth is known
    r"/decoder0.*/region2/interleave_(ways|granularity)$": "EBUSY",  # active
    r"/hugepages-1048576kB/nr_overcommit_hugepages$": "EINVAL",  # gigantic pages have no surplus
}
"""What writing a file's own text back answers, where that is not ok."""
NOT_DONE = r"/sys/bus/[a-z_]+/drivers/[a-z_-]+/unbind$"
"""Only dax drivers give up their devices in tdxfs: EPERM for the name of a bound device."""


def writable(machine):
    for path, entry in machine.walk("/sys"):
        if isinstance(entry, File) and entry.mode & 0o222:
            yield path, entry


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_read_can_be_written(kernel):
    """A file takes its own text, or says what `KEPT` says; nothing breaks."""
    machine = tree(evolve(EVERYTHING, kernel=kernel), {Tier.KERNEL})
    seen = 0
    for path, file in list(writable(machine)):
        if not file.mode & 0o444 or re.search(r"/cpu[0-9]+/power/|/memory[0-9]*[1-9]/|/resource0$", path):
            continue
        try:
            text = content(file).decode()
        except Refusal:
            continue
        expected = next((answer for pattern, answer in KEPT.items() if re.search(pattern, path)), "ok")
        assert (path, expected) == (path, wrote(machine, path, text or "\n"))
        seen += 1
    assert seen > 200


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_file_is_for_reading(kernel):
    """Nonsense is taken or refused as the kernel does: never with EPERM, never with what is no refusal."""
    machine = tree(evolve(EVERYTHING, kernel=kernel), {Tier.KERNEL})
    allowed = {"ok", "EINVAL", "ENODEV", "ENXIO", "EIO", "EBUSY"}
    for path, _ in list(writable(machine)):
        assert wrote(machine, path, "garbage") in allowed, path


def test_unbinding_other_drivers():
    """EPERM for a device that is bound, ENODEV for any other name."""
    machine = tree(EVERYTHING)
    at = "/sys/bus/platform/drivers/hmem"
    assert re.fullmatch(NOT_DONE, f"{at}/unbind")
    assert ["EPERM", "ENODEV"] == [wrote(machine, f"{at}/unbind", name) for name in ("hmem.0", "garbage")]
    assert ["EBUSY", "ENODEV"] == [wrote(machine, f"{at}/bind", name) for name in ("hmem.0", "garbage")]


def read(machine, path):
    return machine.read(path).decode().removesuffix("\n")


class TestCpus:
    def test_masks_follow(self):
        """An offline CPU leaves the lists, its node's masks, cpuinfo and its siblings; its topology and caches go."""
        machine = tree(EVERYTHING)
        assert wrote(machine, f"{CPU}/cpu5/online", "0") == "ok"

        assert read(machine, f"{CPU}/online") == "0-4,6-7"
        assert read(machine, f"{CPU}/offline") == "5"
        assert read(machine, f"{NODE}/node1/cpulist") == "4,6-7"
        assert read(machine, f"{NODE}/node1/cpumap") == "d0"
        assert read(machine, f"{CPU}/cpu4/topology/thread_siblings_list") == "4"
        assert "topology" not in machine.list(f"{CPU}/cpu5").names
        assert "processor\t: 5" not in read(machine, "/proc/cpuinfo")
        assert read(machine, f"{CPU}/cpu5/hotplug/state") == "0"

    def test_a_node_without_an_online_cpu(self):
        """It stays online, but has no CPU."""
        machine = tree(EVERYTHING)
        for cpu in range(4, 8):
            wrote(machine, f"{CPU}/cpu{cpu}/online", "0")
        assert (read(machine, f"{NODE}/has_cpu"), read(machine, f"{NODE}/online")) == ("0", "0-3")
        assert read(machine, f"{NODE}/node1/cpulist") == ""

    def test_cpu_0(self):
        """It has no online file, and its hotplug target is EBUSY."""
        machine = tree(EVERYTHING)
        assert "online" not in machine.list(f"{CPU}/cpu0").names
        assert wrote(machine, f"{CPU}/cpu0/hotplug/target", "0") == "EBUSY"
        assert wrote(machine, f"{CPU}/cpu1/hotplug/target", "0") == "ok"
        assert read(machine, f"{CPU}/online") == "0,2-7"

    def test_smt(self):
        """off takes the second threads offline, on brings them back, forceoff is for good."""
        machine = tree(EVERYTHING)
        control = f"{CPU}/smt/control"
        assert ["ok", "0,2,4,6"] == [wrote(machine, control, "off"), read(machine, f"{CPU}/online")]
        assert ["ok", "0-7"] == [wrote(machine, control, "on"), read(machine, f"{CPU}/online")]
        assert ["ok", "EPERM"] == [wrote(machine, control, word) for word in ("forceoff", "on")]
        assert wrote(tree(MIXED), control, "off") == "ENODEV"


class TestHugepages:
    POOL = "hugepages/hugepages-2048kB/nr_hugepages"

    def free(self, machine, nid):
        return int(re.search(r"MemFree: *([0-9]+)", read(machine, f"{NODE}/node{nid}/meminfo"))[1])

    def test_they_take_the_node_s_memory(self):
        """A pool takes free memory of its node, of no other, and no more than there is."""
        machine = tree(EVERYTHING)
        before = [self.free(machine, nid) for nid in (0, 1)]
        assert wrote(machine, f"{NODE}/node1/{self.POOL}", "100") == "ok"
        assert [before[0], before[1] - 100 * 2048] == [self.free(machine, nid) for nid in (0, 1)]
        assert read(machine, f"{KERNEL}/{self.POOL}") == "100"
        assert "HugePages_Total:   100" in read(machine, f"{NODE}/node1/meminfo")
        wrote(machine, f"{NODE}/node1/{self.POOL}", "999999")
        assert 0 <= self.free(machine, 1) < 2048
        wrote(machine, f"{NODE}/node1/{self.POOL}", "0")
        assert before[1] == self.free(machine, 1)

    def test_the_whole_machine_s(self):
        """The global pool is spread over the nodes with memory, and shrinks evenly."""
        machine = tree(EVERYTHING)
        wrote(machine, f"{KERNEL}/{self.POOL}", "10")
        assert ["4", "3", "3"] == [read(machine, f"{NODE}/node{nid}/{self.POOL}") for nid in range(3)]
        wrote(machine, f"{KERNEL}/{self.POOL}", "1")
        assert sum(int(read(machine, f"{NODE}/node{nid}/{self.POOL}")) for nid in range(3)) == 1

    def test_demotion(self):
        """A gigantic page becomes 512 small ones."""
        machine = tree(EVERYTHING)
        huge = f"{NODE}/node1/hugepages/hugepages-1048576kB"
        assert wrote(machine, f"{huge}/nr_hugepages", "1") == "ok"
        assert ["ok", "EINVAL"] == [wrote(machine, f"{huge}/demote_size", text) for text in ("2M", "1G")]
        assert wrote(machine, f"{huge}/demote", "1") == "ok"
        assert ("0", "512") == (read(machine, f"{huge}/nr_hugepages"), read(machine, f"{NODE}/node1/{self.POOL}"))

    def test_blocks_that_they_fill_stay_online(self):
        """A block cannot go offline while the huge pages of its node need its memory: EBUSY."""
        machine = tree(evolve(EVERYTHING, tdx=None))
        state = "/sys/devices/system/memory/memory70/state"
        wrote(machine, f"{NODE}/node2/{self.POOL}", "1000")
        assert wrote(machine, state, "offline") == "EBUSY"
        wrote(machine, f"{NODE}/node2/{self.POOL}", "900")
        assert wrote(machine, state, "offline") == "ok"

    def test_recorded_counters_follow(self):
        """Counters that were recorded move by what changed since."""
        meminfo = {"MemTotal": 1000000, "MemFree": 900000, "MemUsed": 100000, "HugePages_Total": 0, "HugePages_Free": 0}
        recorded = NodeCounters(meminfo=meminfo, vmstat={"nr_free_pages": 225000})
        machine = tree(evolve(EVERYTHING, tdx=None, counters={2: recorded}))
        assert self.free(machine, 2) == 900000
        wrote(machine, f"{NODE}/node2/{self.POOL}", "10")
        assert self.free(machine, 2) == 900000 - 10 * 2048
        wrote(machine, "/sys/devices/system/memory/memory70/state", "offline")
        assert self.free(machine, 2) == 900000 - 10 * 2048 - 128 * 1024
        assert f"{225000 - 10 * 512 - 128 * 256}" == read(machine, f"{NODE}/node2/vmstat").split()[1]


class TestKnobs:
    def test_a_choice(self):
        """The word that was written is in brackets."""
        machine = tree(EVERYTHING)
        path = f"{KERNEL}/transparent_hugepage/enabled"
        assert ["EINVAL", "ok"] == [wrote(machine, path, word) for word in ("sometimes", "never")]
        assert read(machine, path) == "always madvise [never]"

    def test_gone_with_the_object(self):
        """What was written to a file is forgotten when its object goes."""
        machine = tree(evolve(EVERYTHING, tdx=None))
        control = "/sys/devices/system/memory/memory128/power/control"
        plug = f"plug node=1 base={24 * GIB:#x} size={GIB:#x}"
        for text in (plug, f"unplug base={24 * GIB:#x}", plug):
            wrote(machine, "/sys/kernel/debug/tdxfs/hotplug", text)
            if text == plug and "memory192" in machine.list("/sys/devices/system/memory").names:
                path = control.replace("128", "192")
                assert read(machine, path) == "auto"
                assert wrote(machine, path, "on") == "ok"

    def test_numa_node_of_a_pci_device(self):
        """Only an online node, or -1; the log complains."""
        machine = tree(EVERYTHING)
        path = "/sys/devices/pci0000:3a/0000:3a:00.0/numa_node"
        assert ["EINVAL", "EINVAL", "ok"] == [wrote(machine, path, text) for text in ("x", "9", "0")]
        assert "Overriding NUMA node to 0" in machine.machine.log[-1].text
        assert read(machine, path) == "0"

    def test_the_kernel_log(self):
        """What is written to kmsg is a record of its own."""
        machine = tree(EVERYTHING)
        assert ["ok", "ok"] == [wrote(machine, "/dev/kmsg", text) for text in ("<6>hello\n", "there")]
        assert ["14", "12"] == [line.split(",")[0] for line in read(machine, "/dev/kmsg").splitlines()[-2:]]

    def test_reclaim(self):
        """A size, with swappiness if wanted; nothing can be reclaimed: EAGAIN."""
        machine = tree(evolve(EVERYTHING, kernel="7.3"))
        rows = [("garbage", "EINVAL"), ("1M swappiness=201", "EINVAL"), ("0", "ok"), ("1M swappiness=max", "EAGAIN")]
        assert [answer for _, answer in rows] == [wrote(machine, f"{NODE}/node0/reclaim", text) for text, _ in rows]
