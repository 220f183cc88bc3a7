"""What was measured, where, and how it is shown."""

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

VM: Final = "a real VM"
SANDBOX: Final = "an agent in a sandbox, without a VM"
CLIENT: Final = "the client, an agent in a sandbox"
CLIENT_VM: Final = "the client, a real VM"
LIBVIRT: Final = "libvirt, a real VM; raw: libvirt's own call"
LIVE: Final = "SSH into a Debian guest; raw: QEMU's user network"
STREAMS: Final = "terminals and streams, a Debian guest; raw: without one"
ASSISTANTS: Final = "the MCP server, an agent in a sandbox"

COLUMNS: Final = ("measured", "raw socket", "guestwire", "ratio", "Proxmox VE", "target", "met")


@dataclass(frozen=True, slots=True)
class ProxmoxVE:
    """What its own service took, in the row's unit, and how many times the raw socket that was; measured once, on another machine."""

    value: float
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: `raw` and `guestwire` in `unit`, None where there is no such figure; `met` is None where there is no target."""

    place: str
    name: str
    unit: str
    raw: float | None
    guestwire: float | None
    target: str = ""
    met: bool | None = None
    proxmox: ProxmoxVE | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the raw socket's figure guestwire's is."""
        return self.guestwire / self.raw if self.raw and self.guestwire is not None else None

    def cells(self) -> tuple[str, ...]:
        """As the table has them."""
        met = "" if self.met is None else "yes" if self.met else "no"
        return (
            self.name,
            self._shown(self.raw),
            self._shown(self.guestwire),
            _times(self.ratio),
            self._proxmox(),
            self.target,
            met,
        )

    def _proxmox(self) -> str:
        if not self.proxmox:
            return ""
        ratio = f", {_times(self.proxmox.ratio)}" if self.proxmox.ratio else ""
        return self._shown(self.proxmox.value) + ratio

    def _shown(self, value: float | None) -> str:
        if value is None:
            return ""
        digits = 0 if self.unit == "/s" or value >= 100 else 1 if value >= 10 else 2
        return f"{value:,.{digits}f} {self.unit}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2g} x" if ratio < 10 else f"{ratio:.0f} x"


def machine_facts(accelerator: str | None) -> dict[str, str]:
    """What the figures depend on; `accelerator` is None where no VM was booted."""
    facts = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "Python": platform.python_version(),
    }
    return facts | ({"VMs": accelerator} if accelerator else {})


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def as_json(facts: dict[str, str], rows: Sequence[Row]) -> str:
    """All of it."""
    results = [{**msgspec.to_builtins(row), "ratio": row.ratio} for row in rows]
    return msgspec.json.format(msgspec.json.encode({"machine": facts, "results": results})).decode()


def as_markdown(facts: dict[str, str], rows: Sequence[Row]) -> str:
    """Tables for a document."""
    lines = [_sentence(facts)]
    for place, found in _by_place(rows):
        lines += ["", f"{_title(place)}:", "", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
        lines += [_line(row.cells()) for row in found]
    return "\n".join(lines)


def show(console: Console, facts: dict[str, str], rows: Sequence[Row]) -> None:
    """Tables for a terminal."""
    for place, found in _by_place(rows):
        table = Table(title=_title(place), title_justify="left")
        for column in COLUMNS:
            table.add_column(column, justify="right" if column in COLUMNS[1:5] else "left")
        for row in found:
            table.add_row(*row.cells(), style="red" if row.met is False else None)
        console.print(table)
    console.print(_sentence(facts), highlight=False)


def _by_place(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for place in (VM, SANDBOX, LIBVIRT, CLIENT_VM, CLIENT, ASSISTANTS, STREAMS, LIVE):
        if found := [row for row in rows if row.place == place]:
            yield place, found


def _sentence(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _title(place: str) -> str:
    return f"In {place}" if place in (VM, SANDBOX) else f"{place[0].upper()}{place[1:]}"
