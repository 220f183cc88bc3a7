"""Bytes that wait for their reader, and never more than a bound."""

import asyncio
from typing import Final

from guestwire.streams.remote_process import MOST_AT_ONCE

BOUND: Final = 256 * 1024


class OutputBuffer:
    """One writer, one reader."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._is_over = False
        self._error: Exception | None = None
        self._changed = asyncio.Condition()

    @property
    def is_full(self) -> bool:
        """True if what comes next waits for the reader."""
        return len(self._data) >= BOUND and not self._is_over

    async def put(self, data: bytes) -> None:
        """Adds bytes; waits before it while as many wait as may."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.is_full)
            if not self._is_over:
                self._data += data
                self._changed.notify_all()

    async def end(self, error: Exception | None = None) -> None:
        """No more comes: because it ended, or with the error that the reader gets behind what waits."""
        async with self._changed:
            if not self._is_over:
                self._is_over, self._error = True, error
                self._changed.notify_all()

    async def get(self) -> bytes:
        """What waits, as soon as there is something; `b""` at the end.

        Raises:
            Exception: the writer's.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._data or self._is_over)
            data = bytes(self._data[:MOST_AT_ONCE])
            del self._data[: len(data)]
            self._changed.notify_all()
            if not data and self._error:
                raise self._error
            return data
