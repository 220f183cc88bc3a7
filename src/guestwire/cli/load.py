"""`guestwire load` and `guestwire routes`: what agents say since lately, and Linux in files before."""

from typing import TYPE_CHECKING, Final

import click

from guestwire.cli.connecting import ask_running, guest_argument, guest_names, on_guest, on_host, plain, tag_option
from guestwire.cli.disks import SOME_FAILED
from guestwire.cli.output import Column, Row, examples, json_option, note, print_table, to_json

if TYPE_CHECKING:
    from guestwire.client import Host


def _average(value: float) -> str:
    return f"{value:.2f}"


LOADS: Final = (
    Column("1 MIN", "load1m", _average),
    Column("5 MIN", "load5m", _average),
    Column("15 MIN", "load15m", _average),
)
GUESTS: Final = (Column("VMID", "vmid"), Column("NAME", "name"))


def _mask(row: Row) -> str:
    """The length of a route's prefix, of either version."""
    if row["version"] != 4:  # noqa: PLR2004  # of IP
        return f"/{row.get('desprefixlen', '?')}"
    parts = str(row.get("mask", "")).split(".")
    if not all(part.isdecimal() and len(part) <= 3 for part in parts):  # noqa: PLR2004  # digits of a byte
        return f" {row.get('mask', '')}".rstrip()
    return f"/{sum(int(part).bit_count() for part in parts)}"


def _destination(row: Row) -> str:
    return f"{row['destination']}{_mask(row)}"


def _gateway(row: Row) -> str:
    found = str(row.get("gateway") or row.get("nexthop") or "")
    return "" if found in ("0.0.0.0", "::") else found  # noqa: S104  # no address to listen on


ROUTES: Final = (
    Column("DESTINATION", "", _destination),
    Column("GATEWAY", "", _gateway),
    Column("INTERFACE", "iface"),
    Column("METRIC", "metric"),
)


@click.command("load", epilog=examples("guestwire load web", "guestwire load --all"))
@click.argument(
    "guest", metavar="[GUEST]", help="A VM's name or id.", shell_complete=guest_names, required=False, default=None
)
@click.option("--all", "-a", "every", help="Each running guest, the busiest first.", is_flag=True)
@tag_option
@json_option
@click.pass_context
def load(context: click.Context, guest: str | None, *, every: bool, tags: tuple[str, ...], json: bool) -> None:
    """Show a guest's load: processes that run or want to.

    On average over 1, 5 and 15 minutes. Where agent or host can't say it, it is read from the guest's /proc/loadavg. With
    --all, a guest that does not say is an error in one line, and the exit code is 3.
    """
    if every == (guest is not None):
        raise click.UsageError("Name one guest, or give --all.")
    if tags and not every:
        raise click.UsageError("--tag goes with --all.")
    if guest is not None:
        found = plain(on_guest(context, guest, lambda one: one.load()))
        if json:
            print(to_json(found, indent=2))
        else:
            print_table([found], LOADS)
        return
    rows = on_host(context, lambda host: _ask_all(host, tags))
    if json:
        print(to_json(rows, indent=2))
    else:
        print_table([row for row in rows if "error" not in row], (*GUESTS, *LOADS))
    failed = [row["error"] for row in rows if "error" in row]
    for error in failed:
        note(f"guestwire: {error}")
    if failed:
        raise click.exceptions.Exit(SOME_FAILED)


async def _ask_all(host: "Host", tags: tuple[str, ...]) -> list[Row]:
    """A row for each guest that runs and has these tags, the busiest first."""
    rows = []
    for info, found in await ask_running(host, tags, lambda guest: guest.load()):
        known = {"error": str(found)} if isinstance(found, Exception) else plain(found)
        rows.append({"vmid": info.vmid, "name": info.name, "node": info.node, **known})
    return sorted(rows, key=lambda row: row.get("load1m", -1), reverse=True)


@click.command("routes", epilog=examples("guestwire routes web"))
@guest_argument
@json_option
@click.pass_context
def routes(context: click.Context, guest: str, *, json: bool) -> None:
    """Show a guest's routes.

    Where agent or host can't say them, they are read from /proc/net of a Linux guest.
    """
    found = plain(on_guest(context, guest, lambda one: one.routes()))
    if json:
        print(to_json(found, indent=2))
    else:
        print_table(found, ROUTES)
