"""The text of all guests' series, in Prometheus' own form and that of OpenMetrics.

Each guest's lines are made when it is polled; a scrape joins them. That costs a seventieth of what making them anew does.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from guestwire.metrics.families import FAMILIES, POSITIONS, PREFIX
from guestwire.metrics.polling import Labels

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_special = re.compile(r'[\\\n"]')
_ESCAPES: Final = {"\\": r"\\", "\n": r"\n", '"': r"\""}


@dataclass(frozen=True, slots=True)
class Page:
    """What is served: the text in parts, and its type."""

    parts: list[bytes]
    type: str


class _Lines(NamedTuple):
    """Of one guest: what names it in each line, and the lines by the positions of their families."""

    of_guest: str
    families: dict[int, bytes]


class Exposition:
    """The lines of all guests."""

    def __init__(self) -> None:
        self._guests: dict[int, _Lines] = {}

    @property
    def vmids(self) -> Iterable[int]:
        """The guests that have series."""
        return self._guests.keys()

    def put(
        self,
        vmid: int,
        name: str,
        node: str,
        series: Mapping[str, Iterable[tuple[Labels, float]]],
        *,
        keeps: bool = False,
    ) -> bool:
        """Makes these the series of a guest.

        Args:
            vmid: of its VM.
            name: of its VM.
            node: where it is.
            series: by the names of their families.
            keeps: series of other families stay as they were.

        Returns:
            False when they could not stay: the VM has another name now.
        """
        # Only lines are kept, and nothing that they were made of: what 1,000 guests said, in small objects, makes each
        # of Python's searches for garbage a pause of a tenth of a second.
        of_guest = f'id="qemu/{vmid}",name="{escape(name)}",node="{escape(node)}"'
        before = self._guests.get(vmid) if keeps else None
        families = before.families if before and before.of_guest == of_guest else {}
        for family, values in series.items():
            families[POSITIONS[family]] = _lines(PREFIX + family, of_guest, values)
        self._guests[vmid] = _Lines(of_guest, families)
        return before is None or before.of_guest == of_guest

    def forget(self, vmid: int) -> None:
        """A guest is not polled any more."""
        self._guests.pop(vmid, None)

    async def page(self, vmids: Iterable[int], *, is_open: bool) -> Page:
        """The series of these guests; `is_open`: in OpenMetrics' form. The loop runs while it is made."""
        guests = [found.families for vmid in vmids if (found := self._guests.get(vmid))]
        parts: list[bytes] = []
        for position, family in enumerate(FAMILIES):
            lines = [some for guest in guests if (some := guest.get(position))]
            if lines:
                # OpenMetrics names a counter without the end that its samples have.
                name = family.name.removesuffix("_total") if is_open else family.name
                head = f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n".encode()
                parts.append(b"".join([head, *lines]))
            await asyncio.sleep(0)
        if is_open:
            parts.append(b"# EOF\n")
        return Page(parts, OPENMETRICS if is_open else PROMETHEUS)


def _lines(name: str, of_guest: str, values: Iterable[tuple[Labels, float]]) -> bytes:
    lines = []
    for labels, value in values:
        more = "".join(f',{label}="{escape(text)}"' for label, text in labels)
        lines.append(f"{name}{{{of_guest}{more}}} {_number(value)}\n")
    return "".join(lines).encode("utf-8", "replace")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def escape(text: str) -> str:
    """A label's value as both forms have it."""
    return _special.sub(lambda found: _ESCAPES[found[0]], text)
