"""Keeps what is open for a whole module in one task: fixtures begin and end in tasks of their own, and the SDK's client must not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def held(manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """What the manager gives; it is left in the task in which it was entered."""
    opened: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    finish = asyncio.Event()

    async def hold() -> None:
        try:
            async with manager as value:
                opened.set_result(value)
                await finish.wait()
        except Exception as error:
            if opened.done():
                raise
            opened.set_exception(error)

    task = asyncio.create_task(hold(), name="held")
    try:
        yield await opened
    finally:
        finish.set()
        await task
