"""Lines of the log about strangers: the first of an address stand there one by one, the rest is counted and summed up in one line.

So nobody without a login can fill a disk with a log, and what one does can still be seen.
"""

import asyncio
import logging
import time
from typing import Final

from guestwire.dispatch.stranger_limiter import WINDOW, StrangerLimiter

log = logging.getLogger("guestwire.requests")

SUMMARY: Final = "%d more connections and requests without a login, from %s%s"

NAMED: Final = 10
"""Addresses in the line that sums up; the others are counted."""


class RefusalLog:
    """One for a server."""

    def __init__(self) -> None:
        self._limiter = StrangerLimiter()
        self._timer: asyncio.TimerHandle | None = None

    def allow(self, address: str) -> bool:
        """True if a line about this stranger may be written; else it is counted."""
        more = self._limiter.allow(address, time.monotonic())
        if more is not None:
            if more:
                log.warning(SUMMARY, more, address, "")
            return True
        if not self._timer:
            self._timer = asyncio.get_running_loop().call_later(WINDOW, self.sum_up)
        return False

    def sum_up(self) -> None:
        """Writes the line about all that was counted; the end of a minute and of the server does that."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        skipped = sorted(self._limiter.take_skipped().items(), key=lambda item: -item[1])
        if not skipped:
            return
        named = ", ".join(f"{address} ({count})" for address, count in skipped[:NAMED])
        others = f" and {len(skipped) - NAMED} other addresses" if len(skipped) > NAMED else ""
        total = sum(count for _, count in skipped)
        log.warning(SUMMARY, total, named, others)
