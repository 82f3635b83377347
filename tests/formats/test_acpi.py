"""ACPI tables as topologies: those of captured machines, and made ones where the captures have no example."""

import struct

import pytest
from captures import GOLDEN, needs_captures
from shown import AS_BOOTED, difference, recorded, shown, unsaid_of

from tdxfs.errors import UserError
from tdxfs.formats.acpi import READERS, import_acpi, parse
from tdxfs.formats.acpi.tables import read_tables
from tdxfs.formats.firmware.facts import (
    CacheInfo,
    MapEntry,
    MapKind,
    MemoryAffinity,
    Metric,
    PersistentRange,
    Processor,
)
from tdxfs.formats.firmware.memory_map import parse_memory_map
from tdxfs.model import GIB, MIB, Topology
from tdxfs.ranges import Range


@needs_captures
@pytest.mark.parametrize("stage", AS_BOOTED)
def test_the_tables_give_the_machine_that_sysfs_shows(stage):
    """A machine made of its ACPI tables and memory map shows what the one made of its sysfs shows."""
    topology, base = recorded(stage)
    log = (GOLDEN / stage / "dmesg.txt").read_text()

    made = import_acpi([GOLDEN / stage / "acpi"], base, parse_memory_map(log), unsaid_of(topology))

    assert difference(shown(topology), shown(made)) == {}


def table(signature, body, revision=1, oem=b"MADE  "):
    """A table with a right checksum."""
    data = bytearray(
        struct.pack("<4sIBB6s8sIII", signature, 36 + len(body), revision, 0, oem, b"TABLE   ", 1, 0, 1) + body
    )
    data[9] = -sum(data) % 256
    return bytes(data)


def x2apic(apic_id, domain, flags=1):
    return struct.pack("<BBHIIIII", 2, 24, 0, domain, apic_id, flags, 0, 0)


def memory(domain, start, size, flags=1):
    return struct.pack("<BBIHQQIIQ", 1, 40, domain, 0, start, size, 0, flags, 0)


def initiator(domain, flags=1):
    return struct.pack("<BBBBI16sII", 5, 32, 0, 0, domain, b"", flags, 0)


def srat(*entries, revision=3):
    return table(b"SRAT", bytes(12) + b"".join(entries), revision)


def madt(*entries, revision=5):
    return table(b"APIC", bytes(8) + b"".join(entries), revision)


def lapic(apic_id, flags=1):
    return struct.pack("<BBBBI", 0, 8, 0, apic_id, flags)


def lx2apic(apic_id, flags=1):
    return struct.pack("<BBHIII", 9, 16, 0, apic_id, flags, 0)


@pytest.fixture
def written(tmp_path):
    """A function that writes tables and returns their directory."""

    def write(**tables):
        for name, data in tables.items():
            (tmp_path / f"{name}.dat").write_bytes(data)
        return tmp_path

    return write


def read(directory):
    return parse(read_tables([directory], READERS))


def test_srat_affinities(written):
    """Hotplug and non-volatile ranges, x2APIC processors and generic initiators are read; disabled entries are not."""
    firmware = read(
        written(
            SRAT=srat(
                x2apic(300, 7),
                x2apic(301, 8, flags=0),
                initiator(9),
                initiator(10, flags=0),
                memory(7, 0, GIB),
                memory(7, GIB, GIB, flags=0),
                memory(8, 4 * GIB, GIB, flags=3),
                memory(9, 8 * GIB, GIB, flags=5),
                memory(9, 12 * GIB, 0),
            )
        )
    )

    assert firmware.processor_domains == {300: 7}
    assert firmware.initiators == (9,)
    assert firmware.memory == (
        MemoryAffinity(7, Range(0, GIB)),
        MemoryAffinity(8, Range(4 * GIB, 5 * GIB), hotplug=True),
        MemoryAffinity(9, Range(8 * GIB, 9 * GIB), nonvolatile=True),
    )


