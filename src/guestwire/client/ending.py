"""What has to come to its end, whoever is cancelled meanwhile: cleaning up, and what a thread does."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def surely(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which comes to its end also when whoever waits is cancelled, as often as that may be; they are told then.

    It must have a deadline of its own. What it fails with goes before a cancellation: nobody would hear of it any more.
    """
    return await _to_its_end(asyncio.get_running_loop().create_task(work, name="to its end"))


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """What a function gives that may block, called in a thread; when this ends, also by a cancellation, nobody is in the function any more.

    It must not block for long.
    """
    return await _to_its_end(asyncio.get_running_loop().run_in_executor(None, function, *arguments))


async def _to_its_end(work: asyncio.Future[T]) -> T:
    cancelled = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    result = work.result()
    if cancelled:
        raise cancelled
    return result
