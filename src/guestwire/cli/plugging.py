"""`guestwire vcpus` and `guestwire memory`: parts of a guest's machine that go online and offline."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.connecting import guest_argument, on_guest, plain
from guestwire.cli.output import Column, examples, json_option, print_table, report, to_json
from guestwire.cli.units import size
from guestwire.counting import counted

if TYPE_CHECKING:
    from guestwire.client import Guest

NOT_CHANGED: Final = 3
"""The exit code when a block of memory was not set."""

CHANGES: Final = (Column("BLOCK", "phys-index"), Column("RESULT", "response"), Column("ERROR", "error-code"))

online_option = click.option("--online", metavar="N-N", help="Set these online, as 0-3,5.", default="")
offline_option = click.option("--offline", metavar="N-N", help="Set these offline.", default="")


@click.command("vcpus", epilog=examples("guestwire vcpus web", "guestwire vcpus --online 0-3 web"))
@guest_argument
@online_option
@offline_option
@json_option
@click.pass_context
def vcpus(context: click.Context, guest: str, *, online: str, offline: str, json: bool) -> None:
    """Show a guest's processors, or set some online or offline."""
    if not online and not offline:
        from guestwire.cli.views import show_view  # noqa: PLC0415  # `--help` must not wait for the endpoints
        from guestwire.contract.endpoints.agent import get_vcpus  # noqa: PLC0415

        show_view(context, get_vcpus, guest, {}, as_json=json)
        return
    count = on_guest(context, guest, lambda one: one.set_vcpus(online=online, offline=offline))
    report(count, f"{guest}: {counted(count, 'processor')} set", as_json=json)


@click.command("memory", epilog=examples("guestwire memory web", "guestwire memory --offline 8-9 web"))
@guest_argument
@online_option
@offline_option
@json_option
@click.pass_context
def memory(context: click.Context, guest: str, *, online: str, offline: str, json: bool) -> None:
    """Show a guest's memory in blocks, or set some online.

    A block that can't be set is shown with its error, and the exit code is 3.
    """
    if not online and not offline:
        _print_blocks(plain(on_guest(context, guest, _read_blocks)), as_json=json)
        return
    found = plain(on_guest(context, guest, lambda one: one.set_memory_blocks(online=online, offline=offline)))
    if json:
        print(to_json(found, indent=2))
    else:
        print_table(found, CHANGES)
    if any(one["response"] != "success" for one in found):
        raise click.exceptions.Exit(NOT_CHANGED)


async def _read_blocks(guest: "Guest") -> dict[str, Any]:
    info = await guest.get_memory_block_info()
    return {"size": info.size, "blocks": await guest.get_memory_blocks()}


def _print_blocks(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(to_json(found, indent=2))
        return
    online = sum(bool(block["online"]) for block in found["blocks"])
    print(
        f"{counted(len(found['blocks']), 'block')} of {size(found['size'])}: {size(online * found['size'])} online,"
        f" {size((len(found['blocks']) - online) * found['size'])} offline"
    )
