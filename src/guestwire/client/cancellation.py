"""Work that is cancelled in order.

Cleaning up, what a thread does, and several jobs at once all come to an end before their caller goes on.

asyncio cancels by an exception at an `await`, which may come at any of them and again while cleaning up. Nothing may
be left behind by it: no task, no open file, no request that arrives in the guest after the file that it writes was
removed.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

LAST_WITHIN: Final = 2.0
"""Seconds that jobs under way have to come to their end, when their results are not wanted any more."""


async def finish_when_cancelled(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which comes to its end also when the caller is cancelled, however often.

    The caller is cancelled then. `work` must have a deadline of its own; an error of it goes before the cancellation,
    for else it was lost.
    """
    return await _complete(asyncio.get_running_loop().create_task(work, name="finish_when_cancelled"))


async def run_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """The result of a function that blocks for a short time, called in a thread.

    The thread has left it when this ends, also by a cancellation.
    """
    return await _complete(asyncio.get_running_loop().run_in_executor(None, function, *arguments))


async def _complete(work: asyncio.Future[T]) -> T:
    cancelled = None
    while not work.done():
        # `wait` leaves `work` alone when it is cancelled itself, unlike `await work`.
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    result = work.result()
    if cancelled:
        raise cancelled
    return result


async def finish_briefly(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; when the caller is cancelled, `work` gets a short time to come to its end."""
    task = asyncio.get_running_loop().create_task(work, name="finish_briefly")
    try:
        return await asyncio.shield(task)
    finally:
        await _end(deque([task]))


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, T]) -> AsyncGenerator[asyncio.Task[T], None]:
    """Does `work` at the same time; at the end it is cancelled, when it still runs."""
    task = asyncio.get_running_loop().create_task(work, name="background")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def map_ordered(jobs: AsyncGenerator[Coroutine[Any, Any, T], None], limit: int) -> AsyncGenerator[T, None]:
    """The results of jobs in their order, `limit` of them under way at once.

    At the end, also a sudden one, none is under way.
    """
    ahead: deque[asyncio.Task[T]] = deque()
    try:
        async with contextlib.aclosing(jobs):
            async for job in jobs:
                ahead.append(asyncio.get_running_loop().create_task(job, name="job"))
                if len(ahead) >= limit:
                    yield await ahead.popleft()
        while ahead:
            yield await ahead.popleft()
    finally:
        await _end(ahead)


async def _end(tasks: deque[asyncio.Task[T]]) -> None:
    """Lets tasks end, then cancels them.

    A request that is broken off may still be carried out, and must not be after what comes next.
    """
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, timeout=LAST_WITHIN)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
