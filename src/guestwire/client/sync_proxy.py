"""The client's objects for code without an event loop.

Their calls are made in a loop in a thread of its own, and waited for.

The thread and its loop are anyio's portal. Calls are tasks of asyncio, which are cancelled once, and not of the
portal, whose cancel scopes cancel at every `await` until a task ends: a guest must be thawed, and files in it
removed, by calls that are made after the cancellation.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from functools import partial, update_wrapper, wraps
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from guestwire.client.errors import HostClosed

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

Call = Callable[[], Coroutine[Any, Any, R]]

CLOSED: Final = "the host is closed: connect again"
FORKED: Final = "the host was connected in another process, of which this one is a fork: connect here too"
WITHIN: Final = "a call that waits can't be made from within another one, as its progress or its data"


class _ExitWanted(Exception):
    """A call raised an exception that ends a program: in a task, asyncio would end the loop with it."""

    def __init__(self, cause: KeyboardInterrupt | SystemExit) -> None:
        self.cause = cause
        super().__init__(cause)


class Portal:
    """An event loop in a thread of its own. Any thread may make calls in it."""

    def __init__(self) -> None:
        opened: Future[BlockingPortal] = Future()
        self._thread = threading.Thread(target=_serve, args=(opened,), name="guestwire", daemon=True)
        self._thread.start()
        self._portal = opened.result()
        self._loop = self._portal.call(asyncio.get_running_loop)
        self._process = os.getpid()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting = threading.Lock()
        self._is_closed = False

    def wait(self, call: Call[R]) -> R:
        """The result of a call.

        When the waiting thread is interrupted (Ctrl-C), the call is cancelled, and has cleaned up at the end.

        Raises:
            HostClosed: it can't be made, or the portal was closed meanwhile.
        """
        self._check_thread()
        with self._starting:
            if self._is_closed:
                raise HostClosed(CLOSED)
            started: list[asyncio.Task[Any]] = []
            result = asyncio.run_coroutine_threadsafe(self._run(call, started), self._loop)
        try:
            return result.result()
        except CancelledError:
            raise HostClosed("the host was closed meanwhile") from None
        except _ExitWanted as error:
            raise error.cause from None
        except BaseException:
            # RuntimeError: another thread closes the portal, which cancels the call, too.
            # A second Ctrl-C does not wait.
            with contextlib.suppress(CancelledError, RuntimeError):
                if not result.done():
                    self._portal.call(_cancel, started)
                    result.exception()
            raise

    async def _run(self, call: Call[R], started: list[asyncio.Task[Any]]) -> R:
        task = asyncio.current_task()
        assert task  # noqa: S101  # each call has one
        started.append(task)
        self._tasks.add(task)
        try:
            return await call()
        except (KeyboardInterrupt, SystemExit) as error:
            raise _ExitWanted(error) from error
        finally:
            self._tasks.discard(task)

    def _check_thread(self) -> None:
        if self._process != os.getpid():
            raise HostClosed(FORKED)
        if self._thread is threading.current_thread():
            raise HostClosed(WITHIN)

    def close(self, last: Call[None] | None = None) -> None:
        """Cancels the calls of other threads, then makes the last one, and ends loop and thread.

        Again, or in a fork, it does nothing.

        Raises:
            HostClosed: a call of this portal would have to wait for it.
        """
        if self._process != os.getpid():
            return
        self._check_thread()
        with self._starting:
            was_closed, self._is_closed = self._is_closed, True
        if was_closed:
            return
        try:
            self._portal.call(self._end, last)
        finally:
            self._portal.call(self._portal.stop)
            self._thread.join()

    async def _end(self, last: Call[None] | None) -> None:
        """Calls clean up with the help of all the other tasks, as those that connections have.

        These are cancelled by the end of the loop.
        """
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if last:
            await last()


def _serve(opened: "Future[BlockingPortal]") -> None:
    """Runs a loop with a portal until that is stopped.

    `start_blocking_portal` does the same by a generator, which waits for its thread when it is collected. A process
    that is forked has the generator and not the thread: it would wait for ever at its end.
    """

    async def serve() -> None:
        async with BlockingPortal() as portal:
            opened.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(serve)
    except BaseException as error:
        if opened.done():
            raise
        opened.set_exception(error)  # as when there are too many open files


def _cancel(started: list[asyncio.Task[Any]]) -> None:
    """Cancels a call. This runs in the loop, where what was asked for first has begun first."""
    started[0].cancel()


class SyncProxy(Generic[T]):
    """Stands for an object of the client: its methods wait for those of the same name of that object."""

    def __init__(self, inner: T, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal


def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    """A method of a proxy that waits for the result of `method`."""

    @wraps(method)
    def call(self: SyncProxy[Any], /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self._portal.wait(lambda: getattr(self._inner, method.__name__)(*args, **kwargs))
        return result

    return call


def iterating(method: Callable[Concatenate[Any, P], AsyncIterator[R]]) -> Callable[Concatenate[Any, P], Iterator[R]]:
    """A method of a proxy that gives what `method` gives; each item is waited for when it is wanted."""

    @wraps(method)
    def call(self: SyncProxy[Any], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        source: Any = getattr(self._inner, method.__name__)(*args, **kwargs)
        end: Any = object()

        async def next_item() -> R:
            return await anext(source, end)

        async def close() -> None:
            await source.aclose()

        try:
            while (item := self._portal.wait(next_item)) is not end:
                yield item
        finally:
            self._portal.wait(close)

    return call


def entering(
    method: Callable[Concatenate[Any, P], contextlib.AbstractAsyncContextManager[R]], wrap: Callable[[R, Portal], S]
) -> Callable[Concatenate[Any, P], contextlib.AbstractContextManager[S]]:
    """A method of a proxy that enters and leaves the context of `method`; exceptions are passed on to it.

    `wrap` makes what `as` gives.
    """

    @contextlib.contextmanager
    def call(self: SyncProxy[Any], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[S]:
        context = getattr(self._inner, method.__name__)(*args, **kwargs)
        # The portal's own `wrap_async_context_manager` neither cancels nor waits when Ctrl-C comes while it enters.
        stack = contextlib.AsyncExitStack()
        entered: R = self._portal.wait(lambda: stack.enter_async_context(context))
        try:
            yield wrap(entered, self._portal)
        except BaseException as error:
            if not self._portal.wait(partial(stack.__aexit__, type(error), error, error.__traceback__)):
                raise
        else:
            self._portal.wait(stack.aclose)

    update_wrapper(call, method)
    return call
