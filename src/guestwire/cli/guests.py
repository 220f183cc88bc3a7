"""`guestwire ls` and `guestwire memory`, which take more than one call.

`views.py` has the commands that show one endpoint's result.
"""

from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.addresses import is_served_here
from guestwire.cli.connecting import (
    find_settings,
    guest_and_path,
    guest_argument,
    guest_names,
    on_guest,
    on_host,
    plain,
)
from guestwire.cli.output import Column, Row, examples, json_option, note, show, to_json
from guestwire.cli.times import day_and_time
from guestwire.cli.units import mode_words, size

if TYPE_CHECKING:
    from guestwire.client import Guest

GUESTS: Final = (Column("VMID", "vmid"), Column("NAME", "name"), Column("STATUS", "status"), Column("NODE", "node"))
FROZEN: Final = Column("FROZEN SINCE", "frozen_since", day_and_time)
"""Shown when a guest is; who froze it stands in the log and in JSON."""

ENTRIES: Final = (
    Column("MODE", "mode"),
    Column("SIZE", "size"),
    Column("CHANGED", "mtime", day_and_time),
    Column("NAME", "path"),
)


@click.command("ls", epilog=examples("guestwire ls", "guestwire ls web:/etc"))
@click.argument("path", metavar="[GUEST:PATH]", help="A folder in a guest.", shell_complete=guest_names, required=False)
@json_option
@click.pass_context
def ls(context: click.Context, *, path: str | None, json: bool) -> None:
    """List the guests that you may see, or a folder in one of them."""
    if path is None:
        guests = sorted(on_host(context, lambda host: host.guests()), key=lambda guest: guest.vmid)
        columns = (*GUESTS, FROZEN) if any(guest.frozen_by is not None for guest in guests) else GUESTS
        show([_fields(guest) for guest in guests], columns, as_json=json)
        if not guests:
            is_here = is_served_here(find_settings(context).host or "")
            why = (
                "libvirt has no VM there"
                if is_here
                else "there is no guest that you may see: the user or token needs VM.Audit"
            )
            note(f"guestwire: {why}")
        return
    name, folder = guest_and_path(path)
    listed = on_guest(context, name, lambda guest: guest.folders.listdir(folder))
    # Where links lead is not looked up for a list.
    entries = [{field: value for field, value in _fields(entry).items() if field != "link"} for entry in listed]
    show(entries if json else [{**entry, "mode": mode_words(entry)} for entry in entries], ENTRIES, as_json=json)


def _fields(record: Any) -> Row:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@click.command("memory", epilog=examples("guestwire memory web"))
@guest_argument
@json_option
@click.pass_context
def memory(context: click.Context, guest: str, *, json: bool) -> None:
    """Show a guest's memory, in blocks that can be plugged."""

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
