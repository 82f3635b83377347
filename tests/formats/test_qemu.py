"""QEMU command lines and libvirt domains as topologies."""

import re
import shlex

import pytest
from attrs import evolve
from captures import GOLDEN, needs_captures
from shown import AS_BOOTED, difference, recorded, shown, unsaid_of

from tdxfs.errors import UserError
from tdxfs.formats.qemu import import_qemu
from tdxfs.formats.qemu.libvirt import command_of
from tdxfs.formats.qemu.options import parse_command
from tdxfs.formats.qemu.processors import processors_of
from tdxfs.model import GIB, MIB
from tdxfs.ranges import Range

FEATURES = re.compile(r"/sys/devices/system/cpu/(modalias$|vulnerabilities/|cpu\d+/(uevent$|microcode/))")
"""Files that depend on the CPU model."""


def command(machine):
    return shlex.split((GOLDEN / machine / "cmdline").read_text())


@needs_captures
@pytest.mark.parametrize("stage", AS_BOOTED)
def test_the_command_line_gives_the_machine_that_sysfs_shows(stage):
    """A machine made of the command that booted it shows what the one made of its sysfs shows."""
    topology, base = recorded(stage)

    made = import_qemu(command(stage.split("/")[0]), base, unsaid_of(topology))

    assert difference(shown(topology), shown(made)) == {}


@needs_captures
@pytest.mark.parametrize("machine", ["m1", "m2-k73", "m3-k73", "m4-k73", "m7-k73", "m9-k73", "m15"])
def test_only_cpu_features_are_not_said(machine):
    """
    Kernel, kernel command line and caches too are known from the command line: only the CPU's features, and what the
    firmware calls the machine, are not.
    """
    topology, _ = recorded(f"{machine}/base")
    assert topology.dmi["sys_vendor"] == "QEMU"
    made = import_qemu(command(machine))
    paths = difference(shown(evolve(topology, dmi={}, memory_modules=())), shown(made))

    assert (made.kernel, made.cmdline) == (topology.kernel, topology.cmdline)
    assert {path for path in paths if not FEATURES.match(path)} == set()


@needs_captures
def test_memory_modules():
    """A pc-dimm is memory that is added after boot, where QEMU puts it."""
    node = import_qemu(command("m8b-k612")).nodes[1]

    assert [(part.range, part.hotplug) for part in node.memory] == [
        (Range(512 * MIB, GIB), False),
        (Range(4 * GIB, 4 * GIB + 512 * MIB), True),
    ]


def layout(text):
    """Memory ranges by node of a command line."""
    return [[part.range for part in node.memory] for node in import_qemu(text.split()).nodes]


LOW = Range(0x1000, 0xA0000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [[LOW, Range(MIB, 128 * MIB)]]),
        ("-m 2G", [[LOW, Range(MIB, 2 * GIB)]]),
        ("-M q35 -m 3G", [[LOW, Range(MIB, 2 * GIB), Range(4 * GIB, 5 * GIB)]]),
        ("-M pc -m 3G", [[LOW, Range(MIB, 3 * GIB)]]),
        ("-M pc-i440fx-9.0 -m 4G", [[LOW, Range(MIB, 3 * GIB), Range(4 * GIB, 5 * GIB)]]),
        ("-M q35,max-ram-below-4g=1G -m 2G", [[LOW, Range(MIB, GIB), Range(4 * GIB, 5 * GIB)]]),
        (
            "-M q35 -m 8G -numa node,mem=1G -numa node,mem=3G -numa node,mem=4G",
            [
                [LOW, Range(MIB, GIB)],
                [Range(GIB, 2 * GIB), Range(4 * GIB, 6 * GIB)],
                [Range(6 * GIB, 10 * GIB)],
            ],
        ),
        (
            "-M q35 -m 1G,slots=2,maxmem=4G -object memory-backend-ram,id=a,size=256M"
            " -device pc-dimm,memdev=a,addr=0x120000000",
            [[LOW, Range(MIB, GIB), Range(0x120000000, 0x130000000)]],
        ),
    ],
)  # fmt: skip
def test_where_memory_lies(text, expected):
    """RAM has a hole below 4 GiB that depends on the machine; devices lie where they say, or behind it."""
    assert layout(text) == expected


