"""What a host says of its guests while a test does something to them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from guestwire.client import Host
from guestwire.client.errors import ErrorContext, NoSuchEndpoint
from guestwire.contract.guest_events import Event


async def tells_nothing() -> AsyncGenerator[Event | None, None]:
    """What a host tells of its guests that tells nothing."""
    raise NoSuchEndpoint(ErrorContext("here"), "it tells no events")
    yield


class Happenings:
    """The events since it began."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def add(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    async def wait_for(self, kind: str, *, within: float = 60) -> Event:
        """The first event of a kind; those before it are forgotten."""
        async with asyncio.timeout(within):
            while kind not in self.kinds:
                self._more.clear()
                await self._more.wait()
        position = self.kinds.index(kind)
        found = self.events[position]
        del self.events[: position + 1]
        return found


@contextlib.asynccontextmanager
async def followed(host: Host) -> AsyncIterator[Happenings]:
    """Follows a host; it is heard as soon as this begins."""
    happenings, hears = Happenings(), asyncio.Event()

    async def follow() -> None:
        async with contextlib.aclosing(host.events(on_ready=hears.set)) as events:
            async for event in events:
                happenings.add(event)

    task = asyncio.create_task(follow())
    ready = asyncio.create_task(hears.wait())
    try:
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED, timeout=60)
        assert hears.is_set(), task
        yield happenings
    finally:
        for one in (task, ready):
            one.cancel()
        await asyncio.gather(task, ready, return_exceptions=True)
