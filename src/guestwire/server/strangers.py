"""How many records strangers may leave: who has no login must not be able to push the records of those who have out of the trail.

Each address has a minute's worth; what is over is counted, and the count stands in the next record.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 60.0
"""Seconds."""

PER_ADDRESS: Final = 30
IN_ALL: Final = 300
"""Records in a window."""

ADDRESSES: Final = 10_000
"""Remembered at once; the ones that were quiet longest are forgotten first."""

IPV6_PREFIX: Final = 64
"""Bits: one household or machine has as many addresses as it likes below it."""


@dataclass(slots=True)
class _Window:
    began: float
    records: int = 0
    left_out: int = 0


class Strangers:
    """One for a server."""

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, _Window] = OrderedDict()
        self._all = _Window(0.0)

    def admit(self, address: str, now: float) -> int | None:
        """Whether a refusal of a stranger is recorded at `now` (seconds): how many before it were not, or None when it is not either."""
        own = self._window(_network(address), now)
        if now - self._all.began >= WINDOW:
            self._all = _Window(now)
        if own.records >= PER_ADDRESS or self._all.records >= IN_ALL:
            own.left_out += 1
            return None
        own.records += 1
        self._all.records += 1
        left_out, own.left_out = own.left_out, 0
        return left_out

    def _window(self, address: str, now: float) -> _Window:
        found = self._by_address.pop(address, None) or _Window(now)
        if now - found.began >= WINDOW:
            found = _Window(now, left_out=found.left_out)
        self._by_address[address] = found
        while len(self._by_address) > ADDRESSES:
            self._by_address.popitem(last=False)
        return found


def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], IPV6_PREFIX), strict=False))
    except ValueError:
        return address