@pytest.mark.parametrize(
    ("text", "present", "counts"),
    [
        ("", 1, (1, 1, 1, 1, 1)),
        ("-smp 8", 8, (1, 1, 1, 8, 1)),
        ("-smp 8,sockets=2", 8, (2, 1, 1, 4, 1)),
        ("-smp 8,cores=2", 8, (4, 1, 1, 2, 1)),
        ("-smp 2,maxcpus=8,sockets=2,cores=2", 2, (2, 1, 1, 2, 2)),
        ("-smp sockets=2,dies=2,cores=3,threads=2", 24, (2, 2, 1, 3, 2)),
    ],
)
def test_smp(text, present, counts):
    """What -smp leaves out is computed as QEMU computes it."""
    processors = processors_of(parse_command(text.split()))

    assert (processors.present, processors.counts) == (present, counts)


def test_dies_and_absent_processors():
    """Dies have APIC id bits of their own; processors that may be plugged in are possible."""
    topology = import_qemu("-kernel vmlinuz-6.1.0 -smp 8,maxcpus=12,sockets=1,dies=2,cores=3,threads=2".split())

    assert topology.possible_cpus == 12
    assert [(cpu.package, cpu.core, cpu.thread) for cpu in topology.cpus] == [
        (0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 2, 0), (0, 2, 1), (0, 0, 0), (0, 0, 1),
    ]  # fmt: skip
    assert [cpu.die for cpu in topology.cpus] == [0] * 6 + [1] * 2


def test_processors_of_nodes():
    """-numa cpu puts whole sockets into nodes; without any assignment they are dealt out by socket."""
    nodes = "-m 2G -numa node,mem=1G -numa node,mem=1G"
    by_socket = import_qemu(f"-smp 4,sockets=2,cores=2 {nodes}".split())
    assigned = "-numa cpu,node-id=1,socket-id=1,core-id=0 -numa cpu,node-id=0,socket-id=0"
    given = import_qemu(f"-smp 4,sockets=2,cores=2 {nodes} {assigned}".split())

    assert [cpu.node for cpu in by_socket.cpus] == [0, 0, 1, 1]
    assert [cpu.node for cpu in given.cpus] == [0, 0, 1, 0]


def test_generic_initiators():
    """An acpi-generic-initiator object makes its node one."""
    topology = import_qemu(
        "-m 1G -numa node,mem=1G -numa node -object acpi-generic-initiator,id=gi,pci-dev=dev,node=1".split()
    )

    assert topology.generic_initiators == "1"


def test_json_options():
    """Options in JSON, as libvirt gives them, are read too."""
    words = ["-m", "1G", "-object", '{"qom-type":"memory-backend-ram","id":"r","size":1073741824}']
    topology = import_qemu([*words, "-numa", "node,memdev=r"])

    assert topology.nodes[0].memory[-1].range == Range(MIB, GIB)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-m", "-m: its value is missing"),
        ("-m many", "'many' is no size"),
        ("-m 2G,maxmem=1G", "maxmem"),
        ("-M microvm", "must be a PC"),
        ("-smp 7,cores=2,sockets=2", "not maxcpus, 7"),
        ("-m 1G -numa node,mem=1M", "the nodes have 1048576 bytes"),
        ("-m 1G -numa node,memdev=x", "no memory backend 'x'"),
        ("-m 1G -numa node,nodeid=1,mem=1G", "nodeid: must be 0 to 0"),
        ("-m 1G -numa node,mem=1G -numa node -numa dist,src=0,dst=0,val=10", "between 0 and 1 is missing"),
        ("-m 1G -numa node,mem=1G -numa cpu,node-id=3", "no such node"),
        ("-device nvdimm,id=x", "memdev: must be given"),
        ("-object memory-backend-ram,id=n,size=1G -device nvdimm,memdev=n", "needs -m with slots"),
        ("-M q35,hmat=on -m 1G -numa node,mem=1G -numa hmat-lb,data-type=speed", "data-type: must be one of"),
        ("-M hmat=perhaps", "must be on or off"),
    ],
)
def test_wrong_command_lines(text, words):
    """What QEMU would refuse is refused in one line with the option in it."""
    with pytest.raises(UserError) as refused:
        import_qemu(text.split())

    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