def test_old_srat_has_domains_of_one_byte(written):
    """In revision 1 the upper bytes of a domain are reserved."""
    cpu = struct.pack("<BBBBIB3sI", 0, 16, 2, 5, 1, 0, b"\xaa\xbb\xcc", 0)
    old = read(written(SRAT=srat(cpu, memory(0x1102, 0, GIB), revision=1)))
    new = read(written(SRAT=srat(cpu, memory(0x1102, 0, GIB), revision=3)))

    assert (old.processor_domains, old.memory[0].domain) == ({5: 2}, 2)
    assert (new.processor_domains, new.memory[0].domain) == ({5: 0xCCBBAA02}, 0x1102)


@pytest.mark.parametrize(("revision", "expected"), [(4, (0, 1, 2)), (5, (0, 1))])
def test_processors_that_may_come_later(written, revision, expected):
    """From revision 5 on a disabled processor is possible only if it says that it can go online."""
    entries = lapic(0), lapic(1, flags=2), lapic(2, flags=0), lapic(255)
    firmware = read(written(APIC=madt(*entries, revision=revision)))

    assert tuple(processor.apic_id for processor in firmware.processors) == expected
    assert [processor.enabled for processor in firmware.processors][:2] == [True, False]


def test_processors_are_numbered_in_table_order(written):
    """CPU numbers follow the APIC table, nodes the order in which domains are met."""
    directory = written(
        APIC=madt(lx2apic(0x100), lx2apic(0), lx2apic(0x101), lx2apic(1)),
        SRAT=srat(
            x2apic(0, 40),
            x2apic(1, 40),
            x2apic(0x100, 30),
            x2apic(0x101, 30),
            memory(30, 0, GIB),
            memory(40, 4 * GIB, GIB),
        ),
    )
    topology = import_acpi([directory], Topology())

    assert [(cpu.id, cpu.node, cpu.package, cpu.core) for cpu in topology.cpus] == [
        (0, 1, 1, 0),
        (1, 0, 0, 0),
        (2, 1, 1, 1),
        (3, 0, 0, 1),
    ]
    assert [node.memory[-1].range.end for node in topology.nodes] == [5 * GIB, GIB]


def locality(kind, unit, initiators, targets, values, flags=0):
    numbers = struct.pack(f"<{len(initiators) + len(targets)}I", *initiators, *targets)
    entries = struct.pack(f"<{len(values)}H", *values)
    head = struct.pack("<BBBBIIIQ", flags, kind, 0, 0, len(initiators), len(targets), 0, unit)
    return struct.pack("<HHI", 1, 0, 8 + len(head) + len(numbers) + len(entries)) + head + numbers + entries


def test_hmat_units(written):
    """Revision 1 counts tenths of nanoseconds, revision 2 picoseconds; 0xffff and caches' matrices say nothing."""
    structures = (
        locality(1, 100, [0], [0, 1], [15, 0xFFFF])
        + locality(4, 1000, [0], [0, 1], [200, 50])
        + locality(2, 1, [0], [0, 1], [99, 99], flags=1)
    )
    old = read(written(HMAT=table(b"HMAT", bytes(4) + structures, 1))).hmat
    new = read(written(HMAT=table(b"HMAT", bytes(4) + structures, 2))).hmat

    assert [locality.metrics for locality in new.localities] == [(Metric.READ_LATENCY,), (Metric.READ_BANDWIDTH,)]
    assert [dict(locality.values) for locality in old.localities] == [
        {(0, 0): 150, (0, 1): 0},
        {(0, 0): 20000, (0, 1): 5000},
    ]
    assert [dict(locality.values) for locality in new.localities] == [
        {(0, 0): 2, (0, 1): 0},
        {(0, 0): 200000, (0, 1): 50000},
    ]


def test_hmat_caches_and_attachment(written):
    """Side caches and the initiator that memory is attached to are read."""
    proximity = struct.pack("<HHIHHIIIQQ", 0, 0, 40, 1, 0, 3, 5, 0, 0, 0)
    cache = struct.pack("<HHIIIQIHH", 2, 0, 32, 5, 0, GIB, 64 << 16 | 2 << 12 | 1 << 8 | 2 << 4 | 2, 1, 0)
    hmat = read(written(HMAT=table(b"HMAT", bytes(4) + proximity + cache, 2))).hmat

    assert hmat.attached == {5: 3}
    assert hmat.caches == (CacheInfo(5, 2, GIB, 64, associativity=1, policy=2, address_mode=1),)


