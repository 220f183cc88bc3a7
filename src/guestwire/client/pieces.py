"""Bytes in pieces, several of them under way at once."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

LAST_WITHIN: Final = 2.0
"""Seconds that what is under way has to come to its end, when nobody wants the rest any more."""


async def in_flight(jobs: AsyncGenerator[Coroutine[Any, Any, T], None], limit: int) -> AsyncGenerator[T, None]:
    """The results of `jobs` in their order, `limit` of them under way at once. At the end, also the sudden one, nothing is under way."""
    ahead: deque[asyncio.Task[T]] = deque()
    try:
        async with contextlib.aclosing(jobs):
            async for job in jobs:
                ahead.append(asyncio.get_running_loop().create_task(job, name="piece"))
                if len(ahead) >= limit:
                    yield await ahead.popleft()
        while ahead:
            yield await ahead.popleft()
    finally:
        await _end(ahead)


async def _end(tasks: deque[asyncio.Task[T]]) -> None:
    """A piece that is broken off may still be written: whoever removes its file should come after it."""
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, timeout=LAST_WITHIN)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ended(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which also comes to its end when nobody wants it any more."""
    task = asyncio.get_running_loop().create_task(work, name="to its end")
    try:
        return await asyncio.shield(task)
    finally:
        await _end(deque([task]))


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, T]) -> AsyncGenerator[asyncio.Task[T], None]:
    """Does `work` at the same time; it is broken off when nobody has waited for it at the end."""
    task = asyncio.get_running_loop().create_task(work, name="beside")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def pieces_of(data: bytes | AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Data as pieces."""
    if isinstance(data, bytes):
        yield data
        return
    async for piece in data:
        yield piece


async def resized(pieces: AsyncGenerator[bytes, None], size: int) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces of this size; the last may be shorter."""
    waiting = bytearray()
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            waiting += piece
            while len(waiting) >= size:
                yield bytes(waiting[:size])
                del waiting[:size]
    if waiting:
        yield bytes(waiting)


def is_hole(piece: bytes) -> bool:
    """Whether a piece is zeros alone."""
    return not piece[:1].strip(b"\0") and piece.count(0) == len(piece)
