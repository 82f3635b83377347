"""Where machines are imported from: a live sysfs, directories, tarballs, recordings; and what is no such thing."""

import gzip
import os
import re
import tarfile
from pathlib import Path

import pytest
from attrs import evolve
from captures import GOLDEN, differences, host, needs_captures, portrait
from click.testing import CliRunner
from tools import bound

from tdxfs.boot import boot
from tdxfs.cli import main
from tdxfs.errors import UserError
from tdxfs.formats.export import export
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.formats.topology import builtin_names, dumps, find, loads
from tdxfs.model import GIB, MIB, Cpu, MemoryKind
from tdxfs.ranges import Range, Ranges
from tdxfs.root import Root
from tdxfs.server import mounted
from tdxfs.sysfs.attribute import Tier
from tdxfs.tree import Tree

KERNEL = frozenset((Tier.KERNEL,))


def tree_of(topology):
    """The kernel's part of the tree of a topology."""
    return Tree(Root, boot(topology), KERNEL)


def with_large_blocks(topology, kernel="7.3"):
    """A built-in machine with memory blocks of 2 GiB: there are fewer to compare."""
    return evolve(topology, kernel=kernel, memory=evolve(topology.memory, block_size=2 * GIB))


class TestLive:
    def test_this_machine(self):
        """The sysfs of the machine that runs the test, imported and mounted, is what it is."""
        if not list(Path("/sys/devices/system/node").glob("node[0-9]*")):
            pytest.skip("this machine's kernel shows no NUMA nodes")
        want = host()
        topology = loads(dumps(import_sysfs(Path("/sys"), "all")))
        # the group of whoever imports it is no fact of the machine
        assert topology.cgroup is None

        with mounted(topology, tiers=KERNEL) as root:
            wrong = differences(root, want)

        assert {} == wrong


class TestRoundTrip:
    @pytest.mark.parametrize(
        ("name", "kernel"),
        [*((name, "7.3") for name in builtin_names() if name != "huge"), ("mixed", "6.12"), ("mixed", "6.1")],
    )
    def test_export_and_import(self, tmp_path, name, kernel):
        """A machine that was written as plain files and imported again shows the same tree."""
        topology = with_large_blocks(find(name), kernel)
        export(tree_of(topology), tmp_path / "tree")

        again = loads(dumps(import_sysfs(tmp_path / "tree")))

        assert ((), ()) == (again.absent, again.present)
        with mounted(topology, tiers=KERNEL) as root:
            want = portrait(root)
        with mounted(again, tiers=KERNEL) as root:
            assert {} == differences(root, want, counters=True)

    def test_the_mount_itself(self):
        """A mount is a source as any sysroot is, and so is the sysfs in it."""
        topology = with_large_blocks(find("mixed"))

        with mounted(topology, tiers=KERNEL) as root:
            assert import_sysfs(root, name="x").nodes == import_sysfs(root / "sys", name="x").nodes
            assert topology.cpus == import_sysfs(root).cpus
            assert topology.distances == import_sysfs(root).distances[:3]


class TestTarball:
    def test_of_a_tree(self, tmp_path):
        """A tarball says what the directory says, whatever its top directory is called."""
        export(tree_of(with_large_blocks(find("clean"))), tmp_path / "tree")
        for inside in ("", "machine/"):
            with tarfile.open(tmp_path / "tree.tar.gz", "w:gz") as archive:
                archive.add(tmp_path / "tree/sys", f"{inside}sys")
                archive.add(tmp_path / "tree/proc", f"{inside}proc")

            found = import_sysfs(tmp_path / "tree.tar.gz")

            assert import_sysfs(tmp_path / "tree") == evolve(found, description="imported from tree")

    def test_of_hwloc(self, tmp_path):
        """What hwloc-gather-topology saves of a machine is enough for its CPUs, nodes, distances and dax devices."""
        topology = with_large_blocks(find("optane"))
        with mounted(topology, tiers=KERNEL) as root:
            bound(root, tmp_path / "dev", "hwloc-gather-topology", "--io", "--no-cpuid", tmp_path / "saved")

        found = import_sysfs(tmp_path / "saved.tar.bz2")

        assert topology.cpus == found.cpus
        assert {node.id: node.memory for node in topology.nodes} == {
            node.id: node.memory for node in found.nodes if node.memory
        }
        assert topology.memory.block_size == found.memory.block_size
        # how kmem brought them online follows auto_online_blocks, which hwloc does not save
        devices, others = boot(topology).dax, boot(found).dax
        assert set(devices) == set(others)
        assert all(evolve(device, plugged="") == evolve(others[key], plugged="") for key, device in devices.items())
        assert boot(topology).node_blocks.keys() == boot(found).node_blocks.keys()
        with mounted(topology, tiers=KERNEL) as root:
            want = [entry for entry in portrait(root) if re.match(r"/sys/(bus|devices/system)/(cpu|node)", entry["p"])]
        with mounted(found, tiers=KERNEL) as root:
            wrong = differences(root, want)
        # zones are in no tarball, and the kernel's version is that of the machine that ran the script
        assert wrong.keys() <= {"/sys/devices/system/node/has_normal_memory", "/sys/devices/system/cpu/nohz_full"}


