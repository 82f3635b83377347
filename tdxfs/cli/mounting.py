"""Commands that mount and unmount."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from tdxfs.cli.options import DEFAULT, abi_option, boot_machine, boot_options, make_tree, topology_argument
from tdxfs.errors import UserError


def default_mountpoint(name: str) -> Path:
    """``mountpoints/<name>`` of the checkout that tdxfs runs from; UserError outside one."""
    place = Path(__file__).resolve().parents[2] / "mountpoints"
    if not place.is_dir():
        raise UserError("MOUNTPOINT: must be given outside a checkout of tdxfs")
    return place / Path(name).name.removesuffix(".toml")


@click.command()
@topology_argument
@click.argument("mountpoint", required=False)
@boot_options
@abi_option
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground until unmounted.")
@click.option("--log", type=click.Path(path_type=Path), help="Where a server in the background writes its errors.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the machine's changes; begin with them.",
)
@click.option("--scenario", type=click.Path(path_type=Path), help="Play the timed steps of a TOML file.")
def mount(
    topology: str,
    mountpoint: str | None,
    policy: tuple[str, ...],
    kernel: str | None,
    abi: str,
    foreground: bool,
    log: Path | None,
    journal: Path | None,
    scenario: Path | None,
) -> None:
    """
    Mount a machine. Returns when the mount answers.

    MOUNTPOINT is mountpoints/TOPOLOGY of the checkout unless given.
    """
    from tdxfs.server import is_stale, run_background, run_foreground

    tree = make_tree(boot_machine(topology, policy, kernel), abi)
    if journal is not None:
        from tdxfs.journal import attach

        attach(tree, journal)
    if scenario is not None:
        from tdxfs.scenario import load, play

        tree.starting.append(partial(play, tree, load(scenario, tree.machine)))
    where = default_mountpoint(topology) if mountpoint is None else Path(mountpoint)
    if mountpoint is None and not is_stale(where):
        where.mkdir(exist_ok=True)
    if foreground:
        run_foreground(tree, where, lambda: None)
    else:
        run_background(tree, where, log)


@click.command()
@click.argument("mountpoint", required=False)
@click.option("--lazy", is_flag=True, help="Take it out of the tree even while programs use it.")
def umount(mountpoint: str | None, lazy: bool) -> None:
    """Unmount a machine, also one whose server is dead."""
    from tdxfs.server import detach, is_mounted, unmount

    where = default_mountpoint(DEFAULT) if mountpoint is None else Path(mountpoint)
    if lazy and is_mounted(where):
        detach(where)
    else:
        unmount(where)
