"""The built-in machines: what makes each of them that machine."""

from collections import Counter
from importlib import resources

import pytest
from attrs import evolve

from tdxfs import nodes
from tdxfs.boot import boot
from tdxfs.capability import judge_block, judge_dax, judge_node, judge_target_node, page
from tdxfs.conflicts import conflicts
from tdxfs.formats.topology import builtin_names, find
from tdxfs.model import GIB, PAGE_SIZE, Driver, MemoryKind, Provider, Why
from tdxfs.policy import Boot, Cover, Firmware, Hotplug


def machine(name, **axes):
    topology = find(name)
    return boot(topology, evolve(topology.policies, **axes))


def words(booted):
    return {nid: judge_node(booted, nid).word for nid in sorted(nodes.has_memory(booted))}


def kinds(booted):
    return Counter(finding.kind for finding in conflicts(booted))


def test_there_are_ten():
    """The default first, then the others by name."""
    assert builtin_names() == (
        "mixed", "clean", "cxl-capable", "firmware-off", "hotplug", "huge", "no-tdx", "optane", "partial",
        "tdmr-exhausted",
    )  # fmt: skip


@pytest.mark.parametrize("name", builtin_names())
def test_each_says_which_situation_it_is(name):
    """A file begins with a comment of a sentence or more; its name is that of the machine, its description is short."""
    text = resources.files("tdxfs.machines").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    comment = " ".join(line.removeprefix("#").strip() for line in text.split("\nname = ")[0].splitlines())
    topology = find(name)

    assert text.startswith("# ")
    assert comment.endswith(".")
    assert topology.name == name
    assert 0 < len(topology.description) <= 70


class TestMixed:
    def test_nodes(self):
        """Two sockets of convertible DRAM, and a CXL node that is not."""
        booted = machine("mixed")

        assert words(booted) == {0: "capable", 1: "capable", 2: "incapable"}
        assert booted.nodes[2].kind is MemoryKind.CXL

    def test_dax(self):
        """HBM that can be used although it is no RAM, and an NVDIMM that cannot; their nodes do not exist yet."""
        booted = machine("mixed")
        hbm, nvdimm = (0, 0), (1, 0)

        assert booted.regions[0].provider is Provider.HMEM and booted.regions[1].provider is Provider.NVDIMM
        assert judge_dax(booted, hbm) and judge_target_node(booted, hbm)
        assert not judge_dax(booted, nvdimm) and not judge_target_node(booted, nvdimm)
        assert not {3, 4} & nodes.online_nodes(booted)

    def test_hbm_needs_cover(self):
        """With mainline's TDMRs the HBM is convertible, and not covered."""
        hbm = find("mixed").dax_regions[0].range.start // PAGE_SIZE

        assert page(machine("mixed"), hbm).why is Why.CAPABLE
        assert page(machine("mixed", cover=Cover.RAM), hbm).why is Why.NOT_COVERED

    def test_bar(self):
        """A GPU whose BARs are no memory for guests."""
        assert kinds(machine("mixed"))["bar-in-guest-range"] == 2

    def test_strict(self):
        """A strict kernel disables TDX because of the CXL node; firmware that hides it prevents that."""
        assert machine("mixed", boot=Boot.STRICT).tdx.culprits == machine("mixed").node_ram[2]
        assert machine("mixed", boot=Boot.STRICT, firmware=Firmware.DISABLE_INCAPABLE).tdx.enabled


def test_clean():
    """All memory capable, even under boot=strict, and no conflict."""
    booted = machine("clean")

    assert booted.policies.boot is Boot.STRICT and booted.tdx.enabled
    assert words(booted) == {0: "capable", 1: "capable"}
    assert conflicts(booted) == ()


def test_cxl_capable():
    """CXL memory that is convertible is like any other."""
    booted = machine("cxl-capable")

    assert booted.nodes[1].kind is MemoryKind.CXL
    assert words(booted) == {0: "capable", 1: "capable"}
    assert conflicts(booted) == ()


def test_firmware_off():
    """The CXL node's memory is hidden, what is left is capable; without the firmware's help TDX is disabled."""
    booted = machine("firmware-off")

    assert words(booted) == {0: "capable"}
    assert list(booted.hidden.runs()) == [(66 * GIB, 98 * GIB, 1)]
    assert kinds(booted) == {"firmware-hidden": 1}
    assert not machine("firmware-off", firmware=Firmware.PERMISSIVE).tdx.enabled


def test_hotplug():
    """A memory module that came after boot: convertible, not covered, and therefore offline."""
    booted = machine("hotplug")
    module = 50 * GIB

    assert page(booted, module // PAGE_SIZE).why is Why.NOT_COVERED
    assert not booted.blocks.get(module // booted.topology.memory.block_size).online
    assert kinds(booted) == {"not-covered": 1, "hotplug-rejected": 1}
    assert conflicts(machine("hotplug", cover=Cover.CONVERTIBLE)) == ()
    assert words(machine("hotplug", hotplug=Hotplug.ALLOW)) == {0: "capable", 1: "mixed"}


def test_no_tdx():
    """An ordinary machine, about which TDX has nothing to say."""
    booted = machine("no-tdx")

    assert booted.topology.tdx is None and not booted.tdx.enabled
    assert conflicts(booted) == ()


def test_optane():
    """Persistent memory as System RAM: nodes of kmem memory, movable, without a capable page."""
    booted = machine("optane")

    assert words(booted) == {0: "capable", 1: "capable", 2: "incapable", 3: "incapable"}
    assert {device.driver for device in booted.dax.values()} == {Driver.KMEM}
    assert nodes.has_normal_memory(booted) == {0, 1}
    assert machine("optane", hotplug=Hotplug.REJECT).tdx.enabled
    assert nodes.has_memory(machine("optane", hotplug=Hotplug.REJECT)) == {0, 1}


def test_partial():
    """Node 1 is half convertible: the lower blocks are capable, the upper ones are not."""
    booted = machine("partial")
    verdict = judge_node(booted, 1)

    assert words(booted) == {0: "capable", 1: "mixed"}
    assert verdict.convertible * 2 == verdict.total
    assert judge_block(booted, 399) and not judge_block(booted, 400)


def test_tdmr_exhausted():
    """More pieces than TDMRs disable TDX, although all memory is convertible; a larger module would take them."""
    booted = machine("tdmr-exhausted")
    topology = booted.topology

    assert booted.tdx.exhausted == "tdmrs"
    assert kinds(booted) == {"tdx-disabled": 1, "tdmr-exhausted": 1}
    assert set(words(boot(evolve(topology, tdx=evolve(topology.tdx, max_tdmrs=128)))).values()) == {"capable"}


def test_huge():
    """1,024 nodes, 10,000 dax devices, 1,000,000 memory blocks, all of them capable at once."""
    booted = machine("huge")

    assert len(nodes.has_memory(booted)) == 1024
    assert len(booted.dax) == 10_000
    assert len(booted.blocks) == 1_000_000
    assert booted.tdx.enabled
    assert set(words(booted).values()) == {"capable"}
