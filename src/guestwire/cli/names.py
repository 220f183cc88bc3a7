"""The arguments that name a guest, and a path in it; Tab completes the guests' names."""

from typing import TYPE_CHECKING, Final

import click

from guestwire.cli.connecting import on_host
from guestwire.cli.options import Given
from guestwire.errors import GuestwireError

if TYPE_CHECKING:
    from guestwire.client import Host

COMPLETES_WITHIN: Final = 3.0
"""Seconds that Tab waits for the host at most."""


def guest_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of guests that begin so. There are none when the host can't be reached: an error or a question would disturb the shell's line."""
    import asyncio  # noqa: PLC0415  # only who presses Tab waits for it

    async def names(host: "Host") -> list[str]:
        async with asyncio.timeout(COMPLETES_WITHIN):
            return [guest.name for guest in await host.guests()]

    # What stands before the command was read, but not acted on: it is no call.
    words = {name: context.find_root().params.get(name) for name in Given.__dataclass_fields__}
    context.obj = Given(**{name: value for name, value in words.items() if value is not None})
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


guest_argument = click.argument("guest", metavar="GUEST", help="A VM's name or id.", shell_complete=guest_names)
path_argument = click.argument(
    "path", metavar="GUEST:PATH", help="A VM's name or id, and a path in it.", shell_complete=guest_names
)
