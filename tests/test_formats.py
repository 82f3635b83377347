"""Topology files: what is written reads back as the same machine."""

import itertools
import tomllib

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from strategies import topologies

from tdxfs.errors import UserError
from tdxfs.formats.topology import builtin_names, dumps, find, load, loads
from tdxfs.formats.units import UNITS, format_address, format_size, parse_size
from tdxfs.model import GIB, MIB, Memory, NodeCounters, Topology
from tdxfs.ranges import Range

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
lines = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
numbers = st.dictionaries(st.sampled_from(["MemTotal", "MemFree", "HugePages_Free"]), st.integers(0, 1 << 40))


class TestRoundTrip:
    @given(topologies())
    def test_machines(self, topology):
        """A topology that is written and read is the same one."""
        assert topology == loads(dumps(topology))

    @given(topologies(), texts, lines, lines, st.data())
    def test_texts_and_records(self, topology, text, line, record, data):
        """So are texts, counters and recorded files, whatever characters they hold."""
        counters = {node.id: data.draw(st.builds(NodeCounters, numbers, numbers, numbers)) for node in topology.nodes}
        topology = evolve(
            topology,
            name=line,
            description=text,
            cmdline=line,
            model_name=record,
            counters=counters,
            records={"meminfo": record + "\n" + line, "cpuinfo": text},
        )

        assert topology == loads(dumps(topology))

    @pytest.mark.parametrize("name", builtin_names())
    def test_builtin_machines(self, name):
        """And the machines of the package, groups expanded."""
        if name != "huge":
            assert find(name) == loads(dumps(find(name)))

    def test_what_is_default_is_not_written(self):
        """An empty machine is an empty file."""
        assert dumps(Topology()) == ""
        assert loads("") == Topology()

    @given(topologies())
    def test_valid_toml(self, topology):
        """What is written is TOML whatever reads it."""
        assert tomllib.loads(dumps(topology))


class TestGroups:
    def test_cpus(self):
        """Threads of a group follow its cores, as Linux enumerates them."""
        topology = loads('[[nodes]]\nid = 0\n[[cpus]]\nids = "0-3"\nthreads = 2\n')

        assert [(c.id, c.core, c.thread) for c in topology.cpus] == [(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)]

    def test_strides(self):
        """A node per id, a stride apart; target nodes are dealt out in turn."""
        topology = loads(
            '[[nodes]]\nid = "0-1"\nmemory = [{ base = 0, size = "1 GiB", stride = "2 GiB" }]\n'
            '[[dax_regions]]\nid = "0-2"\nprovider = "hmem"\nbase = "8 GiB"\nsize = "1 GiB"\nstride = "1 GiB"\n'
            'target_node = "4-5"\n'
        )

        assert [node.memory for node in topology.nodes] == [
            (Memory(Range(0, GIB)),),
            (Memory(Range(2 * GIB, 3 * GIB)),),
        ]
        assert [(r.range.start // GIB, r.target_node) for r in topology.dax_regions] == [(8, 4), (9, 5), (10, 4)]

    def test_memory_is_sorted(self):
        """A node's memory may be given in any order."""
        text = '[[nodes]]\nid = 0\nmemory = [{ base = "4 GiB", size = "1 GiB" }, { base = 0, size = "1 GiB" }]\n'

        assert [memory.range.start for memory in loads(text).nodes[0].memory] == [0, 4 * GIB]


class TestUnits:
    @given(st.integers(0, 1 << 52))
    def test_round_trip(self, number):
        """Sizes and addresses read back as they were."""
        assert number == parse_size(format_size(number)) == parse_size(format_address(number))

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (4096, 4096),
            ("4096", 4096),
            ("64 GiB", 64 * GIB),
            ("64GiB", 64 * GIB),
            (" 2 MiB ", 2 * MIB),
            ("0x1_0000_0000", 4 * GIB),
            ("0x10 KiB", 16 << 10),
            ("1_000", 1000),
        ],
    )
    def test_how_people_write(self, text, expected):
        """A number, or a text with or without a unit."""
        assert expected == parse_size(text)

    @pytest.mark.parametrize("text", ["", "GiB", "1.5 GiB", "64 GB", "-1", "0x", "__", "1 2", True, None, 1.0, [1]])
    def test_anything_else_is_refused(self, text):
        """Fractions, other units and other things are no sizes."""
        with pytest.raises(ValueError, match="must be a whole number or a text such as"):
            parse_size(text)

    def test_units_are_binary(self):
        """Each unit is 1024 of the one before."""
        factors = list(UNITS.values())

        assert [b // a for a, b in itertools.pairwise(factors)] == [1024] * 5


class TestFiles:
    def test_missing(self, tmp_path):
        """A name that is neither a machine nor a file says which machines there are."""
        with pytest.raises(UserError, match=r"no-such: no such file, and no built-in machine \(mixed, clean,"):
            find("no-such")
        with pytest.raises(UserError, match="No such file or directory"):
            load(tmp_path / "absent.toml")

    def test_not_text(self, tmp_path):
        """A file that is no text says where it stops being one."""
        path = tmp_path / "binary.toml"
        path.write_bytes(b'name = "\xff"')

        with pytest.raises(UserError, match=r"binary\.toml: byte 8: must be UTF-8"):
            load(path)

    def test_from_a_path(self, tmp_path):
        """A file is found by its path."""
        path = tmp_path / "tiny.toml"
        path.write_text('name = "tiny"\n')

        assert find(str(path)) == load(path) == Topology(name="tiny")
