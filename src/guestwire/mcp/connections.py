"""Connections of MCP over HTTP: bounded in number, for an address and in all, and in the time that they say nothing.

uvicorn ends a connection that says nothing after an answer; one that never asks, or whose head never ends, it keeps.
"""

import asyncio
import logging
import time
from typing import ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from guestwire.pacing import network_of

log = logging.getLogger("guestwire.mcp")

MOST_CONNECTIONS: Final = 2000
"""Where there are descriptors for them."""

PER_ADDRESS: Final = 4
"""One in so many is for an address; IPv6: for a /64."""

BACKLOG: Final = 100
"""asyncio accepts so many in one turn of the loop; what is refused gives its descriptor back in the next."""

RESERVED: Final = 128
"""Descriptors for connections to hosts, for files and for the loop's own."""

REQUEST_WITHIN: Final = 15.0
"""Seconds for a request's head; a connection without one is ended after twice that at most."""

WARN_EVERY: Final = 60.0


def most_connections(open_files: int) -> int:
    """How many connections a limit of open files leaves room for."""
    return max(PER_ADDRESS, min(MOST_CONNECTIONS, open_files - BACKLOG - RESERVED))


class BoundedProtocol(H11Protocol):
    """One connection, as uvicorn serves it, within bounds.

    Attributes:
        most: connections that there may be.
    """

    most: ClassVar[int] = MOST_CONNECTIONS
    _warned_at = -WARN_EVERY
    _idle_since: tuple[RequestResponseCycle | None] | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Ends it at once when there are too many."""
        super().connection_made(transport)
        network = self.network
        ours = sum(1 for other in self.connections if isinstance(other, BoundedProtocol) and other.network == network)
        if len(self.connections) > self.most or ours > max(1, self.most // PER_ADDRESS):
            self._warn(network)
            # At once, and not when it is lost: of others that come in the same turn of the loop it takes no place.
            self.connections.discard(self)
            transport.abort()
            return
        self._timer = self.loop.call_later(REQUEST_WITHIN, self._end_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left of it."""
        super().connection_lost(exc)
        if self._timer:
            self._timer.cancel()

    @property
    def network(self) -> str:
        """What limits count it as."""
        return network_of(self.client[0]) if self.client else ""

    def _end_if_idle(self) -> None:
        """Ends it when there was no new request since it was last looked at, and none is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says that there always is one
        is_busy = cycle is not None and not cycle.response_complete
        if not is_busy and self._idle_since == (cycle,):
            self.transport.abort()
            return
        self._idle_since = None if is_busy else (cycle,)
        self._timer = self.loop.call_later(REQUEST_WITHIN, self._end_if_idle)

    @classmethod
    def _warn(cls, network: str) -> None:
        now = time.monotonic()
        if now - cls._warned_at > WARN_EVERY:
            cls._warned_at = now
            log.warning("too many connections are open: more are refused, as one of %s", network)
