"""`guestwire df`: the file systems of a guest, or the fullest one of each guest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from guestwire.cli.connecting import ask_running, guest_names, on_host, plain, tag_option
from guestwire.cli.output import Column, Row, examples, json_option, note, print_table, to_json
from guestwire.cli.units import size

if TYPE_CHECKING:
    from guestwire.client import CallFailed, Guest, GuestInfo, Host

SOME_FAILED: Final = 3
"""The exit code when a guest did not say; a note says which, and why."""

ALWAYS_FULL: Final = frozenset({"cd9660", "cramfs", "erofs", "iso9660", "squashfs", "udf", "CDFS", "UDF"})
"""Types of read-only images: they are made full, as those of snaps and CDs, and can't get fuller."""

FULLEST: Final = (
    Column("VMID", "vmid"),
    Column("NAME", "name"),
    Column("USE", "use"),
    Column("SIZE", "total-bytes", size),
    Column("USED", "used-bytes", size),
    Column("FREE", "free", size),
    Column("FILE SYSTEM", "file-system"),
    Column("MOUNTED ON", "mountpoint"),
)


@click.command("df", epilog=examples("guestwire df web", "guestwire df --all"))
@click.argument(
    "guest", metavar="[GUEST]", help="A VM's name or id.", shell_complete=guest_names, required=False, default=None
)
@click.option("--all", "-a", "every", help="The fullest file system of each running guest.", is_flag=True)
@tag_option
@json_option
@click.pass_context
def df(context: click.Context, guest: str | None, *, every: bool, tags: tuple[str, ...], json: bool) -> None:
    """Show how full a guest's file systems are.

    With --all, the fullest file system of each guest that runs, the fullest first; read-only images, which are always
    full, do not count. A guest that does not say is an error in one line, and the exit code is 3.
    """
    if every == (guest is not None):
        raise click.UsageError("Name one guest, or give --all.")
    if tags and not every:
        raise click.UsageError("--tag goes with --all.")
    if guest is not None:
        from guestwire.cli.views import show_view  # noqa: PLC0415  # `--help` must not wait for the endpoints
        from guestwire.contract.endpoints.agent import get_fsinfo  # noqa: PLC0415

        show_view(context, get_fsinfo, guest, {}, as_json=json)
        return
    found = on_host(context, lambda host: _ask_all(host, tags))
    if json:
        print(to_json(found, indent=2))
    else:
        print_table([_table_row(row) for row in found if row["fullest"]], FULLEST)
    failed = [row["error"] for row in found if "error" in row]
    for error in failed:
        note(f"guestwire: {error}")
    if failed:
        raise click.exceptions.Exit(SOME_FAILED)


async def _ask_all(host: "Host", tags: Sequence[str]) -> list[Row]:
    """A row for each guest that runs and has these tags, the fullest first."""

    async def systems(guest: "Guest") -> Sequence[Row]:
        found: Sequence[Row] = plain(list(await guest.filesystems()))
        return found

    rows = [_row(host, info, found) for info, found in await ask_running(host, tags, systems)]
    return sorted(rows, key=lambda row: _use(row["fullest"]), reverse=True)


def _row(host: "Host", info: "GuestInfo", found: "Sequence[Row] | CallFailed") -> Row:
    row = {"vmid": info.vmid, "name": info.name, "node": info.node, "fullest": None}
    if isinstance(found, Exception):
        return {**row, "error": str(found)}
    if not found:
        return {**row, "error": f"guest {info.name} on {host.name}: its agent names no file system with a size"}
    row["fullest"] = max((one for one in found if one["type"] not in ALWAYS_FULL), key=_use, default=None)
    return row


def _use(system: Row | None) -> float:
    """The share that is used, from 0 to 1; -1 where there is none."""
    return (system.get("used-bytes") or 0) / system["total-bytes"] if system else -1


def _table_row(row: Row) -> Row:
    system = row["fullest"]
    used = system.get("used-bytes") or 0
    return {
        **system, "vmid": row["vmid"], "name": row["name"], "file-system": system["name"], "used-bytes": used,
        "free": system["total-bytes"] - used, "use": f"{_use(system):.0%}",
    }  # fmt: skip