def test_nfit_and_cedt(written):
    """Persistent ranges with or without a domain, and the CXL windows; volatile ranges are no regions."""
    persistent = bytes.fromhex("79d3f066f3b47440ac430d3318b78cdb")
    volatile = bytes.fromhex("964f0373b6f0464f8f70c3e2b9a8a2ad")

    def span(start, kind, flags):
        return struct.pack("<HHHHII16sQQQ", 0, 56, 1, flags, 0, 4, kind, start, GIB, 0)

    window = struct.pack("<BBHIQQBBHIHHI", 1, 0, 40, 0, 16 * GIB, 4 * GIB, 0, 0, 0, 0, 0, 0, 0)
    bridge = struct.pack("<BBH28s", 0, 0, 32, b"")
    firmware = read(
        written(
            NFIT=table(
                b"NFIT", bytes(4) + span(GIB, persistent, 2) + span(2 * GIB, persistent, 0) + span(4 * GIB, volatile, 2)
            ),
            CEDT=table(b"CEDT", bridge + window),
        )
    )

    assert firmware.persistent == (PersistentRange(Range(GIB, 2 * GIB), 4), PersistentRange(Range(2 * GIB, 3 * GIB)))
    assert firmware.windows == (Range(16 * GIB, 20 * GIB),)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"short", "is no ACPI table"),
        (srat(memory(0, 0, GIB))[:-1], "the file has"),
        (srat(memory(0, 0, GIB))[:-1] + b"\1", "checksum"),
        (srat(memory(0, 0, GIB)[:20]), "a structure at 0x30 has length 40"),
        (table(b"SLIT", struct.pack("<Q", 3) + bytes(8)), "too short for 3"),
        (table(b"HMAT", bytes(4), 9), "revision 9"),
        (table(b"NFIT", bytes(4) + b"\0"), "cut off"),
    ],
)
def test_broken_tables(written, data, words):
    """A table that is not whole is refused in one line that names the file."""
    with pytest.raises(UserError, match=words) as refused:
        read(written(SRAT=data) if data[:4] != b"HMAT" else written(HMAT=data))

    assert "SRAT.dat" in str(refused.value) or "HMAT.dat" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_tables(tmp_path):
    """A directory without tables, and tables without processors, are refused."""
    with pytest.raises(UserError, match="none of the tables"):
        import_acpi([tmp_path], Topology())
    (tmp_path / "SRAT").write_bytes(srat(memory(0, 0, GIB)))
    with pytest.raises(UserError, match="no processor"):
        import_acpi([tmp_path], Topology())


def test_without_a_memory_map(written):
    """RAM is then what SRAT calls neither hotpluggable nor non-volatile."""
    directory = written(
        APIC=madt(lapic(0)), SRAT=srat(memory(0, 0, GIB), memory(0, 4 * GIB, GIB, 3), memory(1, 8 * GIB, GIB, 5))
    )
    topology = import_acpi([directory], Topology())
    with_map = import_acpi([directory], Topology(), (MapEntry(Range(MIB, 5 * GIB), MapKind.RAM),))

    assert [[part.range for part in node.memory] for node in topology.nodes] == [
        [Range(0x1000, 0xA0000), Range(MIB, GIB)],
        [],
    ]
    # a map with RAM that SRAT does not know: Linux drops SRAT
    assert [[part.range for part in node.memory] for node in with_map.nodes] == [[Range(MIB, 5 * GIB)]]


def test_processor_of_no_domain(written):
    """A processor that SRAT leaves out goes to the first node."""
    topology = import_acpi([written(APIC=madt(lapic(0)), SRAT=srat(memory(3, 0, GIB)))], Topology())

    assert [cpu.node for cpu in topology.cpus] == [0]
    assert read(written(APIC=madt(lapic(4)))).processors == (Processor(4),)
