"""Connects to a host from code that does not run in an event loop: calls are made in a loop in a thread of its own."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Self, TypeVar

from guestwire.client.connecting import connect
from guestwire.client.hosts import Host
from guestwire.client.parts import GuestInfo
from guestwire.client.sync import SyncGuest
from guestwire.errors import GuestwireError

T = TypeVar("T")


class HostClosed(GuestwireError):
    """The host can't be used (any more): it was closed, belongs to another process, or waits for itself."""


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._closed = threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="guestwire", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; interrupted, it is cancelled first.

        Raises:
            HostClosed: nobody would do the work.
        """
        if why := self._unusable():
            work.close()
            raise HostClosed(why)
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise HostClosed("the host was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def _unusable(self) -> str:
        if self._process != os.getpid():
            return "the host was connected in another process, of which this one is a fork: connect here too"
        if self._closed.locked():
            return "the host is closed: connect again"
        if threading.current_thread() is self._thread:
            return "a call that waits can't be made from within another one, as its progress or its data"
        return ""

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Ends what is under way, then does the last work, and ends the loop and its thread. Once: again it does nothing."""
        try:
            if self._process != os.getpid() or not self._closed.acquire(blocking=False):
                return
            ending = asyncio.run_coroutine_threadsafe(_ended(last), self._loop)
            last = None
            ending.result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        finally:
            if last:
                last.close()


async def _ended(last: Coroutine[Any, Any, None] | None) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if last:
        await last


class SyncHost:
    """A host for code that does not run in an event loop; `with` closes it. Any thread may use it."""

    def __init__(self, loop: _Loop, host: Host) -> None:
        self._loop = loop
        self._host = host

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """How messages name it."""
        return self._host.name

    def close(self) -> None:
        """Ends connections, and calls that are under way in other threads."""
        self._loop.close(self._host.close())

    def guests(self) -> list[GuestInfo]:
        """See `Host.guests`."""
        return self._loop.wait(self._host.guests())

    def guest(self, name: str | int) -> SyncGuest:
        """See `Host.guest`."""
        return SyncGuest(self._loop.wait(self._host.guest(name)), self._loop.wait)

    def version(self) -> dict[str, Any]:
        """See `Host.version`."""
        return self._loop.wait(self._host.version())

    def is_guestwire(self) -> bool:
        """See `Host.is_guestwire`."""
        return self._loop.wait(self._host.is_guestwire())

    def raw(self, method: str, path: str, /, **parameters: Any) -> Any:
        """See `Host.raw`."""
        return self._loop.wait(self._host.raw(method, path, **parameters))


def connect_sync(target: str | None = None, *, profile: str | None = None, **given: str | bool | None) -> SyncHost:
    """As `connect`, for code that does not run in an event loop."""
    loop = _Loop()
    try:
        return SyncHost(loop, loop.wait(connect(target, profile=profile, **given)))
    except BaseException:
        loop.close()
        raise
