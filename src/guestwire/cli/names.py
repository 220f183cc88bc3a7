"""How a command is told which guest is meant, and which path in it; Tab completes the guests' names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from guestwire.cli.connecting import on_host
from guestwire.cli.options import Given
from guestwire.errors import GuestwireError

if TYPE_CHECKING:
    from guestwire.client import Host

COMPLETES_WITHIN: Final = 3.0
"""Seconds that somebody who pressed Tab waits at most."""


def guest_names(context: typer.Context, incomplete: str) -> Sequence[str]:
    """Names of guests that begin so; none when the host can't be asked: nothing may be shown then, and nobody be asked."""
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
        raise typer.BadParameter(f"'{text}' is not GUEST:PATH.")
    return guest, path


GuestArgument = Annotated[
    str, typer.Argument(metavar="GUEST", help="A VM's name or id.", show_default=False, autocompletion=guest_names)
]
PathArgument = Annotated[
    str,
    typer.Argument(
        metavar="GUEST:PATH",
        help="A VM's name or id, and a path in it.",
        show_default=False,
        autocompletion=guest_names,
    ),
]
