"""What a topology file may not say: one line names file, key, value and rule."""

import pytest
from attrs import evolve
from hypothesis import given
from machines import MIXED
from strategies import topologies

from tdxfs import validate
from tdxfs.errors import UserError
from tdxfs.formats.topology import builtin_names, find, loads

NAME = 'name = "base"'
DISTANCES = "[[10, 20], [20, 10]]"
CMRS = 'cmrs = [{ base = "1 MiB", size = "2047 MiB" }]'
IDS = 'ids = "0-3"'
NODE1 = "id = 1\n"
MEMORY1 = '{ base = "4 GiB", size = "2 GiB" }'
PROVIDER = 'provider = "hmem"'
TARGET = "target_node = 2\n"
MAPPINGS = 'mappings = [{ base = "8 GiB", size = "1 GiB" }]'
DRIVER = 'driver = "kmem"'
GOOD = f"""
{NAME}
distances = {DISTANCES}
[memory]
block_size = "128 MiB"
[tdx]
{CMRS}
[policy]
boot = "mixed"
[[cpus]]
{IDS}
[[caches]]
level = 1
type = "Data"
size = "48 KiB"
ways = 12
[[nodes]]
id = 0
memory = [{{ base = 0, size = "2 GiB" }}]
[[nodes]]
{NODE1}memory = [{MEMORY1}]
[[dax_regions]]
id = 0
{PROVIDER}
base = "8 GiB"
size = "2 GiB"
{TARGET}devices = [{{ id = 0, {MAPPINGS}, {DRIVER} }}]
[[pci_devices]]
address = "0000:17:00.0"
vendor = 1
device = 2
pci_class = 3
bars = [{{ index = 0, base = "16 GiB", size = "1 GiB" }}]
"""

NUMBER = "must be a whole number or a text such as '64 GiB' or '0x1_0000_0000'"
NODE = "must be the id of a node"
POSITIVE = "must be positive"

