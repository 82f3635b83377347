"""Commands that run programs on the emulated machine."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from tdxfs.cli.options import DEFAULT, F, abi_option, boot_options, load_topology, make_tree
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


def sandbox_options(function: F) -> F:
    """The machine, and how much of the real one is seen beside it."""
    options: tuple[Callable[[F], F], ...] = (
        click.argument("machine", metavar="[TOPOLOGY|MOUNTPOINT]", default=DEFAULT),
        click.option("--isolated", is_flag=True, help="Show only the emulated parts of /sys, and plain devices."),
        click.option("--host-cpus", is_flag=True, help="Keep the real CPUs, spread over the emulated nodes."),
        boot_options,
        abi_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command(cls=WithCommand)
@sandbox_options
@click.pass_context
def run(
    ctx: click.Context,
    machine: str,
    isolated: bool,
    host_cpus: bool,
    policy: tuple[str, ...],
    kernel: str | None,
    abi: str,
) -> None:
    """
    Run an unmodified program on the machine: /sys, and the parts of /proc and /dev that say what it is made of, are
    the machine's, and its NUMA policy and CPU affinity calls are answered by it.

    On a machine of its own that goes with it, or on the one that is mounted at MOUNTPOINT.
    The exit status is the program's.
    """
    command = ctx.meta.get("command")
    if not command:
        raise click.UsageError("there must be -- COMMAND after the machine", ctx)
    from tdxfs.sandbox.launch import run as launch

    end(launch(_find(machine, policy, kernel, abi, host_cpus), command, isolated=isolated, host_cpus=host_cpus))


@click.command()
@sandbox_options
def shell(machine: str, isolated: bool, host_cpus: bool, policy: tuple[str, ...], kernel: str | None, abi: str) -> None:
    """Run your shell on the machine, with its name in the prompt."""
    from tdxfs.sandbox.launch import run as launch

    prompt = f"(tdxfs {Path(machine).name.removesuffix('.toml')}) "
    environment = {
        **os.environ,
        "PS1": prompt + os.environ.get("PS1", "$ "),
        "PROMPT_COMMAND": f'PS1="{prompt}${{PS1#"{prompt}"}}"',  # bash: after its start-up files have set PS1
    }
    command = [os.environ.get("SHELL") or "/bin/sh"]
    where = _find(machine, policy, kernel, abi, host_cpus)
    end(launch(where, command, isolated=isolated, host_cpus=host_cpus, environment=environment))


def _find(name: str, policy: tuple[str, ...], kernel: str | None, abi: str, host_cpus: bool) -> Tree | Path:
    # the mount point of that name if a tdxfs is mounted there, else the topology, booted
    from tdxfs.boot import boot
    from tdxfs.formats.host import with_host_cpus
    from tdxfs.server import is_mounted

    where = Path(name)
    if where.is_dir() and is_mounted(where):
        if policy or kernel or host_cpus:
            raise click.UsageError("--policy, --kernel and --host-cpus are for machines that are not mounted yet")
        return where
    topology = load_topology(name, policy, kernel)
    return make_tree(boot(with_host_cpus(topology) if host_cpus else topology), abi)


def end(status: int) -> NoReturn:
    """End as the program did: with its status, or by the signal that killed it."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
    raise SystemExit(status)
