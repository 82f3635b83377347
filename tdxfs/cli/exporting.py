"""``tdxfs export``: machines in other programs' terms."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tdxfs.cli.kinds import Kinds
from tdxfs.cli.options import abi_option, boot_machine, boot_options, load_topology, make_tree, topology_argument
from tdxfs.errors import UserError


@click.group(cls=Kinds, default="tree", subcommand_metavar="[tree] DIRECTORY [TOPOLOGY] | qemu [TOPOLOGY]")
def export() -> None:
    """
    Write a machine as plain files, or as the QEMU command line that boots one like it.

    Each kind has a --help of its own; tree is meant where none is named.
    """


@export.command()
@click.argument("directory")
@topology_argument
@boot_options
@abi_option
def tree(directory: str, topology: str, policy: tuple[str, ...], kernel: str | None, abi: str) -> None:
    """Write the tree of a machine as plain files into DIRECTORY, which must be new or empty."""
    from tdxfs.formats.export import export as write

    target = Path(directory)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{directory}: must be a new or an empty directory")
    write(make_tree(boot_machine(topology, policy, kernel), abi), target)


@export.command()
@topology_argument
@click.option("--kernel", help="The Linux to boot.")
def qemu(topology: str, kernel: str | None) -> None:
    """
    Print the QEMU command line that boots such a machine, without disks.

    It says nothing of TDX, policies, CPU features and what is on NVDIMMs: `tdxfs import qemu --like TOPOLOGY` has
    those. A machine that QEMU cannot make is refused, with the reason.
    """
    from tdxfs.formats.qemu.export import export_qemu

    print(shlex.join(export_qemu(load_topology(topology, (), kernel))))
