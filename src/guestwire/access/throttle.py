"""A failed login costs three seconds, and only its caller waits.

Two things keep strangers who try passwords from standing in the way of others:

- The attempts at one name from one network (an address, or the /64 of an IPv6 address) are bounded within those three
  seconds; more are refused without a look at the password. A login that succeeds counts no more. Other names at the
  same network, which may be a proxy for everybody, are not touched.
- Checking a password takes long and is done for few at once. Networks take turns at it, so that the wait of a rightful
  login grows with the number of networks that try, and not with the number of their attempts. A network with too many
  in its queue is refused more.

A failure is answered three seconds after its beginning, or where the check took longer, after the next full three: how
long it took to find out does not tell which names exist.
"""

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from typing import Final

from guestwire.errors import NotAuthenticated
from guestwire.pacing import RateLimiter, network_of

COST: Final = 3.0
"""Seconds."""

PER_NAME: Final = 3
"""Attempts at a name from a network within `COST`."""

QUEUE: Final = 64
"""Attempts of one network that wait for their turn."""

PASSWORDS_AT_ONCE: Final = 1
"""Each takes 19 MiB."""

ACCOUNTS_AT_ONCE: Final = 2

FAILED: Final = "authentication failure"


def remaining(spent: float, cost: float) -> float:
    """Seconds from the end of a failed check to its answer: the rest of a full number of costs, one at least."""
    return max(1, math.ceil(spent / cost)) * cost - spent


class Turns:
    """Turns at work of which little can be done at once, so that no network waits for all attempts of another.

    Args:
        at_once: how many have their turn at the same time.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Stands around one piece of work.

        Raises:
            NotAuthenticated: too many of the address's network wait already.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(network_of(address))
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, network: str) -> None:
        queue = self._queues.setdefault(network, deque())
        if len(queue) >= QUEUE:
            raise NotAuthenticated(FAILED)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # the turn came at the very moment at which the caller left
                self._pass_on()
            elif waiter in queue:
                queue.remove(waiter)
                if not queue:
                    del self._queues[network]
            raise

    def _pass_on(self) -> None:
        """Gives the turn to the network that has waited longest, which stands last then."""
        while self._queues:
            network, queue = self._queues.popitem(last=False)
            waiter = queue.popleft()
            if queue:
                self._queues[network] = queue
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1


class Throttle:
    """One for all logins of a server.

    Attributes:
        passwords: turns at checking a password of realm pve.
        accounts: turns at asking PAM, which takes seconds.

    Args:
        cost: seconds; less in tests.
    """

    def __init__(self, cost: float = COST) -> None:
        self.passwords = Turns(PASSWORDS_AT_ONCE)
        self.accounts = Turns(ACCOUNTS_AT_ONCE)
        self._cost = cost
        self._limit = RateLimiter(PER_NAME, cost)

    @contextlib.asynccontextmanager
    async def attempt(self, address: str, user: str) -> AsyncIterator[None]:
        """Stands around one login; a `NotAuthenticated` from inside comes out when its time has come.

        Raises:
            NotAuthenticated: too many at once.
        """
        key, began = (network_of(address), user), time.monotonic()
        try:
            if self._limit.wait(key, began):
                raise NotAuthenticated(FAILED)  # noqa: TRY301  # answered as late as the others
            self._limit.count(key, began)
            yield
        except NotAuthenticated:
            await asyncio.sleep(remaining(time.monotonic() - began, self._cost))
            raise
        self._limit.forget(key, began)
