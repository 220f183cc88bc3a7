"""A limit for records and lines about strangers: callers without a login must not push others' records out, nor fill the disk.

Each address has a minute's worth; what is beyond it is counted.
"""

from collections import OrderedDict
from typing import Final

from guestwire.pacing import KEYS, RateLimiter, network_of

WINDOW: Final = 60.0
"""Seconds."""

PER_ADDRESS: Final = 30
IN_ALL: Final = 300
"""Records in a window."""

ADDRESSES: Final = KEYS


class StrangerLimiter:
    """One for a server."""

    def __init__(self) -> None:
        self._addresses = RateLimiter(PER_ADDRESS, WINDOW)
        self._all = RateLimiter(IN_ALL, WINDOW)
        self._skipped: OrderedDict[str, int] = OrderedDict()

    def allow(self, address: str, now: float) -> int | None:
        """The number of refusals of this address that were left out since its last record; None: leave this one out, too. `now` in seconds."""
        network = network_of(address)
        if self._addresses.wait(network, now) or self._all.wait("", now):
            self._skipped[network] = self._skipped.pop(network, 0) + 1
            while len(self._skipped) > ADDRESSES:
                self._skipped.popitem(last=False)
            return None
        self._addresses.count(network, now)
        self._all.count("", now)
        return self._skipped.pop(network, 0)

    def take_skipped(self) -> dict[str, int]:
        """How much was left out for each address, which is forgotten with that."""
        skipped, self._skipped = self._skipped, OrderedDict()
        return skipped