@needs_captures
class TestConvertible:
    """No sysfs says which memory is convertible: the caller does."""

    def cmrs(self, stage, convertible):
        return Ranges(import_sysfs(GOLDEN / stage, convertible).tdx.cmrs)

    @pytest.mark.parametrize(
        "stage",
        ["m5/kmem-online-movable", "m5-k612/kmem-online-kernel", "m7-k73/kmem", "m9-k73/ram-kmem", "m13-k73/kmem"],
    )
    def test_dram_is_no_dax_memory(self, stage):
        """Memory that kmem brought is System RAM to the kernel; it is not ``dram``, but it is in ``all``."""
        topology = import_sysfs(GOLDEN / stage, "dram")
        dax = Ranges.of(region.range for region in topology.dax_regions)
        ram = Ranges.of(memory.range for node in topology.nodes for memory in node.memory) - Ranges((Range(0, MIB),))

        assert dax
        assert not Ranges(topology.tdx.cmrs) & dax
        assert ram == Ranges(topology.tdx.cmrs)
        assert ram | dax == self.cmrs(stage, "all")

    def test_kinds(self):
        """A node that only a dax region feeds is of that region's kind."""
        kinds = {
            stage: {node.id: node.kind for node in import_sysfs(GOLDEN / stage).nodes}[2]
            for stage in ("m3-k73/base", "m5/kmem-offline", "m9-k73/ram-kmem")
        }

        assert [MemoryKind.DRAM, MemoryKind.NVDIMM, MemoryKind.CXL] == list(kinds.values())

    def test_ranges(self, tmp_path):
        """Ranges have both ends in them and may stand in a file; the first MiB is never convertible."""
        file = tmp_path / "cmrs"
        file.write_text("0x0-0x1fffffff\n0x30000000-0x3fffffff\n")
        expected = Ranges((Range(MIB, 512 * MIB), Range(768 * MIB, GIB)))

        assert expected == self.cmrs("m1/base", "0x0-0x1fffffff,0x30000000-0x3fffffff")
        assert expected == self.cmrs("m1/base", str(file))

    def test_what_is_online_was_not_vetoed(self):
        """Hot-added memory that is online outside TDX memory is there with TDX too, by ``hotplug = allow``."""
        topology = import_sysfs(GOLDEN / "m9-k73/ram-kmem", "dram")

        assert "allow" == topology.policies.hotplug.value
        assert boot(topology).tdx.enabled
        assert b"2\n" == Tree(Root, boot(topology)).read("/sys/devices/system/node/tdx_incapable")
        assert "reject" == import_sysfs(GOLDEN / "m1/base", "dram").policies.hotplug.value


