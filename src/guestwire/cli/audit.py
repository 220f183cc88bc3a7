"""`guestwire audit`: who did what."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from guestwire.cli.output import Column, Row, print_table, to_json
from guestwire.cli.quick import add
from guestwire.cli.site import ConfigOption, StateOption, Where, run
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


def register(app: typer.Typer) -> None:
    """Adds this command."""
    add(app, "audit", audit, "guestwire audit --since 2h --follow")


Show = Callable[[Sequence[Row]], None]


def audit(
    *,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="YYYY-MM-DD, YYYY-MM-DDTHH:MM, seconds since the epoch, or how long ago: 2h, 7d."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="As --since; this moment is left out.")] = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="A user with all tokens, or NAME@REALM!TOKEN.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where it came from; 'local': this command line.")
    ] = None,
    vmid: Annotated[int | None, typer.Option(metavar="VMID")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="'METHOD /PATH'", help="As the table shows it.")] = None,
    status: Annotated[int | None, typer.Option(metavar="STATUS", help="Of the answer, as 403.")] = None,
    request_id: Annotated[str | None, typer.Option(metavar="ID", help="As the server's log has it.")] = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=MOST, help="The last so many.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Show who did what in which guest, and who was refused."""
    wanted = {
        "since": moment("since", since),
        "until": moment("until", until),
        "user": user,
        "address": address,
        "vmid": vmid,
        "endpoint": endpoint,
        "status": status,
        "request-id": request_id,
    }
    tell = _lines if json else _Table()
    where = Where(config, state_dir)
    if not follow:
        tell(run(where, lambda admin: _read(admin, {**wanted, "limit": limit})))
        return
    try:
        run(where, lambda admin: _follow(admin, wanted, limit, tell))
    except KeyboardInterrupt:
        return  # that is how it ends


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
