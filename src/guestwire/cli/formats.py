"""The formats that the command views of the contract name, and the tables, facts and lines made with them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from guestwire.cli.output import Column, Row, print_table, visible, yes_or_no
from guestwire.cli.times import day_and_time
from guestwire.cli.units import offset, size
from guestwire.contract import faces
from guestwire.counting import counted


def _clock(nanoseconds: int) -> str:
    ahead = nanoseconds / 1e9 - time.time()
    return f"{day_and_time(nanoseconds / 1e9)}, {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine"


def _addresses(found: Sequence[Row]) -> list[str]:
    return [f"{address['ip-address']}/{address['prefix']}" for address in found]


def _duration(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{counted(days, 'day')}, {clock}" if days else clock


FORMATS: Final[Mapping[str, Callable[[Any], str | list[str]]]] = {
    "text": str,
    "answers": lambda _: "the agent answers",
    "yes-no": yes_or_no,
    "time": day_and_time,
    "size": size,
    "percent": lambda share: f"{share:.0%}",
    "duration": _duration,
    "clock": _clock,
    "zone": lambda found: f"{found.get('zone') or 'unknown'} {offset(found['offset'])}",
    "host-name": lambda found: str(found["host-name"]),
    "addresses": _addresses,
    "agent-version": lambda found: f"guest agent {found['version']}",
    "free-bytes": lambda row: size(row["total-bytes"] - (row.get("used-bytes") or 0)),
    "use-percent": lambda row: f"{(row.get('used-bytes') or 0) / row['total-bytes']:.0%}",
}
"""By the names that the contract's views have for them."""


def print_result(output: faces.Table | faces.Facts | faces.Line, found: Any) -> None:
    """Shows people a result, as JSON has it."""
    match output:
        case faces.Line():
            print(visible(FORMATS[output.format](found)))
        case faces.Facts():
            rows = [
                {"fact": label, "value": FORMATS[output.formats.get(field, "text")](found[field])}
                for field, label in output.labels.items()
                if found.get(field) is not None
            ]
            print_table(rows, (Column("", "fact"), Column("", "value")), headings=False)
        case faces.Table():
            if output.title:
                print(visible(FORMATS[output.title](found)))
            rows = [
                row for row in (found[output.of] if output.of else found) if not output.only or row.get(output.only)
            ]
            if output.sort:
                rows.sort(key=lambda row: str(row[output.sort]))
            columns = [Column(one.heading, one.field, FORMATS[one.format]) for one in output.columns]
            print_table(rows, columns)
