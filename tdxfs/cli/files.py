"""Commands about files: check, topologies, import, export, and the ABI text."""

from __future__ import annotations

import click

from tdxfs.cli.options import abi_option, shown_tiers
from tdxfs.render import table


@click.command()
@click.argument("file")
def check(file: str) -> None:
    """Check a topology file: say what is wrong with it, or that it is fine."""
    from tdxfs.formats.topology import find

    topology = find(file)
    print(
        f"{file}: ok: {len(topology.cpus)} CPUs, {len(topology.nodes)} nodes, {len(topology.dax_regions)} dax regions"
    )


@click.command()
def topologies() -> None:
    """List the built-in machines."""
    from tdxfs.formats.topology import builtin_names, find

    table(("NAME", "DESCRIPTION"), [(name, find(name).description) for name in builtin_names()])


@click.command()
@abi_option
def abi(abi: str) -> None:
    """Print what every attribute says, tier by tier."""
    from tdxfs.abi import text
    from tdxfs.sysfs.attribute import Tier

    shown = shown_tiers(abi)
    print(text(tier for tier in Tier if tier in shown), end="")
