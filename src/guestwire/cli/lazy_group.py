"""The group of all commands: a command's module is loaded when the command is wanted, as click's documentation shows it for lazy groups."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.extras import extra_missing
from guestwire.cli.view_names import VIEWS

if TYPE_CHECKING:
    from guestwire.contract import Endpoint

COMMANDS: Final[Mapping[str, str]] = {
    "ls": "guests.ls",
    "memory": "guests.memory",
    "exec": "processes.execute",
    "status": "processes.status",
    "shell": "shell.shell",
    "cat": "processes.cat",
    "cp": "copying.copy",
    "edit": "copying.edit",
    "freeze": "power.freeze",
    "thaw": "power.thaw",
    "trim": "power.trim",
    "passwd": "power.passwd",
    "shutdown": "power.shutdown",
    "suspend": "power.suspend",
    "wait": "power.wait",
    "doctor": "doctor.doctor",
    "mcp": "mcp_command.mcp",
    "raw": "raw_calls.raw",
    "api": "raw_calls.api",
    "completion": "completion.completion",
    "serve": "serve_command.serve",
    "access": "access_command.access",
    "audit": "audit_command.audit",
}
"""The commands written by hand, as help lists them, with module and function. The views of endpoints come on top, from their records."""


class LazyGroup(click.Group):
    """All commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the same in every context
        """The names in the order of the help: the views stand behind `ls`."""
        first, *others = COMMANDS
        return [first, *VIEWS, *others]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, loaded; None: there is none."""
        if cmd_name not in self.commands:
            if cmd_name in VIEWS:
                from guestwire.cli.views import ViewCommand  # noqa: PLC0415  # as all others, when it is wanted

                self.add_command(ViewCommand(cmd_name, VIEWS[cmd_name], lambda: _viewed(cmd_name)))
            elif cmd_name in COMMANDS:
                module, function = COMMANDS[cmd_name].split(".")
                self.add_command(getattr(import_module(f"guestwire.cli.{module}"), function))
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. Only here is known which command it is that lacks a package.

        Raises:
            ExtraMissing: the command needs an extra that is not installed.
        """
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if missing := extra_missing(str(ctx.invoked_subcommand), error):
                raise missing from error
            raise


def _viewed(name: str) -> "Endpoint":
    from guestwire.contract.guest_registry import GUEST_ENDPOINTS  # noqa: PLC0415  # `--help` must not wait for it

    return next(endpoint for endpoint in GUEST_ENDPOINTS if endpoint.command and endpoint.command.name == name)
