"""Pacing: pauses that grow, and limits for how often something may happen. Pure: time is passed in."""

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final

KEYS: Final = 10_000
"""Keys that a limiter remembers at once; the ones that were quiet longest are forgotten first."""

IPV6_PREFIX: Final = 64
"""Bits: one household or machine has as many addresses as it likes below it."""


def network_of(address: str) -> str:
    """What an address is counted by: itself, or the network that an IPv6 address is in."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found.packed, IPV6_PREFIX), strict=False))


class Backoff:
    """Pauses in seconds that grow by a factor up to the longest one.

    Args:
        first: the first pause.
        longest: no pause is longer.
        factor: of a pause to the one before.
    """

    def __init__(self, first: float, longest: float, factor: float = 2.0) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self._pause = first

    def next(self) -> float:
        """The next pause."""
        pause, self._pause = self._pause, min(self._pause * self._factor, self._longest)
        return pause

    def reset(self) -> None:
        """Begins again with the first pause."""
        self._pause = self._first


class RateLimiter:
    """At most `limit` events of a key within any `window` seconds.

    Args:
        limit: events.
        window: seconds.
        keys: that are remembered at most.
    """

    def __init__(self, limit: int, window: float, keys: int = KEYS) -> None:
        self._limit = limit
        self._window = window
        self._keys = keys
        self._events: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def wait(self, key: Hashable, now: float) -> float:
        """Seconds until the next event of the key is allowed; 0.0 when it is allowed now."""
        events = self._events.get(key)
        while events and events[0] <= now - self._window:
            events.popleft()
        if not events or len(events) < self._limit:
            return 0.0
        return events[0] + self._window - now

    def count(self, key: Hashable, now: float) -> None:
        """Counts an event."""
        events = self._events.setdefault(key, deque())
        self._events.move_to_end(key)
        events.append(now)
        while len(self._events) > self._keys:
            self._events.popitem(last=False)

    def forget(self, key: Hashable, when: float) -> None:
        """Takes an event back that was counted at this time."""
        events = self._events.get(key, deque())
        if when in events:
            events.remove(when)
        if not events:
            self._events.pop(key, None)
