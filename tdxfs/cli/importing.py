"""``tdxfs import``: topologies out of real machines' descriptions of themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import evolve

from tdxfs.cli.kinds import Kinds
from tdxfs.errors import UserError
from tdxfs.model import KERNELS

if TYPE_CHECKING:
    from tdxfs.model import Topology

F = TypeVar("F", bound=Callable[..., Any])
SYSFS = "sysfs"
"""The kind of source that need not be named."""


@click.group(
    "import", cls=Kinds, default=SYSFS, subcommand_metavar="[sysfs] SOURCE | acpi TABLES... | qemu -- COMMAND..."
)
def import_() -> None:
    """
    Make a topology file of a machine that describes itself.

    Each kind has a --help of its own; sysfs is meant where none is named.
    """


def output_options(function: F) -> F:
    """``-o``, ``--name`` and ``--convertible``: what is made of what was found."""
    output = click.option("-o", "--output", default="-", help="The topology file to write; - is stdout.  [default: -]")
    name = click.option("--name", default="", help="Name of the machine; that of the source unless given.")
    convertible = click.option(
        "--convertible",
        default="dram",
        show_default=True,
        metavar="all|dram|RANGES|FILE",
        help="Which memory is convertible: only the TDX module knows.",
    )
    return output(convertible(name(function)))


def unsaid_options(function: F) -> F:
    """What neither tables nor a command line say, for kinds that read firmware."""
    for option in reversed(
        (
            click.option("--like", metavar="TOPOLOGY", help="Has the caches, policies, TDX module, ... of this one."),
            click.option("--kernel", type=click.Choice(KERNELS), help="The Linux that reads it."),
            click.option("--cmdline", help="The kernel command line; memmap=, mem= and memhp_default_state= count."),
            click.option(
                "--block-size", metavar="SIZE", help="Of memory blocks; what Linux would choose unless given."
            ),
            click.option(
                "--nvdimm",
                type=click.Choice(["raw", "devdax", "kmem"]),
                default="raw",
                show_default=True,
                help="What is on the NVDIMMs: a raw namespace; one in devdax mode; that, given to kmem.",
            ),
            click.option(
                "--map",
                "map_mode",
                type=click.Choice(["mem", "dev"]),
                default="dev",
                show_default=True,
                help="Where such a namespace keeps its page structs.",
            ),
        )
    ):
        function = option(function)
    return function


@import_.command(SYSFS)
@click.argument("source")
@output_options
def sysfs(source: str, output: str, convertible: str, name: str) -> None:
    """Of a live /sys, or a directory or tarball holding one."""
    from tdxfs.formats.sysfs import import_sysfs

    name = name or Path(source).resolve().name.split(".")[0] or "machine"
    _write(import_sysfs(Path(source), convertible, name), output)


@import_.command()
@click.argument("tables", nargs=-1, required=True, metavar="DIR|TABLES...")
@click.option(
    "--memory-map",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A kernel log with the e820 or EFI memory map, or /proc/iomem; else memory is what SRAT says.",
)
@click.option("--threads", default=1, show_default=True, help="Hardware threads per core: CPUID knows it.")
@click.option("--cores", default=0, help="Cores per package; unless given, no package spans two proximity domains.")
@click.option(
    "--hypervisor/--no-hypervisor",
    default=None,
    help="Whether CPUID says that it is a virtual machine; unless given, the tables' OEM tells.",
)
@unsaid_options
@output_options
def acpi(
    tables: tuple[str, ...],
    memory_map: Path | None,
    threads: int,
    cores: int,
    hypervisor: bool | None,
    output: str,
    convertible: str,
    name: str,
    **options: Any,
) -> None:
    """
    Of raw ACPI tables, as Linux reads them: SRAT, SLIT, HMAT, NFIT, CEDT and APIC.

    A directory such as /sys/firmware/acpi/tables, or files. Memory modules and CXL devices are not in tables.
    """
    from tdxfs.formats.acpi import import_acpi
    from tdxfs.formats.firmware.memory_map import parse_memory_map
    from tdxfs.formats.sysfs import with_platform

    text = "" if memory_map is None else memory_map.read_text(encoding="utf-8", errors="replace")
    entries = parse_memory_map(text, str(memory_map)) if memory_map else ()
    name = name or Path(tables[0]).resolve().parent.name or "machine"
    unsaid = evolve(_unsaid(options), threads=threads, cores=cores, hypervisor=hypervisor)
    base = _base(options, name, f"imported from the ACPI tables of {name}")
    topology = import_acpi([Path(table) for table in tables], base, entries, unsaid)
    _write(with_platform(topology, convertible), output)


@import_.command()
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- qemu-system-x86_64 ...|FILE")
@unsaid_options
@output_options
def qemu(command: tuple[str, ...], output: str, convertible: str, name: str, **options: Any) -> None:
    """
    Of a QEMU command line: the machine that it would boot.

    FILE holds the command, or is a libvirt domain (.xml). CXL devices hold no memory until a region is made of them.
    """
    import shlex

    from tdxfs.formats.qemu import import_qemu
    from tdxfs.formats.qemu.libvirt import command_of
    from tdxfs.formats.sysfs import with_platform
    from tdxfs.formats.topology import find

    words = list(command)
    if len(words) == 1:
        text = Path(words[0]).read_text(encoding="utf-8")
        words = command_of(text, words[0]) if words[0].endswith(".xml") else shlex.split(text)
        name = name or Path(command[0]).stem
    like = find(options["like"]) if options["like"] else None
    topology = import_qemu(words, like, _unsaid(options), kernel=options["kernel"], cmdline=options["cmdline"])
    name = name or "qemu"
    topology = evolve(topology, name=name, description=f"imported from the QEMU command line of {name}")
    _write(with_platform(topology, convertible), output)


def _unsaid(options: dict[str, Any]) -> Any:
    from tdxfs.formats.firmware.pfn_device import MapMode
    from tdxfs.formats.firmware.unsaid import Unsaid
    from tdxfs.formats.units import parse_size
    from tdxfs.model import Driver

    size = options["block_size"]
    try:
        block_size = parse_size(size if size is None or not size.isdecimal() else int(size)) if size else 0
    except ValueError as error:
        raise UserError(f"--block-size {error}") from error
    return Unsaid(
        block_size=block_size,
        devdax=options["nvdimm"] != "raw",
        map=MapMode(options["map_mode"]),
        driver=Driver.KMEM if options["nvdimm"] == "kmem" else Driver.DEVICE_DAX,
    )


def _base(options: dict[str, Any], name: str, description: str) -> Topology:
    from tdxfs.formats.firmware.unsaid import default_base
    from tdxfs.formats.topology import find

    like = find(options["like"]) if options["like"] else None
    return evolve(default_base(like, options["kernel"], options["cmdline"]), name=name, description=description)


def _write(topology: Topology, output: str) -> None:
    from tdxfs.formats.topology import dumps

    text = dumps(topology)
    if output == "-":
        print(text, end="")
    else:
        Path(output).write_text(text)