class TestOddMachines:
    def test_caches_that_no_place_explains(self, tmp_path):
        """CPUs of one core complex share a cache that is neither a core's nor a die's."""
        topology = evolve(with_large_blocks(find("clean")), caches=find("mixed").caches)
        cpus = tuple(
            evolve(cpu, cache_ids=(*(cpu.id,) * (len(topology.caches) - 1), 7 + cpu.id // 3)) for cpu in topology.cpus
        )
        odd = evolve(topology, cpus=cpus)
        export(tree_of(odd), tmp_path / "tree")

        found = import_sysfs(tmp_path / "tree")

        assert cpus == found.cpus
        last = len(topology.caches) - 1
        assert b"3-5\n" == tree_of(found).read(f"/sys/devices/system/cpu/cpu4/cache/index{last}/shared_cpu_list")

    def test_dies(self, tmp_path):
        """Dies keep their numbers, whether a kernel counts them in the package or in the machine."""
        cpus = tuple(Cpu(n, package=n // 4, die=n // 2, core=n % 2) for n in range(8))
        topology = evolve(with_large_blocks(find("clean")), cpus=cpus, caches=())
        export(tree_of(topology), tmp_path / "tree")

        again = tree_of(import_sysfs(tmp_path / "tree"))

        for cpu in cpus:
            path = f"/sys/devices/system/cpu/cpu{cpu.id}/topology"
            assert f"{cpu.die}\n".encode() == again.read(f"{path}/die_id")
            assert f"{cpu.die * 2}-{cpu.die * 2 + 1}\n".encode() == again.read(f"{path}/die_cpus_list")

    def test_another_configuration(self, tmp_path):
        """What a kernel was built without is absent; what it has before its time is present."""
        export(tree_of(with_large_blocks(find("clean"), "6.12")), tmp_path / "tree")
        system = tmp_path / "tree/sys/devices/system"
        (system / "cpu/nohz_full").unlink()
        (system / "memory/hard_offline_page").unlink()
        (system / "node/node0/reclaim").touch()
        for cpu in (system / "cpu").glob("cpu[0-9]*"):
            (cpu / "driver").unlink()

        found = import_sysfs(tmp_path / "tree", "all")

        assert {
            "/sys/devices/system/cpu/nohz_full",
            "/sys/devices/system/cpu/cpu<id>/driver",
            "/sys/devices/system/memory/hard_offline_page",
        } == set(found.absent)
        assert ("/sys/devices/system/node/node<id>/reclaim",) == found.present
        shown = tree_of(loads(dumps(found)))
        assert "reclaim" in shown.list("/sys/devices/system/node/node1").names
        assert "nohz_full" not in shown.list("/sys/devices/system/cpu").names
        assert shown.read("/sys/devices/system/cpu/cpu1/uevent").startswith(b"MODALIAS=")

    def test_without_x86_in_nodes(self, tmp_path):
        """The proposed files of a node are there although the kernel it was imported from has no x86 directory."""
        export(tree_of(with_large_blocks(find("clean"))), tmp_path / "tree")
        for node in (tmp_path / "tree/sys/devices/system/node").glob("node[0-9]*"):
            (node / "x86").rmdir()

        found = import_sysfs(tmp_path / "tree", "all")

        assert "x86" not in tree_of(found).list("/sys/devices/system/node/node0").names
        assert b"1\n" == Tree(Root, boot(found)).read("/sys/devices/system/node/node0/x86/tdx_capable")


def gz(path, *lines):
    with gzip.open(path, "wt") as file:
        file.writelines(f"{line}\n" for line in lines)


def empty(path):
    path.mkdir()


def no_sysfs(path):
    (path / "sys/class").mkdir(parents=True)


def no_nodes(path):
    (path / "sys/devices/system/cpu").mkdir(parents=True)


def text_file(path):
    path.write_text("this is not a tarball\n")


def other_tarball(path):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "somewhere/else")


def cut_tarball(path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__, "sys/devices/system/node/possible")
    path.write_bytes(path.read_bytes()[:-40])


def stage(*lines):
    def make(path):
        path.mkdir()
        gz(path / "sys.jsonl.gz", *lines)

    return make


def cut_stage(path):
    path.mkdir()
    gz(path / "sys.jsonl.gz", *(os.urandom(20).hex() for _ in range(1000)))
    file = path / "sys.jsonl.gz"
    file.write_bytes(file.read_bytes()[:500])


def overlapping(path):
    # two nodes have the same System RAM, as far as one can see
    for nid in (0, 1):
        node = path / f"sys/devices/system/node/node{nid}"
        node.mkdir(parents=True)
        (node / "distance").write_text("20 20\n")


class TestNoMachine:
    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (empty, "is not a sysfs and holds none"),
            (no_sysfs, "is not a sysfs and holds none"),
            (no_nodes, "shows no CPUs and no nodes"),
            (text_file, "is not a tarball"),
            (other_tarball, "holds no sysfs"),
            (cut_tarball, "cannot be read|is not a tarball|holds no sysfs"),
            (stage("not json"), "cannot be read"),
            (stage("[1, 2]"), "is not an entry"),
            (stage('{"t": "f"}'), "is not an entry"),
            (stage('{"p": "/sys/x"}'), "is not an entry"),
            (stage('{"p": "/sys/x", "t": "f", "b64": "A"}'), "cannot be read"),
            (stage(), "shows no CPUs and no nodes"),
            (cut_stage, "cannot be read"),
            (overlapping, "must be 10 on the diagonal"),
        ],
        ids=lambda value: getattr(value, "__name__", None),
    )
    def test_one_line(self, tmp_path, make, reason):
        """What is no machine is refused in one line that names it."""
        make(tmp_path / "source")

        with pytest.raises(UserError, match=reason) as refused:
            import_sysfs(tmp_path / "source")

        assert str(refused.value).startswith(f"{tmp_path / 'source'}: ")
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize("words", ["some", "0x1000", "0x2000-0x1000", "0x1-0x2", "1-2-3", "-", "0x1000-zz"])
    def test_convertible(self, tmp_path, words):
        """Ranges that are none are named, with what is allowed."""
        export(tree_of(with_large_blocks(find("clean"))), tmp_path / "tree")

        result = CliRunner().invoke(main, ["import", str(tmp_path / "tree"), "--convertible", words])

        assert 1 == result.exit_code
        assert f"tdxfs: --convertible: {words}: must be all, dram, a file, or ranges" in result.stderr
        assert 1 == result.stderr.count("\n")

    def test_nonsense_in_the_files(self, tmp_path):
        """A file that says nothing of use is left at its default: recordings are what they are."""
        export(tree_of(with_large_blocks(find("clean"))), tmp_path / "tree")
        node = tmp_path / "tree/sys/devices/system/node/node0"
        for name in ("distance", "meminfo", "numastat", "vmstat"):
            (node / name).write_text("nonsense: there is\n")
        (tmp_path / "tree/sys/devices/system/cpu/present").write_text("many\n")

        found = import_sysfs(tmp_path / "tree")

        assert () == found.distances
        assert {} == found.counters[0].meminfo
        assert find("clean").cpus == found.cpus
