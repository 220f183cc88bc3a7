"""A failed login costs three seconds, and only whoever failed waits.

How many may fail at the same time is bounded for each pair of address and user, and for each address; more are refused without a look at the
password, so that trying passwords gains nothing, and nobody at another address is kept out.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from guestwire.errors import NotAuthenticated

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
        self._trying: Counter[tuple[str, str]] = Counter()

    @contextlib.asynccontextmanager
    async def attempt(self, address: str, user: str) -> AsyncIterator[None]:
        """Stands around one login; a `NotAuthenticated` from inside comes out three seconds later.

        Raises:
            NotAuthenticated: too many at once.
        """
        places = ((address, user), (address, ""))
        limits = (PER_USER, PER_ADDRESS)
        full = any(self._trying[place] >= limit for place, limit in zip(places, limits, strict=True))
        if full:
            await asyncio.sleep(self._cost)
            raise NotAuthenticated(FAILED)
        self._trying.update(places)
        try:
            yield
        except NotAuthenticated:
            await asyncio.sleep(self._cost)
            raise
        finally:
            self._leave(places)

    def _leave(self, places: tuple[tuple[str, str], ...]) -> None:
        for place in places:
            self._trying[place] -= 1
            if not self._trying[place]:
                del self._trying[place]