DOMAIN = """
<domain type='kvm'>
  <memory unit='MiB'>2048</memory>
  <maxMemory slots='4' unit='GiB'>8</maxMemory>
  <vcpu current='4'>4</vcpu>
  <os><type machine='pc-q35-9.0'>hvm</type><kernel>/boot/vmlinuz-6.12.9</kernel><cmdline>quiet</cmdline></os>
  <cpu>
    <model>Skylake-Server</model>
    <topology sockets='2' dies='1' cores='2' threads='1'/>
    <numa>
      <cell id='0' cpus='0-1' memory='512' unit='MiB'>
        <distances><sibling id='0' value='10'/><sibling id='1' value='21'/><sibling id='2' value='30'/></distances>
        <cache level='1' associativity='direct' policy='writeback'>
          <size value='10' unit='KiB'/><line value='8' unit='B'/>
        </cache>
      </cell>
      <cell id='1' cpus='2-3' memory='524288'>
        <distances><sibling id='2' value='31'/></distances>
      </cell>
      <cell id='2' memory='512' unit='MiB'/>
      <interconnects>
        <latency initiator='0' target='2' type='access' value='200'/>
        <latency initiator='1' target='2' type='access' value='100'/>
        <bandwidth initiator='1' target='2' type='read' value='2' unit='GiB'/>
      </interconnects>
    </numa>
  </cpu>
  <devices>
    <memory model='nvdimm'>
      <target><size unit='MiB'>514</size><node>2</node><label><size unit='KiB'>128</size></label></target>
    </memory>
    <memory model='dimm'>
      <target><size unit='MiB'>256</size><node>1</node></target>
      <address type='dimm' slot='1' base='0x120000000'/>
    </memory>
  </devices>
</domain>
"""


def test_libvirt_domains():
    """A domain's nodes, distances, memory attributes and memory devices give the machine that libvirt would start."""
    topology = import_qemu(command_of(DOMAIN))

    assert (topology.kernel, topology.cmdline) == ("6.12", "quiet")
    assert topology.distances == ((10, 21, 30), (21, 10, 31), (30, 31, 10))
    assert [cpu.node for cpu in topology.cpus] == [0, 0, 1, 1]
    assert topology.nodes[0].side_caches[0].size == 10240
    assert topology.nodes[1].memory[-1].range == Range(0x120000000, 0x130000000)
    assert topology.nodes[2].access0.initiators == (1,)
    assert (topology.nodes[2].access0.read_latency, topology.nodes[2].access0.read_bandwidth) == (100, 2048)
    assert topology.dax_regions[0].range == Range(4 * GIB, 4 * GIB + 512 * MIB)


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("<domain", "dom.xml: "),
        ("<network/>", "must be <domain>"),
        (DOMAIN.replace("slots='4'", ""), "slots"),
        (DOMAIN.replace("'512'", "'x'"), "'x'"),
    ],
)
def test_wrong_domains(xml, words):
    """What is no domain is refused with the file's name."""
    with pytest.raises(UserError, match=r"dom\.xml") as refused:
        import_qemu(command_of(xml, "dom.xml"))

    assert words in str(refused.value)
