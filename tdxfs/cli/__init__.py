"""The command line: ``tdxfs COMMAND``. Commands are imported when they are called, so that a mount starts fast.

Exit status: 0, also when conflicts are found; 1 when the input is wrong or something fails, with one
line on stderr; 2 for wrong usage. ``conflicts --exit-code`` has its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from tdxfs.errors import UserError

COMMANDS = {
    "mount": "mounting:mount",
    "umount": "mounting:umount",
    "run": "run:run",
    "shell": "run:shell",
    "replay": "living:replay",
    "watch": "living:watch",
    "show": "machine:show",
    "conflicts": "machine:conflicts",
    "explain": "machine:explain",
    "dmesg": "machine:dmesg",
    "pfn": "machine:pfn",
    "plug": "living:plug",
    "unplug": "living:unplug",
    "reboot": "living:reboot",
    "guest": "guests:guest",
    "guests": "guests:guests",
    "plan": "guests:plan",
    "compare": "compare:compare_",
    "check": "files:check",
    "topologies": "files:topologies",
    "import": "importing:import_",
    "export": "exporting:export",
    "abi": "files:abi",
}
"""Command -> module and name of its function, in the order of the help text."""


class Failure(click.ClickException):
    """One line on stderr, exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"tdxfs: {self.message}", err=True)


class Commands(click.Group):
    """The group of all commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command = getattr(import_module(f"tdxfs.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise Failure(str(error)) from error
        except OSError as error:
            if error.filename is None:
                raise  # a broken pipe, which click knows how to end
            raise Failure(f"{error.filename}: {error.strerror}") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tdxfs")
def main() -> None:
    """
    A Linux machine with memory that can and cannot back TDX guests, as a mount.

    TOPOLOGY is the name of a built-in machine (`tdxfs topologies`) or a topology file.
    """
