"""Arguments and options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import evolve

from tdxfs.errors import UserError
from tdxfs.model import KERNELS, Machine, Topology
from tdxfs.policy import Policies, axes, parse_axis

if TYPE_CHECKING:
    from tdxfs.sysfs.attribute import Tier
    from tdxfs.tree import Tree
    from tdxfs.values import Emulated, Mounted

DEFAULT = "mixed"
"""The built-in machine that is meant when none is named."""
F = TypeVar("F", bound=Callable[..., Any])


def topology_argument(function: F) -> F:
    """A TOPOLOGY argument, ``mixed`` unless given."""
    return click.argument("topology", default=DEFAULT)(function)


def boot_options(function: F) -> F:
    """``--policy`` and ``--kernel``: how the machine is booted."""
    policy = click.option(
        "--policy", "policy", multiple=True, metavar="AXIS=VALUE", help=f"Set a policy axis: {', '.join(axes())}."
    )
    kernel = click.option("--kernel", type=click.Choice(KERNELS), help="The Linux to emulate.")
    return policy(kernel(function))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
abi_option = click.option(
    "--abi",
    type=click.Choice(["kernel", "proposed", "emulator"]),
    default="emulator",
    show_default=True,
    help="The last tier shown: only what Linux has; what is proposed too; what only tdxfs has too.",
)


def parse_policies(policies: Policies, words: Iterable[str]) -> Policies:
    """`policies` with ``axis=value`` words applied; UserError names a wrong one."""
    for word in words:
        axis, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"--policy {word!r}: must be AXIS=VALUE")
        try:
            changed: dict[str, Any] = {axis: parse_axis(axis, value)}
        except ValueError as error:
            raise UserError(f"--policy {word}: {error}") from error
        policies = evolve(policies, **changed)
    return policies


def load_topology(name: str, policy: Iterable[str] = (), kernel: str | None = None) -> Topology:
    """The topology called `name`, or in the file of that path, with the options applied."""
    from tdxfs.formats.topology import find

    topology = find(name)
    topology = evolve(topology, policies=parse_policies(topology.policies, policy))
    return topology if kernel is None else evolve(topology, kernel=kernel)


def boot_machine(name: str, policy: Iterable[str] = (), kernel: str | None = None) -> Machine:
    """The same, booted."""
    from tdxfs.boot import boot

    return boot(load_topology(name, policy, kernel))


def open_source(source: str, policy: Iterable[str] = (), kernel: str | None = None) -> Mounted | Emulated:
    """The machine mounted at a path, by its files alone, or that of a topology, booted; UserError."""
    from tdxfs.values import Emulated, Mounted

    if (Path(source) / "sys").is_dir():
        if policy or kernel:
            raise UserError(f"{source}: --policy and --kernel are for a topology; this machine has booted")
        return Mounted(Path(source))
    if Path(source).is_dir():
        raise UserError(f"{source}: nothing is mounted here (there is no sys directory)")
    return Emulated(make_tree(boot_machine(source, policy, kernel)))


def shown_tiers(abi: str) -> frozenset[Tier]:
    """The tiers up to the one that ``--abi`` names."""
    from tdxfs.sysfs.attribute import Tier

    order = list(Tier)
    return frozenset(order[: order.index(Tier(abi)) + 1])


def make_tree(machine: Machine, abi: str = "emulator") -> Tree:
    """The whole emulated tree of a machine."""
    from tdxfs.root import Root
    from tdxfs.tree import Tree

    return Tree(Root, machine, shown_tiers(abi))
