"""Who wants to be told of new snapshots, and on which event loop."""

import asyncio
from collections.abc import Callable

from guestwire.stores.snapshot import Snapshot
from guestwire.stores.store import Listener


class Watchers:
    """Tells from any thread; each watcher hears it on the loop it came from."""

    def __init__(self) -> None:
        self._watchers: dict[object, tuple[asyncio.AbstractEventLoop, Listener]] = {}

    def add(self, tell: Listener) -> Callable[[], None]:
        """Adds one; the function that this returns takes it away."""
        ticket = object()
        self._watchers[ticket] = (asyncio.get_running_loop(), tell)

        def stop() -> None:
            self._watchers.pop(ticket, None)

        return stop

    def tell(self, snapshot: Snapshot) -> None:
        """Tells all. A loop that was closed without a word is forgotten."""
        for ticket, (loop, _) in list(self._watchers.items()):
            try:
                loop.call_soon_threadsafe(self._tell_one, ticket, snapshot)
            except RuntimeError:
                self._watchers.pop(ticket, None)

    def _tell_one(self, ticket: object, snapshot: Snapshot) -> None:
        """On the loop: who stopped meanwhile hears nothing."""
        if ticket in self._watchers:
            self._watchers[ticket][1](snapshot)
