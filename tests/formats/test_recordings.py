"""Recordings of what hwloc reads: old kernels, other architectures, kernels that contradict themselves."""

import pytest
from recordings import CPU, NODE, cache, imported, mask, node, place, shown, there, tree_of, write

from tdxfs.errors import UserError
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.model import GIB, MIB, NO_CACHE, NO_DIE, Cgroup, MemoryModule, Uname
from tdxfs.ranges import Range
from tdxfs.sysfs.dmi_entries import encode


def cpu_file(tree, cpu, name):
    return shown(tree, f"{CPU}/cpu{cpu}/{name}")


class TestOldKernels:
    """What a kernel lacked is absent."""

    @pytest.fixture
    def tree(self, tmp_path):
        # two packages of two CPUs, and nothing that came after Linux 2.6.25
        for cpu in range(4):
            pair = (cpu // 2 * 2, cpu // 2 * 2 + 1)
            ids = {"core_id": cpu % 2, "physical_package_id": cpu // 2}
            write(tmp_path, place(cpu, package=pair, **ids), cache(cpu, 0, (cpu,)))
        write(tmp_path, node(0, (0, 1)), node(1, (2, 3)), {"proc/cpuinfo": "processor : 0"})
        return tree_of(imported(tmp_path))

    def test_sharing_by_masks(self, tree):
        """Masks alone say which CPUs belong together, and to which node."""
        assert mask(2, 3).lstrip("0") == cpu_file(tree, 3, "topology/core_siblings")
        assert mask(2, 3).lstrip("0") == shown(tree, f"{NODE}/node1/cpumap")

    @pytest.mark.parametrize(
        "path",
        [
            f"{CPU}/online",
            f"{CPU}/cpu1/cache/index0/id",
            f"{CPU}/cpu1/cpu_capacity",
            f"{CPU}/cpu1/online",
            f"{CPU}/cpu1/topology/core_cpus",
            f"{CPU}/cpu1/topology/die_cpus",
            f"{CPU}/cpu1/topology/cluster_cpus",
            f"{CPU}/cpu1/topology/thread_siblings_list",
            f"{NODE}/node0/distance",
            f"{NODE}/node0/hugepages",
            f"{NODE}/online",
            "proc/meminfo",
            "sys/kernel/mm/hugepages",
        ],
    )
    def test_what_it_lacks(self, tree, path):
        """Files that the recording has nowhere are not there."""
        assert not there(tree, path)

    def test_what_it_has(self, tree):
        """Those that it has are, and so are links, which such recordings leave out."""
        assert "8" == cpu_file(tree, 3, "cache/index0/ways_of_associativity")
        assert "processor : 0" == shown(tree, "proc/cpuinfo")
        assert there(tree, f"{CPU}/cpu3/subsystem")

    def test_memory_by_node(self, tree):
        """Each node has its own memory although no memory blocks are recorded."""
        assert ["node0", "node1"] == [name for name in sorted(tree.list(f"/{NODE}").names) if name[-1].isdecimal()]
        assert {0, 1} == {nid for _, _, nid in tree.machine.ram.runs()}

    def test_a_sysfs_alone(self, tmp_path):
        """Of a sysfs without a root directory nothing is known about /proc: it is there."""
        write(tmp_path / "machine", place(0), node(0, (0,)))
        (tmp_path / "machine/sys").rename(tmp_path / "copy")

        tree = tree_of(import_sysfs(tmp_path / "copy"))

        assert there(tree, "proc/cpuinfo")
        assert there(tree, "proc/meminfo")


class TestPlaces:
    """Which CPUs share what, where the kernel's numbers do not say it."""

    def test_cores_counted_by_node(self, tmp_path):
        """Core ids that return in one package are kept, and cores are told apart all the same."""
        for cpu in range(4):
            write(tmp_path, place(cpu, package=range(4), core_id=cpu % 2, physical_package_id=0))
        write(tmp_path, node(0, range(4)))

        tree = tree_of(imported(tmp_path))

        assert ["0", "1", "0", "1"] == [cpu_file(tree, cpu, "topology/core_id") for cpu in range(4)]
        assert ["1", "2", "4", "8"] == [cpu_file(tree, cpu, "topology/thread_siblings") for cpu in range(4)]

    def test_threads_with_core_ids(self, tmp_path):
        """Threads of one core may have core ids of their own."""
        for cpu in range(4):
            pair = (cpu // 2 * 2, cpu // 2 * 2 + 1)
            write(tmp_path, place(cpu, core=pair, package=range(4), core_id=cpu, physical_package_id=0))
        write(tmp_path, node(0, range(4)))

        topology = imported(tmp_path)

        assert [0, 1, 0, 1] == [cpu.thread for cpu in topology.cpus]
        assert ["3", "3", "c", "c"] == [cpu_file(tree_of(topology), n, "topology/thread_siblings") for n in range(4)]
        assert ["0", "1", "2", "3"] == [cpu_file(tree_of(topology), n, "topology/core_id") for n in range(4)]

    def test_books_and_drawers(self, tmp_path):
        """s390 has no package ids but books and drawers of packages."""
        for cpu in range(4):
            pair = (cpu // 2 * 2, cpu // 2 * 2 + 1)
            ids = {"core_id": cpu, "physical_package_id": -1, "book_id": cpu // 2, "drawer_id": 0}
            masks = {"book_siblings": mask(*pair), "drawer_siblings": mask(*range(4))}
            write(tmp_path, place(cpu, package=(cpu,), **ids, **masks))
        write(tmp_path, node(0, range(4)))

        tree = tree_of(imported(tmp_path))

        assert ["-1", "1", "c", "f"] == [
            cpu_file(tree, 3, f"topology/{name}")
            for name in ("physical_package_id", "book_id", "book_siblings", "drawer_siblings")
        ]
        assert "8" == cpu_file(tree, 3, "topology/core_siblings")
        assert not there(tree, f"{CPU}/cpu3/topology/book_siblings_list")

    def test_no_books(self, tmp_path):
        """Other machines have neither."""
        write(tmp_path, place(0), node(0, (0,)))

        assert not {"book_id", "drawer_id"} & {*tree_of(imported(tmp_path)).list(f"/{CPU}/cpu0/topology").names}

    def test_no_die(self, tmp_path):
        """A kernel that does not know of dies gives each CPU its own, called -1."""
        for cpu in range(2):
            dies = {"die_id": -1, "die_cpus": mask(cpu), "die_cpus_list": cpu}
            write(tmp_path, place(cpu, package=(0, 1), core_id=cpu, physical_package_id=36, **dies))
        write(tmp_path, node(0, (0, 1)))

        topology = imported(tmp_path)

        assert [NO_DIE, NO_DIE] == [cpu.die for cpu in topology.cpus]
        assert "2" == cpu_file(tree_of(topology), 1, "topology/die_cpus")
        assert "3" == cpu_file(tree_of(topology), 1, "topology/core_siblings")

    def test_nothing_but_threads(self, tmp_path):
        """Where no package is recorded there is one, and its files are absent."""
        for cpu in range(2):
            write(tmp_path, {f"{CPU}/cpu{cpu}/topology/thread_siblings": mask(0, 1)})
        write(tmp_path, node(0, (0, 1)))

        tree = tree_of(imported(tmp_path))

        assert ["3", "3"] == [cpu_file(tree, cpu, "topology/thread_siblings") for cpu in range(2)]
        assert ["thread_siblings"] == list(tree.list(f"/{CPU}/cpu0/topology").names)

    def test_contradictions(self, tmp_path):
        """A CPU that says something else than those it names is quoted, the others are not."""
        for cpu in range(4):
            package = (0, 1) if cpu == 3 else range(4)
            shared = (0, 1, 2, 3) if cpu == 1 else (cpu,)
            ids = {"core_id": cpu, "physical_package_id": 0}
            write(tmp_path, place(cpu, package=package, **ids), cache(cpu, 0, shared))
        write(tmp_path, node(0, range(4)))

        topology = imported(tmp_path)
        tree = tree_of(topology)

        assert [{}, {"cache0": "0-3"}, {}, {"package": "0-1"}] == [cpu.siblings for cpu in topology.cpus]
        assert ["f", "f", "f", "3"] == [cpu_file(tree, cpu, "topology/core_siblings") for cpu in range(4)]
        assert ["1", "f", "4", "8"] == [cpu_file(tree, cpu, "cache/index0/shared_cpu_map") for cpu in range(4)]

    def test_offline_by_each_cpu(self, tmp_path):
        """Without ``cpu/online`` a CPU says itself that it is offline, or has no place in the topology."""
        for cpu in (0, 1):
            write(tmp_path, place(cpu, package=(0, 1)), {f"{CPU}/cpu{cpu}/online": str(1 - cpu)})
        write(tmp_path, {f"{CPU}/cpu2/online": "1"}, node(0, (0, 1, 2)))

        assert [True, False, False] == [cpu.online for cpu in imported(tmp_path).cpus]


class TestCaches:
    """Caches that are not alike."""

    def test_cpus_with_other_caches(self, tmp_path):
        """Each CPU shows its own; those of the same kind and CPUs are one."""
        write(tmp_path, node(0, range(3)))
        for cpu in range(3):
            write(tmp_path, place(cpu, package=range(3), core_id=cpu, physical_package_id=0))
        write(tmp_path, cache(0, 0, (0,), "48K"), cache(0, 1, (0,), "1280K", level="2", type="Unified"))
        for cpu in (1, 2):
            write(tmp_path, cache(cpu, 0, (cpu,)), cache(cpu, 1, (1, 2), "2048K", level="2", type="Unified"))

        topology = imported(tmp_path)
        tree = tree_of(topology)

        assert [48, 1280, 32, 2048] == [kind.size >> 10 for kind in topology.caches]
        assert [0, 0, NO_CACHE, NO_CACHE] == list(topology.cpus[0].cache_ids)
        assert [NO_CACHE, NO_CACHE, 2, 1] == list(topology.cpus[2].cache_ids)
        assert ["48K", "32K"] == [cpu_file(tree, cpu, "cache/index0/size") for cpu in (0, 2)]
        assert ["1", "6"] == [cpu_file(tree, cpu, "cache/index1/shared_cpu_map") for cpu in (0, 2)]
        assert ["index0", "index1"] == sorted(name for name in tree.list(f"/{CPU}/cpu2/cache").names if "index" in name)

    def test_a_cpu_without_any(self, tmp_path):
        """A CPU that shows no caches has no directory for them."""
        for cpu in (0, 1):
            write(tmp_path, place(cpu, package=(0, 1)))
        write(tmp_path, cache(0, 0, (0,)), node(0, (0, 1)))

        tree = tree_of(imported(tmp_path))

        assert [True, False] == [there(tree, f"{CPU}/cpu{cpu}/cache") for cpu in (0, 1)]

    @pytest.mark.parametrize(
        ("recorded", "expected"),
        [
            ({"number_of_sets": "2048"}, {"number_of_sets": "2048", "ways_of_associativity": "8"}),
            ({"ways_of_associativity": "0", "number_of_sets": "1"}, {"number_of_sets": "1", "size": "32K"}),
            ({"coherency_line_size": None}, {"coherency_line_size": None, "number_of_sets": "64"}),
            ({"size": "0K"}, {"size": "0K", "number_of_sets": "0"}),
            ({"shared_cpu_map": ""}, {"shared_cpu_map": "3"}),
        ],
    )
    def test_odd_numbers(self, tmp_path, recorded, expected):
        """Sets that do not follow from the size are kept; a line that is not known is absent; nobody means the core."""
        others = {"number_of_sets": "0"} if recorded.get("size") else {}
        for cpu in (0, 1):
            write(tmp_path, place(cpu, core=(0, 1), package=(0, 1)), cache(cpu, 0, (0, 1), **{**others, **recorded}))
        write(tmp_path, node(0, (0, 1)))

        tree = tree_of(imported(tmp_path))

        assert expected == {name: cpu_file(tree, 1, f"cache/index0/{name}") for name in expected}

    def test_lists_that_were_not_edited(self, tmp_path):
        """Masks win over lists: hwloc reads them, and who edits a recording changes what hwloc reads."""
        for cpu in (0, 1):
            write(tmp_path, place(cpu, package=(0, 1)), cache(cpu, 0, (0, 1), shared_cpu_list=str(cpu)))
        write(tmp_path, node(0, (0, 1)))

        assert "3" == cpu_file(tree_of(imported(tmp_path)), 1, "cache/index0/shared_cpu_map")


class TestNodes:
    """Nodes and memory as few machines have them."""

    def test_a_kernel_without_nodes(self, tmp_path):
        """There is no directory for nodes, and the memory is what /proc/meminfo says."""
        write(tmp_path, place(0), {"proc/meminfo": "MemTotal:        1048576 kB\nMemFree:          1024 kB"})

        topology = imported(tmp_path)
        tree = tree_of(topology)

        assert [Range(0, GIB)] == [memory.range for memory in topology.nodes[0].memory]
        assert not there(tree, NODE)
        assert not there(tree, f"{CPU}/cpu0/node0")
        for name in ("bus/memory_tiering", "devices/virtual/memory_tiering", "kernel/mm/mempolicy", "kernel/mm/numa"):
            assert not there(tree, f"sys/{name}")
        assert "MemTotal:        1048576 kB" == shown(tree, "proc/meminfo").splitlines()[0]

    def test_neither_cpus_nor_nodes(self, tmp_path):
        """What shows neither is no machine."""
        write(tmp_path, {f"{CPU}/kernel_max": "7"})

        with pytest.raises(UserError, match="shows no CPUs and no nodes"):
            import_sysfs(tmp_path)

    def test_overlapping_nodes(self, tmp_path):
        """Nodes whose masks overlap show what they showed; a CPU is in the first of them."""
        for cpu in (0, 1, 2):
            write(tmp_path, place(cpu, package=range(3)))
        write(tmp_path, node(0, (0, 1)), node(1, (1,)), node(2, ()))

        topology = imported(tmp_path)
        tree = tree_of(topology)

        assert [0, 0, 0] == [cpu.node for cpu in topology.cpus]
        assert ["0-1", "1", None] == [found.cpumap for found in topology.nodes]
        assert ["3", "2", "0"] == [shown(tree, f"{NODE}/node{nid}/cpumap") for nid in range(3)]

    def test_a_node_with_nothing(self, tmp_path):
        """A node that is online without CPUs and memory is there."""
        write(tmp_path, place(0), node(0, (0,)), node(3, (), 0))

        topology = imported(tmp_path)

        assert "3" == topology.online_nodes
        assert there(tree_of(topology), f"{NODE}/node3")

    def test_a_node_that_is_offline(self, tmp_path):
        """Offline CPUs of an offline node belong to one that is there."""
        for cpu in (0, 1):
            write(tmp_path, {f"{CPU}/cpu{cpu}/online": str(cpu)})
        write(tmp_path, place(1), node(1, (1,)), {f"{NODE}/online": "1", f"{NODE}/possible": "0-1"})

        topology = imported(tmp_path)

        assert [1, 1] == [cpu.node for cpu in topology.cpus]
        assert "1" == shown(tree_of(topology), f"{NODE}/online")

    def test_a_distance_of_zero(self, tmp_path):
        """A kernel that knows of one node only says 0."""
        write(tmp_path, place(0), node(0, (0,), distance="0"))

        assert "0" == shown(tree_of(imported(tmp_path)), f"{NODE}/node0/distance")

    def test_huge_pages(self, tmp_path):
        """Sizes and pools are those of the recording."""
        pools = {f"hugepages/hugepages-{size}kB/nr_hugepages": str(pages) for size, pages in ((64, 3), (2048, 5))}
        meminfo = "Node 0 MemTotal:  131072 kB\nNode 0 MemFree:  131072 kB\nNode 0 HugePages_Total:   5"
        write(tmp_path, place(0), node(0, (0,), meminfo=meminfo, **pools))
        write(tmp_path, {f"sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages": "9" for size in (64, 2048)})

        topology = imported(tmp_path)
        tree = tree_of(topology)

        assert ((2048, 64), {64: 3}) == (topology.hugepage_sizes, topology.nodes[0].hugepages)
        assert ["3", "5"] == [shown(tree, f"{NODE}/node0/hugepages/hugepages-{n}kB/nr_hugepages") for n in (64, 2048)]
        assert {"hugepages-64kB", "hugepages-2048kB"} == {*tree.list("/sys/kernel/mm/hugepages").names}

    def test_memory_of_a_gpu(self, tmp_path):
        """The GPU's driver says which node is its memory."""
        address = "0035:05:00.0"
        write(tmp_path, place(0), node(0, (0,)), node(250, ()))
        write(tmp_path, {f"proc/driver/nvidia/gpus/{address}/numa_status": "Node:      250\nStatus:    online"})

        topology = imported(tmp_path)
        lines = shown(tree_of(topology), f"proc/driver/nvidia/gpus/{address}/numa_status").splitlines()

        assert ["", address] == [found.gpu for found in topology.nodes]
        assert ["Node:      250", "Status:    online", f"Size:      {128 * MIB:x}"] == [*lines[:2], lines[3]]


class TestDax:
    """dax devices of which little is recorded."""

    PARENT = "devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.1"

    @pytest.fixture
    def topology(self, tmp_path):
        write(tmp_path, place(0), node(0, (0,)), node(2, (), 256))
        for nid, blocks in ((0, (0,)), (2, (4, 5))):
            for block in blocks:
                (tmp_path / f"{NODE}/node{nid}/memory{block}").mkdir()
        device = f"sys/{self.PARENT}/dax1.0"
        write(tmp_path, {f"{device}/size": str(200 * MIB), f"{device}/target_node": "2", f"{device}/numa_node": "0"})
        for directory in ("devices", "drivers/kmem"):
            (tmp_path / f"sys/bus/dax/{directory}").mkdir(parents=True)
            up = "../" * (directory.count("/") + 3)
            (tmp_path / f"sys/bus/dax/{directory}/dax1.0").symlink_to(f"{up}{self.PARENT}/dax1.0")
        return imported(tmp_path)

    def test_where_it_is(self, topology):
        """A kmem device whose address is not recorded is where its memory went online."""
        assert [Range(512 * MIB, 768 * MIB)] == [region.range for region in topology.dax_regions]

    def test_its_nd_device(self, topology):
        """The nd device has another number than its dax device; the idle one has the lowest that is free."""
        tree = tree_of(topology)

        assert [1] == [device.nd for device in topology.dax_regions[0].devices]
        assert there(tree, f"sys/{self.PARENT}/dax1.0")
        assert "namespace1.0" == shown(tree, f"sys/{self.PARENT}/namespace")
        assert "dax1.0" == shown(tree, f"sys/{self.PARENT.rpartition('/')[0]}/dax_seed")

    def test_the_kernel(self, topology):
        """Where the NVDIMMs' bus stands tells an old kernel."""
        assert "6.12" == topology.kernel


class TestIdentity:
    """What a machine is called, and from where it was recorded."""

    def test_dmi(self, tmp_path):
        """Lines are kept as they are; files that could not be read are absent."""
        ids = {
            "bios_vendor": "\u00fc",
            "product_name": "X1 ",
            "board_version": "A\nB",
            "product_serial": "",
            "chassis_version": "\n",
        }
        write(tmp_path, place(0), node(0, (0,)))
        write(tmp_path, {f"sys/class/dmi/id/{name}": text for name, text in ids.items()}, newline="")

        topology = imported(tmp_path)
        tree = tree_of(topology)

        assert {
            "bios_vendor": "?",
            "product_name": "X1 ",
            "board_version": "A\nB",
            "chassis_version": "",
        } == topology.dmi
        assert "A\nB" == shown(tree, "sys/devices/virtual/dmi/id/board_version")
        assert not there(tree, "sys/devices/virtual/dmi/id/product_serial")
        assert "../../devices/virtual/dmi/id" == tree.lookup("/sys/class/dmi/id").target

    def test_no_dmi(self, tmp_path):
        """A machine without tables has no directory for them."""
        write(tmp_path, place(0), node(0, (0,)))

        assert not there(tree_of(imported(tmp_path)), "sys/devices/virtual/dmi")

    def test_memory_modules(self, tmp_path):
        """What is printed on the slots and modules is read out of the entries, and the sizes; the rest is not kept."""
        modules = (
            MemoryModule("DIMM_A1 ", "", "00AD", "48AAE639", "0111", "HMT351 ", 4 * GIB),
            MemoryModule("DIMM_A2"),
            MemoryModule("DIMM_B1", "BANK 1", size=64 * GIB),
        )
        old = b"\x11\x15" + bytes(19) + b"\0\0"
        write(tmp_path, place(0), node(0, (0,)))
        for instance, entry in enumerate([*map(encode, range(3), modules), old]):
            (tmp_path / f"sys/firmware/dmi/entries/17-{instance}").mkdir(parents=True)
            (tmp_path / f"sys/firmware/dmi/entries/17-{instance}/raw").write_bytes(entry)

        topology = imported(tmp_path)
        tree = tree_of(topology)

        assert modules == topology.memory_modules
        assert ["17-0", "17-1", "17-2"] == sorted(tree.list("/sys/firmware/dmi/entries").names)
        raw = tree.read("/sys/firmware/dmi/entries/17-0/raw")
        assert (17, 34, b"DIMM_A1 \x0000AD\x0048AAE639\x000111\0HMT351 \0\0") == (raw[0], raw[1], raw[34:])

    def test_uname(self, tmp_path):
        """What uname(2) said, and the size of a page; the kernel's version follows from it."""
        noted = "OSName: Linux\nOSRelease: 6.12.3-a\nHostName: h\nArchitecture: ppc64le\nPageSize: 65536\nOther: 1"
        write(tmp_path, place(0), node(0, (0,)), {"proc/hwloc-nofile-info": noted})

        topology = imported(tmp_path)

        assert "6.12" == topology.kernel
        assert Uname("Linux", "h", "6.12.3-a", "", "ppc64le", 65536) == topology.uname
        assert noted.splitlines()[:-1] == shown(tree_of(topology), "proc/hwloc-nofile-info").splitlines()

    @pytest.mark.parametrize(
        ("mount", "files"),
        [
            ("cpuset /dev/cpuset cpuset rw", {"dev/cpuset/job/step/{}": ""}),
            ("none /dev/cpuset cgroup rw,cpuset,noprefix", {"dev/cpuset/job/step/{}": ""}),
            ("c /sys/fs/cgroup/cpuset cgroup rw,cpuset", {"sys/fs/cgroup/cpuset/job/step/cpuset.{}": ""}),
            (
                "c /sys/fs/cgroup/other cgroup rw,memory\nc /cgroup/u cgroup2 rw",
                {"cgroup/u/cgroup.controllers": "io cpuset", "cgroup/u/job/step/cpuset.{}.effective": ""},
            ),
        ],
    )
    def test_cgroup(self, tmp_path, mount, files):
        """The group is found in every kind of hierarchy, and stands in one of version 2."""
        write(tmp_path, *(place(cpu, package=range(3)) for cpu in range(3)), node(0, (0, 1, 2)))
        lines = "".join(f"{line} 0 0\n" for line in mount.splitlines())
        write(tmp_path, {"proc/mounts": lines, "proc/self/cpuset": "/job/step"})
        for path, text in files.items():
            for what, ids in (("cpus", "0-1"), ("mems", "0")):
                write(tmp_path, {path.format(what): text or ids})

        topology = imported(tmp_path)
        tree = tree_of(topology)

        assert Cgroup("/job/step", "0-1", "0") == topology.cgroup
        assert "/job/step" == shown(tree, "proc/self/cpuset")
        assert "self/mounts" == tree.lookup("/proc/mounts").target
        assert shown(tree, "proc/self/mounts").startswith("cgroup2 /sys/fs/cgroup cgroup2 ")
        assert ["0-2", "0-2", "0-1"] == [
            shown(tree, f"sys/fs/cgroup{group}/cpuset.cpus.effective") for group in ("", "/job", "/job/step")
        ]
        assert "job" not in tree.list("/sys/fs/cgroup/job/step").names

    @pytest.mark.parametrize(
        ("mount", "group"),
        [("c /c cgroup rw,memory", "/job"), ("c /c cgroup2 rw", "/job"), ("c /c cgroup rw,cpuset", ""), ("", "/job")],
    )
    def test_no_cgroup(self, tmp_path, mount, group):
        """Without a hierarchy that has cpusets, or a group in it, there is none."""
        write(tmp_path, place(0), node(0, (0,)), {"proc/mounts": f"{mount} 0 0", "proc/self/cpuset": group})

        topology = imported(tmp_path)

        assert topology.cgroup is None
        assert not {"self", "mounts"} & {*tree_of(topology).list("/proc").names}

    def test_the_group_from_the_list(self, tmp_path):
        """Kernels without ``/proc/self/cpuset`` list the groups of all controllers."""
        listed = "4:memory:/a\n3:cpuset:/b\n0::/c"
        write(tmp_path, place(0), node(0, (0,)), {"proc/self/cgroup": listed, "proc/mounts": "c /c cpuset rw 0 0"})

        assert Cgroup("/b") == imported(tmp_path).cgroup


def test_frequencies_and_capacity(tmp_path):
    """Frequencies stand in a policy to which the CPU links, wherever the recorded kernel had them."""
    write(tmp_path, node(0, (0, 1)))
    for cpu in (0, 1):
        files = {"cpufreq/cpuinfo_max_freq": f"{cpu + 1}000000", "cpu_capacity": str(512 * (cpu + 1))}
        write(tmp_path, place(cpu, package=(0, 1)), {f"{CPU}/cpu{cpu}/{name}": text for name, text in files.items()})
    write(tmp_path, {f"{CPU}/cpu1/cpufreq/base_frequency": "1500000"})

    tree = tree_of(imported(tmp_path))
    policies = f"{CPU}/cpufreq"

    assert ["1000000", "2000000"] == [shown(tree, f"{policies}/policy{n}/cpuinfo_max_freq") for n in (0, 1)]
    assert [None, "1500000"] == [shown(tree, f"{policies}/policy{n}/base_frequency") for n in (0, 1)]
    assert "../cpufreq/policy1" == tree.lookup(f"/{CPU}/cpu1/cpufreq").target
    assert ["512", "1024"] == [cpu_file(tree, cpu, "cpu_capacity") for cpu in (0, 1)]
