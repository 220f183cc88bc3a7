"""`guestwire ls`: the guests of a host, or a folder in one of them."""

from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.addresses import is_libvirt_uri
from guestwire.cli.connecting import (
    find_settings,
    guest_and_path,
    guest_names,
    on_guest,
    on_host,
    tag_option,
)
from guestwire.cli.output import Column, Row, examples, json_option, note, print_table, show, to_json
from guestwire.cli.times import day_and_time
from guestwire.cli.units import mode_words

if TYPE_CHECKING:
    from guestwire.client import GuestInfo, Host
    from guestwire.inventory.found import FoundVm

GUESTS: Final = (Column("VMID", "vmid"), Column("NAME", "name"), Column("STATUS", "status"), Column("NODE", "node"))
TAGS: Final = Column("TAGS", "tags", ";".join)
"""Shown when a guest has some."""
FROZEN: Final = (
    Column("FROZEN SINCE", "frozen_since", day_and_time),
    Column("UNTIL", "frozen_until", day_and_time),
    Column("BY", "frozen_by"),
)
"""Shown when a guest is."""

ENTRIES: Final = (
    Column("MODE", "mode"),
    Column("OWNER", "owner"),
    Column("GROUP", "group"),
    Column("SIZE", "size"),
    Column("CHANGED", "mtime", day_and_time),
    Column("NAME", "path"),
)


OF_UNIX: Final = ("owner", "group")


@click.command("ls", epilog=examples("guestwire ls", "guestwire ls web:/etc"))
@click.argument("path", metavar="[GUEST:PATH]", help="A folder in a guest.", shell_complete=guest_names, required=False)
@tag_option
@json_option
@click.pass_context
def ls(context: click.Context, *, path: str | None, tags: tuple[str, ...], json: bool) -> None:
    """List the guests that you may see, or a folder in one of them."""
    if path is None:
        guests, unusable, is_here = on_host(context, _found)
        guests = sorted((guest for guest in guests if guest.has_tags(tags)), key=lambda guest: guest.vmid)
        columns = list(GUESTS)
        columns += [TAGS] if any(guest.tags for guest in guests) else []
        columns += FROZEN if any(guest.frozen_by is not None for guest in guests) else []
        show([_fields(guest) for guest in guests], columns, as_json=json)
        for vm in unusable:
            note(f"guestwire: {vm.name} ({vm.source}): {vm.problem}; {vm.hint}")
        if not guests and tags:
            note(f"guestwire: no guest has the tags {', '.join(tags)}")
        elif not guests and is_libvirt_uri(find_settings(context).host or ""):
            note("guestwire: libvirt has no VM there")
        elif not guests and is_here:
            note("guestwire: no VM that can be used was found on this machine; for another host give --host")
        elif not guests:
            note("guestwire: there is no guest that you may see: the user or token needs VM.Audit")
        return
    if tags:
        raise click.UsageError("--tag chooses guests, not files.")
    name, folder = guest_and_path(path)
    entries = [_fields(entry) for entry in on_guest(context, name, lambda guest: guest.folders.listdir(folder))]
    if json:
        print(to_json(entries, indent=2))
        return
    # A Windows guest names no owners.
    shown = [one for one in ENTRIES if one.field not in OF_UNIX or any(entry[one.field] for entry in entries)]
    print_table([{**entry, "mode": mode_words(entry), "path": _path_words(entry)} for entry in entries], shown)


async def _found(host: "Host") -> "tuple[list[GuestInfo], list[FoundVm], bool]":
    """The guests, those of this machine that can't be used, and whether it is this machine."""
    return await host.guests(), await host.unusable(), host.is_local


def _path_words(entry: Row) -> str:
    return f"{entry['path']} -> {entry['link']}" if entry["link"] else str(entry["path"])


def _fields(record: Any) -> Row:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
