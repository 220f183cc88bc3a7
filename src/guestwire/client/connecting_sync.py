"""Connects to a host from code that does not run in an event loop: calls are made in a loop in a thread of its own."""

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, Final, Generic, Self, TypeVar

from guestwire.client.connecting import connect
from guestwire.client.hosts import Host
from guestwire.client.parts import GuestInfo
from guestwire.client.sync import SyncGuest
from guestwire.errors import GuestwireError

T = TypeVar("T")


CLOSED: Final = "the host is closed: connect again"
WITHIN: Final = "a call that waits can't be made from within another one, as its progress or its data"


class HostClosed(GuestwireError):
    """The host can't be used (any more): it was closed, belongs to another process, or waits for itself."""


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._calls: set[asyncio.Task[Any]] = set()
        self._process = os.getpid()
        self._beginning = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="guestwire", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; interrupted, it is cancelled first.

        Raises:
            HostClosed: nobody would do the work.
        """
        call = self._begun(work)
        try:
            return call.result.result()
        except CancelledError:
            raise HostClosed("the host was closed meanwhile") from None
        except BaseException:
            call.cancel()
            raise

    def _begun(self, work: Coroutine[Any, Any, T]) -> "_Call[T]":
        if not (why := self._unusable()):
            with self._beginning:
                if not self._closed:
                    return _Call(work, self._loop, self._calls)
        work.close()
        raise HostClosed(why or CLOSED)

    def _unusable(self) -> str:
        if self._process != os.getpid():
            return "the host was connected in another process, of which this one is a fork: connect here too"
        if self._closed:
            return CLOSED
        return WITHIN if threading.current_thread() is self._thread else ""

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Ends what is under way, then does the last work, and ends the loop and its thread. Once: again it does nothing.

        Raises:
            HostClosed: a call of this very host would have to wait for it.
        """
        try:
            if threading.current_thread() is self._thread:
                raise HostClosed(WITHIN)
            if self._process != os.getpid() or self._was_closed():
                return
            ending = asyncio.run_coroutine_threadsafe(_ended(self._calls, last), self._loop)
            last = None
            ending.result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        finally:
            if last:
                last.close()

    def _was_closed(self) -> bool:
        """Whether it is closed already. From now on it is, and no call begins any more."""
        with self._beginning:
            before, self._closed = self._closed, True
        return before


class _Call(Generic[T]):
    """A coroutine that another thread waits for. `result` is there when all of it has ended, its cleaning up too."""

    def __init__(
        self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, calls: set[asyncio.Task[Any]]
    ) -> None:
        self.result: Future[T] = Future()
        self._loop = loop
        self._calls = calls
        self._task: asyncio.Task[T] | None = None
        loop.call_soon_threadsafe(self._begin, work)

    def _begin(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(work)
        self._calls.add(self._task)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        self._calls.discard(task)
        if task.cancelled():
            self.result.cancel()
        elif error := task.exception():
            self.result.set_exception(error)
        else:
            self.result.set_result(task.result())

    def cancel(self) -> None:
        """Cancels it, and waits until it has cleaned up; a second Ctrl-C does not wait."""
        if not self.result.done():
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
            with contextlib.suppress(CancelledError):
                self.result.exception()


async def _ended(calls: set[asyncio.Task[Any]], last: Coroutine[Any, Any, None] | None) -> None:
    """Calls are cancelled first, and clean up with the help of all the other tasks."""
    await _cancelled(set(calls))
    if last:
        await last
    await _cancelled(asyncio.all_tasks() - {asyncio.current_task()})


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class SyncHost:
    """A host for code that does not run in an event loop; `with` closes it, and the end of Python. Any thread may use it."""

    def __init__(self, loop: _Loop, host: Host) -> None:
        self._loop = loop
        self._host = host
        atexit.register(self.close)

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
        atexit.unregister(self.close)
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

    def raw(self, method: str, path: str, exactly: Mapping[str, Any] | None = None, /, **parameters: Any) -> Any:
        """See `Host.raw`."""
        return self._loop.wait(self._host.raw(method, path, exactly, **parameters))


def connect_sync(target: str | None = None, *, profile: str | None = None, **given: str | bool | None) -> SyncHost:
    """As `connect`, for code that does not run in an event loop."""
    loop = _Loop()
    try:
        return SyncHost(loop, loop.wait(connect(target, profile=profile, **given)))
    except BaseException:
        loop.close()
        raise
