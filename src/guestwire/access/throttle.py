"""A failed login costs three seconds, and only its caller waits.

The attempts within that time are bounded for each pair of address and user, and for each address; more are refused
without a look at the password, so that trying passwords gains nothing, and no caller at another address is kept out. A
login that succeeds counts no more.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from guestwire.errors import NotAuthenticated
from guestwire.pacing import RateLimiter

COST: Final = 3.0
"""Seconds."""

PER_USER: Final = 3
PER_ADDRESS: Final = 30

FAILED: Final = "authentication failure"


class Throttle:
    """One for all logins of a server.

    Args:
        cost: seconds; less in tests.
    """

    def __init__(self, cost: float = COST) -> None:
        self._cost = cost
        self._limits = RateLimiter(PER_USER, cost), RateLimiter(PER_ADDRESS, cost)

    @contextlib.asynccontextmanager
    async def attempt(self, address: str, user: str) -> AsyncIterator[None]:
        """Stands around one login; a `NotAuthenticated` from inside comes out three seconds later.

        Raises:
            NotAuthenticated: too many at once.
        """
        keys, now = ((address, user), address), time.monotonic()
        limits = list(zip(self._limits, keys, strict=True))
        if any(limit.wait(key, now) for limit, key in limits):
            await asyncio.sleep(self._cost)
            raise NotAuthenticated(FAILED)
        for limit, key in limits:
            limit.count(key, now)
        try:
            yield
        except NotAuthenticated:
            await asyncio.sleep(self._cost)
            raise
        for limit, key in limits:
            limit.forget(key, now)
