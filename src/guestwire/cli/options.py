"""The arguments and options that commands share, and the help of groups and commands, which is as wide as the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from guestwire.cli.connecting import HostOptions, on_host
from guestwire.errors import GuestwireError

if TYPE_CHECKING:
    from guestwire.client import Host

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as shells have it."""

WIDEST: Final = 120
"""Columns of the widest help: longer lines are hard to read."""
NARROWEST: Final = 30

WHOLE: Final = 10_000
"""More characters than a sentence of the help has."""

COMPLETES_WITHIN: Final = 3.0
"""Seconds that Tab waits for the host at most."""


class _Formatter(click.HelpFormatter):
    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Leaves room for the longest word of the descriptions, where click would cut it; long terms stand above theirs then."""
        rows = list(rows)
        longest = max((len(word) for _, text in rows for word in text.split()), default=0)
        super().write_dl(rows, max(min(col_max, self.width - longest - 2 * col_spacing), 1), col_spacing)


class _Context(click.Context):
    def make_formatter(self) -> click.HelpFormatter:
        """A formatter for the terminal's width; click's own does not go below 50 columns, and the terminal would cut words there."""
        from shutil import get_terminal_size  # noqa: PLC0415  # only help waits for it

        return _Formatter(width=max(min(get_terminal_size().columns, WIDEST) - 2, NARROWEST))


class Group(click.Group):
    """Commands whose help is as wide as the terminal, and cuts no sentence."""

    context_class = _Context

    def sections(self, context: click.Context) -> Mapping[str, Sequence[str]]:
        """The headings of the help, and the names of the commands below each."""
        return {"Commands": self.list_commands(context)}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None: there is none."""
        command = super().get_command(ctx, cmd_name)
        if command:
            command.context_class = _Context
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the first sentence of each command's help; all of them begin in the same column."""
        column = max(map(len, self.list_commands(ctx)))
        formatter.write_paragraph()
        for heading, names in self.sections(ctx).items():
            formatter.write_heading(heading)
            commands = ((name, self.get_command(ctx, name)) for name in names)
            with formatter.indentation():
                formatter.write_dl(
                    [(f"{name:<{column}}", found.get_short_help_str(WHOLE)) for name, found in commands if found]
                )


def guest_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of guests that begin so. There are none when the host can't be reached: an error or a question would disturb the shell's line."""
    import asyncio  # noqa: PLC0415  # only who presses Tab waits for it

    async def names(host: "Host") -> list[str]:
        async with asyncio.timeout(COMPLETES_WITHIN):
            return [guest.name for guest in await host.guests()]

    # What stands before the command was read, but not acted on: it is no call.
    words = {name: context.find_root().params.get(name) for name in HostOptions.__dataclass_fields__}
    context.obj = HostOptions(**{name: value for name, value in words.items() if value is not None})
    try:
        found = on_host(context, names, ask=False)
    except (GuestwireError, TimeoutError):
        return []
    return [name for name in found if name.startswith(incomplete)]


def guest_and_path(text: str) -> tuple[str, str]:
    """The two sides of `GUEST:PATH`.

    Raises:
        BadParameter: one of them is missing.
    """
    guest, _, path = text.partition(":")
    if not guest or not path:
        raise click.BadParameter(f"'{text}' is not GUEST:PATH; a folder is, for example, {guest or 'GUEST'}:/etc.")
    return guest, path


json_option = click.option("--json", is_flag=True, help="Write JSON with the API's names.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
guest_argument = click.argument("guest", metavar="GUEST", help="A VM's name or id.", shell_complete=guest_names)
path_argument = click.argument(
    "path", metavar="GUEST:PATH", help="A VM's name or id, and a path in it.", shell_complete=guest_names
)
