"""`guestwire ls`, and the commands that show what a guest reports about itself: made from the endpoints' records."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from guestwire.cli.connecting import on_guest, on_host, plain
from guestwire.cli.formats import print_result
from guestwire.cli.names import GuestArgument, guest_and_path, guest_names
from guestwire.cli.output import Column, Row, note, show, to_json
from guestwire.cli.quick import add
from guestwire.cli.site import Json
from guestwire.cli.times import day_and_time
from guestwire.cli.units import mode_words, size
from guestwire.contract import CommandView, Endpoint
from guestwire.contract.guest_registry import GUEST_ENDPOINTS

if TYPE_CHECKING:
    from guestwire.client import Guest

GUESTS: Final = (Column("VMID", "vmid"), Column("NAME", "name"), Column("STATUS", "status"), Column("NODE", "node"))
ENTRIES: Final = (
    Column("MODE", "mode"),
    Column("SIZE", "size"),
    Column("CHANGED", "mtime", day_and_time),
    Column("NAME", "path"),
)


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    add(app, "ls", ls, "guestwire ls", "guestwire ls web:/etc")
    register_views(app, GUEST_ENDPOINTS)
    add(app, "memory", memory, "guestwire memory web")


def ls(
    context: typer.Context,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[GUEST:PATH]", help="A folder in a guest.", show_default=False, autocompletion=guest_names
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List the guests that you may see; or what is in a folder of a guest."""
    if path is None:
        guests = on_host(context, lambda host: host.guests())
        show([_fields(guest) for guest in guests], GUESTS, as_json=json)
        if not guests:
            note("guestwire: there is no guest that you may see: the user or token needs VM.Audit")
        return
    name, folder = guest_and_path(path)
    listed = on_guest(context, name, lambda guest: guest.folders.listdir(folder))
    # Where links lead is not looked up for a list.
    entries = [{field: value for field, value in _fields(entry).items() if field != "link"} for entry in listed]
    show(entries if json else [{**entry, "mode": mode_words(entry)} for entry in entries], ENTRIES, as_json=json)


def _fields(record: Any) -> Row:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def register_views(app: typer.Typer, endpoints: Iterable[Endpoint]) -> None:
    """Adds a command for each endpoint whose record has a command view."""
    for endpoint in endpoints:
        if view := endpoint.command:
            add(app, view.name, _view_command(endpoint, view), f"guestwire {view.name} web", help=view.help)


def _view_command(endpoint: Endpoint, view: CommandView) -> Callable[..., None]:
    def command(context: typer.Context, guest: GuestArgument, *, json: Json = False) -> None:
        found = plain(on_guest(context, guest, lambda guest: guest.call_endpoint(endpoint)))
        if json:
            print(to_json({} if found is None else found, indent=2))
        else:
            print_result(view.output, found)

    return command


def memory(context: typer.Context, guest: GuestArgument, *, json: Json = False) -> None:
    """Show how much memory a guest has, in blocks that can be plugged."""

    async def read(guest: "Guest") -> dict[str, Any]:
        info = await guest.get_memory_block_info()
        return {"size": info.size, "blocks": await guest.get_memory_blocks()}

    found = plain(on_guest(context, guest, read))
    if json:
        print(to_json(found, indent=2))
        return
    online = sum(bool(block["online"]) for block in found["blocks"])
    print(
        f"{len(found['blocks'])} blocks of {size(found['size'])}: {size(online * found['size'])} online,"
        f" {size((len(found['blocks']) - online) * found['size'])} offline"
    )
