"""The formats that the command views of the contract name, and the tables, facts and lines made with them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from guestwire.cli.output import Column, Row, print_table, visible, yes_or_no
from guestwire.cli.times import day_and_time
from guestwire.cli.units import offset, size
from guestwire.contract import faces
from guestwire.counting import counted

SECTOR: Final = 512
"""Bytes of what Linux counts, whatever the disk's own are."""

MINUTE: Final = 60


def _clock(nanoseconds: int) -> str:
    ahead = nanoseconds / 1e9 - time.time()
    return f"{day_and_time(nanoseconds / 1e9)}, {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine"


def _addresses(found: Sequence[Row]) -> list[str]:
    return [f"{address['ip-address']}/{address['prefix']}" for address in found]


def _duration(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{counted(days, 'day')}, {clock}" if days else clock


def _busy(stats: Row) -> str:
    milliseconds = stats.get("total-ticks")
    return "" if milliseconds is None else _milliseconds(milliseconds)


def _milliseconds(count: int) -> str:
    """As a duration, with tenths of a second below a minute."""
    seconds = count // 1000
    return _duration(seconds) if seconds >= MINUTE else f"{count / 1000:.1f} s"


def _sectors(name: str) -> Callable[[Row], str]:
    return lambda stats: "" if stats.get(name) is None else size(stats[name] * SECTOR)


def _smart(found: Row) -> str:
    """The values that tell most of an NVMe disk."""
    words = {"temperature": "{} K", "percentage-used": "{} % worn", "critical-warning": "warning {}"}
    shown = [text.format(found[name]) for name, text in words.items() if found.get(name)]
    return ", ".join(shown) or str(found.get("type", ""))


def _device_id(found: Row) -> str:
    numbers = [found.get(name) for name in ("vendor-id", "device-id")]
    return f"{found['type']} {':'.join(f'{number:04x}' for number in numbers if number is not None)}".strip()


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
    "lines": lambda found: [str(one) for one in found],
    "bus": lambda address: f"{address['bus-type']} {address['bus']}:{address['target']}:{address['unit']}",
    "serial": lambda address: str(address.get("serial") or ""),
    "smart": _smart,
    "read-bytes": _sectors("read-sectors"),
    "written-bytes": _sectors("write-sectors"),
    "read-ios": lambda stats: str(stats.get("read-ios", "")),
    "write-ios": lambda stats: str(stats.get("write-ios", "")),
    "busy": _busy,
    "milliseconds": _milliseconds,
    "day": lambda nanoseconds: day_and_time(nanoseconds // 10**9).partition(" ")[0],
    "device-id": _device_id,
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
