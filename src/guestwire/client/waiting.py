"""What the classes of `sync.py` stand on: they call the client's objects from code that does not run in an event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Waiter(Protocol):
    """Runs a coroutine to its end."""

    def __call__(self, work: Coroutine[Any, Any, R]) -> R:
        """The coroutine's result."""
        ...


class Waiting(Generic[T]):
    """Each method waits for the method of the same name of the object inside."""

    def __init__(self, inner: T, wait: Waiter) -> None:
        self._inner = inner
        self._wait = wait


def iterated(source: AsyncIterator[R], wait: Waiter) -> Iterator[R]:
    """What it gives; each piece is waited for when it is wanted."""
    end: Any = object()

    async def following() -> R:
        return await anext(source, end)

    try:
        while (piece := wait(following())) is not end:
            yield piece
    finally:
        wait(_closed(source))


async def _closed(source: Any) -> None:
    await source.aclose()


@contextlib.contextmanager
def entered(context: contextlib.AbstractAsyncContextManager[T], wait: Waiter, made: Callable[[T], R]) -> Iterator[R]:
    """Enters and leaves it, and passes exceptions on to it."""
    # A stack, for it knows how exceptions are passed on; coroutines, for the one who waits takes nothing else.
    stack = contextlib.AsyncExitStack()
    given = wait(stack.enter_async_context(context))
    try:
        yield made(given)
    except BaseException as error:
        if not wait(stack.__aexit__(type(error), error, error.__traceback__)):
            raise
    else:
        wait(stack.aclose())


def pieces(data: bytes | Iterable[bytes]) -> bytes | AsyncIterator[bytes]:
    """The same for an event loop, which does not wait for whoever makes them."""
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else _pieces(iter(data))


async def _pieces(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, source, None)) is not None:
        yield piece
