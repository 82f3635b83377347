"""Commands that run programs on the emulated machine."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import NoReturn

import click

from tdxfs.cli.options import DEFAULT, abi_option, boot_machine, boot_options, make_tree
from tdxfs.tree import Tree


class WithCommand(click.Command):
    """A command that ends in ``-- COMMAND…``, which it does not look into."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta["command"] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- COMMAND..."]


@click.command(cls=WithCommand)
@click.argument("machine", metavar="[TOPOLOGY|MOUNTPOINT]", default=DEFAULT)
@click.option("--isolated", is_flag=True, help="Show only the emulated parts of /sys and /dev.")
@boot_options
@abi_option
@click.pass_context
def run(
    ctx: click.Context, machine: str, isolated: bool, policy: tuple[str, ...], kernel: str | None, abi: str
) -> None:
    """
    Run an unmodified program on the machine: /sys, and the parts of /proc and /dev that say what it is made of.

    On a machine of its own that goes with it, or on the one that is mounted at MOUNTPOINT.
    The exit status is the program's.
    """
    command = ctx.meta.get("command")
    if not command:
        raise click.UsageError("there must be -- COMMAND after the machine", ctx)
    from tdxfs.sandbox.launch import run as launch

    end(launch(find_machine(machine, policy, kernel, abi), command, isolated=isolated))


def find_machine(name: str, policy: tuple[str, ...], kernel: str | None, abi: str) -> Tree | Path:
    """The mount point called `name` if a tdxfs is mounted there, else the topology, booted."""
    from tdxfs.server import is_mounted

    where = Path(name)
    if where.is_dir() and is_mounted(where):
        if policy or kernel:
            raise click.UsageError("--policy and --kernel are for machines that are not mounted yet")
        return where
    return make_tree(boot_machine(name, policy, kernel), abi)


def end(status: int) -> NoReturn:
    """End as the program did: with its status, or by the signal that killed it."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
    raise SystemExit(status)
