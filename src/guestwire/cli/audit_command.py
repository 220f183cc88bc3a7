"""`guestwire audit`: who did what."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.access_store import Where, config_option, run, state_option
from guestwire.cli.output import Column, Row, examples, print_table, to_json
from guestwire.cli.times import day_and_time, moment

if TYPE_CHECKING:
    from guestwire.app.offline import OfflineAdmin

POLL: Final = 0.3
"""Seconds between looks at the log with `--follow`."""
PAGE: Final = 1000
"""Records read at once with `--follow`."""

COLUMNS: Final = (
    Column("TIME", "time", day_and_time, 19),
    Column("WHO", "subject", str, 16),
    Column("FROM", "address", str, 9),
    Column("VM", "vmid", str, 3),
    Column("CALL", "endpoint", str, 20),
    Column("STATUS", "status", str, 6),
    Column("RESULT", "result"),
    Column("PARAMETERS", "parameters", lambda parameters: to_json(parameters) if parameters else ""),
)

MOST: Final = 10_000

LONGEST_ID: Final = 9
"""Digits of a VM's id."""


Show = Callable[[Sequence[Row]], None]


@click.command("audit", epilog=examples("guestwire audit --since 2h --follow"))
@click.option(
    "--since",
    metavar="WHEN",
    help="A date (2027-01-31), a time (2027-01-31T18:00), seconds since the epoch, or how long ago: 2h, 7d.",
)
@click.option("--until", metavar="WHEN", help="As --since; records of this very second are left out.")
@click.option("--user", metavar="USER", help="Only calls of a user and its tokens, or of a token, NAME@REALM!NAME.")
@click.option("--address", metavar="ADDRESS", help="Only calls from this address; 'local' is this command line.")
@click.option("--vmid", metavar="VMID", help="Only calls for this VM: its id, or its name in the configuration file.")
@click.option("--endpoint", metavar="'METHOD /PATH'", help="Only calls of an endpoint, named as in the table.")
@click.option("--status", metavar="STATUS", help="Only calls whose answer had this status, for example 403.", type=int)
@click.option("--request-id", metavar="ID", help="Only the call with this id in the server's log.")
@click.option(
    "--limit",
    metavar="NUMBER",
    help="How many records at most; the newest are kept.",
    type=click.IntRange(min=1, max=MOST),
    default=100,
)
@click.option("--follow", "-f", help="Go on with new records until Ctrl-C.", is_flag=True)
@click.option("--json", help="Write one JSON object a line.", is_flag=True)
@config_option
@state_option
@click.pass_context
def audit(
    context: click.Context, /, *, since: str | None, until: str | None, limit: int, follow: bool, json: bool, config: Path | None,
    state_dir: Path | None, vmid: str | None, **filters: str | int | None,
) -> None:  # fmt: skip
    """Show who did what in which guest, and who was refused."""
    wanted = {name.replace("_", "-"): value for name, value in filters.items()}
    wanted |= {"since": moment("since", since), "until": moment("until", until)}
    tell = _lines if json else _Table()
    where = Where.given(context, config, state_dir)
    wanted["vmid"] = None if vmid is None else _vmid(where, vmid)
    if not follow:
        tell(run(where, lambda admin: _read(admin, {**wanted, "limit": limit})))
        return
    try:
        run(where, lambda admin: _follow(admin, wanted, limit, tell))
    except KeyboardInterrupt:
        return  # that is how it ends


def _vmid(where: Where, name: str) -> int:
    """The id of a VM that is named by its id or its name.

    Raises:
        BadParameter: no VM of the configuration has this name, or several have.
    """
    if name.isascii() and name.isdigit() and len(name) <= LONGEST_ID:
        return int(name)
    vms = where.vms()
    found = [vmid for vmid, known in (vms or {}).items() if known == name]
    if len(found) == 1:
        return found[0]
    if vms is None:
        why = f"A state directory does not know the name '{name}': give the VM's id, or --config."
    else:
        why = (
            f"{'Several VMs have' if found else 'No VM of the configuration has'} the name '{name}': give the VM's id."
        )
    raise click.BadParameter(why, param_hint="--vmid")


async def _read(admin: "OfflineAdmin", given: Mapping[str, Any]) -> list[Row]:
    found: list[Row] = await admin.call("GET", "/nodes/{node}/guestwire/audit", {"node": admin.node, **given})
    return found


async def _follow(admin: "OfflineAdmin", wanted: Mapping[str, Any], limit: int, tell: Show) -> None:
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    seen = await _read(admin, {"limit": 1})
    records = await _read(admin, {**wanted, "limit": limit})
    after = max((record["number"] for record in seen + records), default=0)
    tell(records)
    while True:
        records = await _read(admin, {**wanted, "after": after, "limit": PAGE})
        if records:
            tell(records)
            after = records[-1]["number"]
        if len(records) < PAGE:
            await asyncio.sleep(POLL)


def _lines(records: Sequence[Row]) -> None:
    for record in records:
        print(to_json(record), flush=True)


class _Table:
    """One table, also when it comes piece by piece."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, records: Sequence[Row]) -> None:
        if not self._begun or records:
            print_table(records, COLUMNS, headings=not self._begun)
        self._begun = True