WRONG = [
    # what stands in the file, what is written instead, and what is said of it
    ("kernel", NAME, 'kernel = "5.0"', "kernel: 5.0: must be one of 6.1, 6.12, 7.3"),
    ("lines in a text", NAME, 'cmdline = "a\\nb"', "cmdline: 'a\\nb': must be one line of printable ASCII"),
    ("not ASCII", NAME, 'model_name = "\u00fc"', "model_name: '\u00fc': must be one line of printable ASCII"),
    ("record", NAME, 'records = { stat = "" }', "records.stat: a text: must be of one of cpuinfo,"),
    ("list", NAME, 'possible_nodes = "x"', "possible_nodes: 'x' is not a list of ids such as 0-1,3"),
    ("backward list", NAME, 'possible_nodes = "3-1"', "possible_nodes: '3-1' runs backwards"),
    ("block list", '"128 MiB"', '"128 MiB"\noffline = "x"', "memory.offline: x: must be a list of ids"),
    ("initiator", NAME, 'generic_initiators = "7"', "generic_initiators: 7: must be ids of nodes"),
    ("CPU twice", IDS, f"{IDS}\n[[cpus]]\nids = 2", "cpus.id: 2: must be given once"),
    ("node twice", NODE1, "id = 0\n", "nodes.id: 0: must be given once"),
    ("region twice", "[[pci_devices]]", f'[[dax_regions]]\nid = 0\n{PROVIDER}\nbase = "12 GiB"\nsize = "1 GiB"\n'
     "[[pci_devices]]", "dax_regions.id: 0: must be given once"),
    ("CPU's node", IDS, f"{IDS}\nnode = 7", f"cpus[0].node: 7: {NODE}"),
    ("nr_cpus", NAME, "nr_cpus = 2", "cpus[2].id: 2: must be below nr_cpus, 2"),
    ("negative", NAME, "nr_cpus = -2", "nr_cpus: -2: must not be negative"),
    ("possible_cpus", NAME, "possible_cpus = 2", "possible_cpus: 2: must be above the highest CPU, 3"),
    ("threads", IDS, f"{IDS}\nthreads = 3", "cpus[0].threads: 3: must divide the number of CPUs, 4"),
    ("cache type", '"Data"', '"data"', "caches[0].type: data: must be one of Data, Instruction, Unified"),
    ("cache sharing", "ways = 12", 'ways = 12\nshared = "socket"', "caches[0].shared: socket: must be one of thread,"),
    ("cache size", '"48 KiB"', "1000", "caches[0].size: 1000: must be a whole number of KiB"),
    ("cache ways", "ways = 12", "ways = -1", "caches[0].ways: -1: must not be negative"),
    ("cache level", "level = 1", "level = 0", f"caches[0].level: 0: {POSITIVE}"),
    ("siblings of what", IDS, f"{IDS}\nsiblings = {{ socket = '0' }}",
     "cpus[0].siblings: socket: must be of one of thread, core, cluster, die, package, book, drawer, or of cache and"),
    ("siblings", IDS, f"{IDS}\nsiblings = {{ core = 'x' }}", "cpus[0].siblings.core: x: must be a list of ids"),
    ("frequency", IDS, f"{IDS}\nmax_frequency = -1", f"cpus[0].max_frequency: -1: {POSITIVE}"),
    ("cpumap", NODE1, f"{NODE1}cpumap = 'x'\n", "nodes[1].cpumap: x: must be a list of ids"),
    ("online node", NAME, 'online_nodes = "7"', "online_nodes: 7: must be ids of nodes"),
    ("GPU", NODE1, f"{NODE1}gpu = '5:0'\n", "nodes[1].gpu: 5:0: must be DDDD:BB:DD.F in lower-case hexadecimal"),
    ("huge page size", NAME, "hugepage_sizes = [2048, 3000]", "hugepage_sizes: 3000: must be a power of two"),
    ("huge page size twice", NAME, "hugepage_sizes = [64, 64]", "hugepage_sizes: 64: must be a power of two, given"),
    ("huge pages", NODE1, f"{NODE1}hugepages = {{ 64 = 1 }}\n", "nodes[1].hugepages: 64: must be one of hugepage_"),
    ("huge page count", NODE1, f"{NODE1}hugepages = {{ 2048 = -1 }}\n",
     "nodes[1].hugepages.2048: -1: must not be negative"),
    ("DMI", NAME, 'dmi = { name = "x" }', "dmi.name: a line: must be of one of bios_date, "),
    ("DMI text", NAME, 'dmi = { board_name = "\u00fc" }', "dmi.board_name: '\u00fc': must be one line of printable"),
    ("uname", NAME, 'uname = { release = "a\\nb" }', "uname.release: 'a\\nb': must be one line of printable ASCII"),
    ("memory module", NAME, "memory_modules = [{ size = 5 }]", "memory_modules[0].size: 5: must be a whole number"),
    ("text with a NUL", NAME, 'memory_modules = [{ bank = "a\\u0000" }]', "memory_modules[0].bank: 'a\\x00': must be"),
    ("cgroup", NAME, 'cgroup = { name = "job" }', "cgroup.name: job: must be a path such as / or /group/child"),
    ("cgroup's CPUs", NAME, 'cgroup = { cpus = "x" }', "cgroup.cpus: x: must be a list of ids"),
    ("distance rows", DISTANCES, "[[10, 20]]", "distances: 1 rows: must be square: a row per node, 2"),
    ("distance columns", DISTANCES, "[[10, 20], [20]]", "distances[1]: 1 columns: must be square: a column per node"),
    ("diagonal", DISTANCES, "[[11, 20], [20, 10]]", "distances[0][0]: 11: must be 10 on the diagonal"),
    ("distance", DISTANCES, "[[10, 256], [20, 10]]", "distances[0][1]: 256: must be 10 to 255"),
    ("access", NODE1, f"{NODE1}access0 = {{ initiators = [9] }}\n", f"nodes[1].access0.initiators: 9: {NODE}"),
    ("side cache", NODE1, f"{NODE1}side_caches = [{{ level = 1, size = 0, line_size = 64 }}]\n",
     f"nodes[1].side_caches[0].size: 0: {POSITIVE}"),
    ("memory tier", NODE1, f"{NODE1}memory_tier = -1\n", "nodes[1].memory_tier: -1: must not be negative"),
    ("counters", NAME, "counters = { 9 = { } }", f"counters.9: 9: {NODE}"),
    ("counters of what", NAME, "counters = { x = { } }", f"counters: x: {NODE}"),
    ("block size", '"128 MiB"', '"100 MiB"', "memory.block_size: 104857600: must be a power of two, at least 16 MiB"),
    ("small blocks", '"128 MiB"', '"1 MiB"', "memory.block_size: 1048576: must be a power of two"),
    ("auto_online", '"128 MiB"', '"128 MiB"\nauto_online = "x"', "memory.auto_online: x: must be one of offline,"),
    ("base", MEMORY1, '{ base = 4294967297, size = "2 GiB" }',
     "nodes[1].memory[0].base: 4294967297: must be a whole number of pages of 4096 bytes"),
    ("size", MEMORY1, '{ base = "4 GiB", size = 5000 }',
     "nodes[1].memory[0].size: 5000: must be a whole number of pages"),
    ("negative base", MEMORY1, '{ base = -4096, size = "2 GiB" }', "nodes[1].base: -4096: must not be negative"),
    ("no size", MEMORY1, '{ base = "4 GiB", size = 0 }', f"nodes[1].size: 0: {POSITIVE}"),
    ("too high", MEMORY1, '{ base = "8 PiB", size = "2 GiB" }', "nodes[1].memory[0]: [0x20000000000000, "),
    ("overlap", MEMORY1, '{ base = "1 GiB", size = "2 GiB" }',
     "nodes[1].memory[0]: [0x40000000, 0xc0000000): must not overlap nodes[0].memory[0], [0x0, 0x80000000)"),
    ("overlap of kinds", 'base = "16 GiB"', 'base = "9 GiB"', "must not overlap dax_regions[0], "),
    ("hotplug", MEMORY1, '{ base = "4 GiB", size = "1 MiB", hotplug = true }',
     "nodes[1].memory[0]: [0x100000000, 0x100100000): hotplug memory must be whole blocks"),
    ("alignment", PROVIDER, 'provider = "hmem"\nalign = "3 MiB"',
     "dax_regions[0].align: 3145728: must be 4 KiB, 2 MiB or 1 GiB"),
    ("target node", "target_node = 2", "target_node = -2", "dax_regions[0].target_node: '-2' is not a list of ids"),
    ("numa_node", "target_node = 2", "numa_node = 9", f"dax_regions[0].numa_node: 9: {NODE}"),
    ("device twice", f"{DRIVER} }}]", f"{DRIVER} }}, {{ id = 0, mappings = [] }}]",
     "dax_regions[0].devices.id: [0, 0]: must be given once"),
    ("device align", DRIVER, f"{DRIVER}, align = 5",
     "dax_regions[0].devices[0].align: 5: must be 4 KiB, 2 MiB or 1 GiB"),
    ("kmem", TARGET, "", "dax_regions[0].devices[0].driver: kmem: needs a region with a target_node"),
    ("no kmem", NAME, "kmem_driver = false", "dax_regions[0].devices[0].driver: kmem: needs kmem_driver"),
    ("static", GOOD[GOOD.index(PROVIDER) :],
     'provider = "nvdimm"\nbase = "8 GiB"\nsize = 4096\ndevices = [{ mappings = [] }]',
     "dax_regions[0].devices[0].mappings: 0: must be one on an NVDIMM"),
    ("nd devices", GOOD[GOOD.index(PROVIDER) :],
     'provider = "nvdimm"\nbase = "8 GiB"\nsize = "2 MiB"\ndevices = [{ nd = -1 }]',
     "dax_regions[0].devices.nd: [-1]: must be given once, and not be negative"),
    ("nd seed", GOOD[GOOD.index(PROVIDER) :],
     'provider = "nvdimm"\nbase = "8 GiB"\nsize = "2 MiB"\nseed = 3\ndevices = [{ nd = 3 }]',
     "dax_regions[0].seed: 3: must be no device's nd, and not be negative"),
    ("outside", MAPPINGS, 'mappings = [{ base = "10 GiB", size = "1 GiB" }]',
     "dax_regions[0].devices[0].mappings: [0x280000000, 0x2c0000000): must lie inside the region, [0x200000000,"),
    ("misaligned", MAPPINGS, 'mappings = [{ base = "8 GiB", size = 4096 }]',
     "dax_regions[0].devices[0].mappings: [0x200000000, 0x200001000): must be aligned to 2097152"),
    ("mapped twice", f"{DRIVER} }}]", f"{DRIVER} }}, {{ id = 1 }}]",
     "dax_regions[0].devices[1].mappings: [0x200000000, 0x280000000): must not overlap another mapping"),
    ("minor", DRIVER, f"{DRIVER}, minor = -1", "dax_regions[0].devices[0].minor: -1: must be free, and below 2^20"),
    ("driver", DRIVER, 'driver = "dax"', "dax_regions[0].driver: 'dax': must be one of '', 'device_dax', 'kmem'"),
    ("PCI address", '"0000:17:00.0"', '"17:00.0"', "pci_devices[17:00.0].address: 17:00.0: must be DDDD:BB:DD.F"),
    ("PCI numbers", "vendor = 1", "vendor = 65536",
     "pci_devices[0000:17:00.0].vendor: 65536: must be a number of 16 bits"),
    ("PCI node", "vendor = 1", "vendor = 1\nnuma_node = 9", f"pci_devices[0000:17:00.0].numa_node: 9: {NODE}"),
    ("BAR", "index = 0", "index = 9", "pci_devices[0000:17:00.0].bars.index: [9]: must be 0 to 5, each given once"),
    ("too many CMRs", CMRS, 'max_cmrs = 1\ncmrs = [{ base = 0, size = 4096 }, { base = "2 MiB", size = "2 MiB" }]',
     "tdx.cmrs: 2 ranges: must be at most 1 (max_cmrs)"),
    ("CMRs overlap", CMRS, 'cmrs = [{ base = 0, size = "2 MiB" }, { base = "1 MiB", size = "2 MiB" }]',
     "tdx.cmrs: [0x100000, 0x300000): must be sorted and must not overlap [0x0, 0x200000)"),
    ("CMR size", CMRS, "cmrs = [{ base = 0, size = 4097 }]", "tdx.cmrs[0].size: 4097: must be a whole number of pages"),
    ("limit", CMRS, "max_tdmrs = 0", f"tdx.max_tdmrs: 0: {POSITIVE}"),
    ("KeyIDs", CMRS, "keyids = -1", "tdx.keyids: -1: must not be negative"),
    # what is not a topology at all
    ("syntax", NAME, 'name = "base', "(at line 2, column 13)"),
    ("unknown key", NAME, 'nam = "base"', "nam: unknown key; known are name, description,"),
    ("unknown key below", MEMORY1, '{ base = "4 GiB", size = 4096, sort = 1 }',
     "nodes[1].memory[0].sort: unknown key;"),
    ("missing key", IDS, "", "cpus[0].ids: missing: must be given"),
    ("missing size", MEMORY1, '{ base = "4 GiB" }', "nodes[1].memory[0].size: missing: must be given"),
    ("text", NAME, "name = 5", "name: 5: must be a text"),
    ("truth", NAME, "kmem_driver = 1", "kmem_driver: 1: must be true or false"),
    ("size text", '"128 MiB"', '"128 MB"', f"memory.block_size: '128 MB': {NUMBER}"),
    ("size truth", '"128 MiB"', "true", f"memory.block_size: True: {NUMBER}"),
    ("number", "[10, 20]", '[10, "far"]', f"distances[0][1]: 'far': {NUMBER}"),
    ("list of lists", DISTANCES, "5", "distances: 5: must be a list"),
    ("table for a list", MEMORY1.join("[]"), MEMORY1,
     "nodes[1].memory: {'base': '4 GiB', 'size': '2 GiB'}: must be a list"),
    ("number for a table", NODE1, f"{NODE1}access0 = 5\n", "nodes[1].access0: 5: must be a table"),
    ("text for a table", NAME, 'records = "x"', "records: 'x': must be a table"),
    ("policy", '"mixed"', '"maybe"', "policy.boot: 'maybe': must be one of off, strict, mixed"),
    ("kind", NODE1, f'{NODE1}kind = "ram"\n', "nodes[1].kind: 'ram': must be one of dram, hbm, cxl, nvdimm"),
    ("provider", '"hmem"', '"pmem"', "dax_regions[0].provider: 'pmem': must be one of hmem, cxl, nvdimm"),
    ("ids", IDS, "ids = true", "cpus[0].ids: True: must be a number or a range list such as '0-3'"),
    ("range", CMRS, "cmrs = [{ base = 0 }]", "tdx.cmrs[0]: {'base': 0}: must be a table of base and size"),
    ("empty range", CMRS, "cmrs = [{ base = 0, size = 0 }]", "tdx.cmrs[0]: {'base': 0, 'size': 0}: base must not be"),
    ("version", CMRS, 'module_version = "1.5"', "tdx.module_version: '1.5': must be a version such as '1.5.05'"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_one_line_says_what_is_wrong(old, new, expected):
    """The message is one line: the file, the key, the value and the rule."""
    assert GOOD.count(old) >= 1
    with pytest.raises(UserError) as caught:
        loads(GOOD.replace(old, new, 1), "bad.toml")

    message = str(caught.value)
    assert message.startswith("bad.toml: ")
    assert expected in message
    assert "\n" not in message


def test_the_text_itself_is_good():
    """What the tests above break is a topology."""
    assert loads(GOOD).name == "base"


def test_every_rule_is_broken_above(monkeypatch):
    """No rule of the table goes untested: each, by itself, refuses one of the texts as is said there."""
    broken = set()
    for rule in validate.RULES:
        monkeypatch.setattr(validate, "RULES", (rule,))
        for row in WRONG:
            try:
                loads(GOOD.replace(row[1], row[2], 1))
            except UserError as error:
                if row[3] in str(error) and error.__cause__ is None:
                    broken.add(rule.__name__)
        monkeypatch.undo()

    assert {rule.__name__ for rule in validate.RULES} == broken


@given(topologies())
def test_generated_topologies_are_valid(topology):
    """The strategies make machines that can be."""
    assert list(validate.problems(topology)) == []


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_machines_are_valid(name):
    """So are the machines of the package."""
    assert list(validate.problems(find(name))) == []


def test_every_problem_is_found():
    """`problems` goes on after the first one."""
    topology = evolve(MIXED, kernel="5.0", possible_cpus=1, distances=((10,),))

    assert [problem.key for problem in validate.problems(topology)] == ["kernel", "possible_cpus", "distances"]
