"""``tdxfs import`` and its kinds."""

import re

import pytest
from captures import GOLDEN, needs_captures
from click.testing import CliRunner

from tdxfs.cli import main
from tdxfs.formats.topology import find, loads
from tdxfs.model import Driver


def run(*arguments):
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


def made(*arguments):
    """The topology that a successful import prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return loads(result.stdout)


@needs_captures
@pytest.mark.parametrize("kind", [(), ("sysfs",)], ids=["unnamed", "named"])
def test_sysfs_need_not_be_named(kind):
    """A source with a sysfs is imported whether its kind is named or not."""
    assert len(made(*kind, GOLDEN / "m1" / "base", "--name", "one").nodes) == 2


@needs_captures
def test_acpi_options():
    """Options say what tables cannot: kernel, command line, threads, what is on an NVDIMM, and what it is like."""
    stage = GOLDEN / "m4-k73" / "base"
    source = ("acpi", stage / "acpi", "--memory-map", stage / "dmesg.txt")
    topology = made(
        *source, "--kernel", "6.1", "--threads", 2, "--nvdimm", "kmem", "--map", "mem", "--block-size", "256 MiB",
        "--cmdline", "memhp_default_state=online", "--like", "huge", "--convertible", "all", "--no-hypervisor",
    )  # fmt: skip

    assert topology.kernel == "6.1"
    assert topology.cmdline == "memhp_default_state=online"
    assert topology.memory.auto_online == "online"
    assert topology.memory.block_size == 256 << 20
    assert [cpu.thread for cpu in topology.cpus] == [0, 1, 0, 1]
    assert topology.dax_regions[0].devices[0].driver is Driver.KMEM
    assert topology.tdx.max_tdmrs == find("huge").tdx.max_tdmrs
    assert topology.tdx.cmrs[-1] == topology.dax_regions[0].range
    assert (topology.microcode, made(*source).microcode) == (find("huge").microcode, 0)


QEMU = ("-M", "q35", "-m", "1G", "-smp", "2", "-kernel", "vmlinuz-6.12.1", "-append", "quiet")


@pytest.mark.parametrize("words", [("--name", "vm", "--", "qemu-system-x86_64", *QEMU), ("--name", "vm", "--", *QEMU)])
def test_qemu_commands(words):
    """A command line stands after --, with or without the program's name."""
    topology = made("qemu", *words)

    assert (topology.name, topology.kernel, topology.cmdline, len(topology.cpus)) == ("vm", "6.12", "quiet", 2)


def test_qemu_files(tmp_path):
    """A file holds a command or, with .xml, a libvirt domain; options come before or after."""
    (tmp_path / "one.sh").write_text(f"qemu-system-x86_64 {' '.join(QEMU)}\n")
    (tmp_path / "two.xml").write_text("<domain><memory>1048576</memory><vcpu>2</vcpu></domain>")

    assert made("qemu", tmp_path / "one.sh", "--kernel", "6.1").kernel == "6.1"
    assert made("qemu", "--cmdline", "ro", tmp_path / "two.xml").cmdline == "ro"
    assert made("qemu", tmp_path / "two.xml").name == "two"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("acpi", "/nonexistent"), "No such file"),
        (("acpi", "."), "none of the tables"),
        (("acpi", ".", "--block-size", "big"), "--block-size 'big'"),
        (("/nonexistent",), "no such file"),
        (("qemu", "/nonexistent"), "No such file"),
        (("qemu", "--", "-m", "1G", "-smp", "0x"), "no whole number"),
    ],
)
def test_wrong_sources(arguments, words):
    """What cannot be imported is refused in one line."""
    result = run(*arguments)

    assert result.exit_code == 1
    assert re.fullmatch(r"tdxfs: .*\n", result.stderr)
    assert words in result.stderr


def test_help_names_the_kinds():
    """The help text of import lists every kind."""
    result = run("--help")

    assert result.exit_code == 0
    for kind in ("acpi", "qemu", "sysfs"):
        assert kind in result.stdout
