"""A file in a guest as a stream.

It is read in chunks from any place, or written in chunks, and there when it is whole.
"""

import asyncio
import contextlib
import io
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Literal, get_args

from guestwire.agent.systems import system_of
from guestwire.client.cancellation import finish_when_cancelled
from guestwire.client.errors import CallFailed
from guestwire.client.processes import Processes
from guestwire.client.transfer.files import Files

Mode = Literal["rb", "wb", "ab"]

SEND_AT: Final = 256 * 1024
"""Bytes that wait in a stream that is written before they are sent."""

CHUNKS_AHEAD: Final = 2
"""Such chunks that may be under way at once."""


class Stream:
    """An open file; `path` and `mode` are what it was opened with.

    What its mode does not allow is an `io.UnsupportedOperation`.
    """

    def __init__(self, path: str, mode: Mode) -> None:
        self.path = path
        self.mode = mode
        self._at = 0

    async def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only where the file ends; without a size, all that is left.

        Raises:
            CallFailed: see `client.errors`.
        """
        raise self._unsupported_operation("read", size)

    async def write(self, data: bytes) -> int:
        """Adds to the file; returns how many bytes. They are sent when enough wait.

        Raises:
            CallFailed: see `client.errors`; also of what was written before.
        """
        raise self._unsupported_operation("written", data)

    async def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to another place to read from, as `io.IOBase.seek` does; returns it.

        Raises:
            CallFailed: the end (`os.SEEK_END`) is asked for from a process in the guest; see `client.errors`.
        """
        raise self._unsupported_operation("sought in", (offset, whence))

    def tell(self) -> int:
        """The place to read from; when written, how many bytes were."""
        return self._at

    def __aiter__(self) -> AsyncIterator[bytes]:
        """All that is left, in chunks as they come; not lines."""
        return self._chunks_left()

    async def _chunks_left(self) -> AsyncIterator[bytes]:
        while chunk := await self._chunk():
            yield chunk

    async def _chunk(self) -> bytes:
        raise self._unsupported_operation("read", ())

    def _unsupported_operation(self, what: str, _: object) -> io.UnsupportedOperation:
        return io.UnsupportedOperation(f"{self.path}: it is open as '{self.mode}' and can't be {what}")


class Reader(Stream):
    """Open for reading; asks for what comes next when it is wanted.

    At the end, more may come later: the file may grow.
    """

    def __init__(self, path: str, files: Files, processes: Processes) -> None:
        super().__init__(path, "rb")
        self._files = files
        self._run = processes.run
        self._source: AsyncGenerator[bytes, None] | None = None
        self._buffer = memoryview(b"")

    async def begin(self) -> None:
        """Reads the first chunk: a file that is not there is an error now."""
        self._buffer = memoryview(await self._next())

    async def read(self, size: int = -1) -> bytes:
        """See `Stream.read`."""
        found: list[bytes] = []
        left = size
        while left and (chunk := await self._chunk(left)):
            found.append(chunk)
            left -= len(chunk) if size > 0 else 0
        return b"".join(found)

    async def _chunk(self, most: int = -1) -> bytes:
        waiting = self._buffer or memoryview(await self._next())
        size = len(waiting) if most < 0 else min(most, len(waiting))
        self._buffer = waiting[size:]
        self._at += size
        return bytes(waiting[:size])

    async def _next(self) -> bytes:
        if self._source is None:
            self._source = self._files.stream(self.path, offset=self._at)
        chunk = await anext(self._source, b"")
        if not chunk:
            await self.close()
        return chunk

    async def seek(self, offset: int, whence: int = 0) -> int:
        """See `Stream.seek`."""
        place = offset + (0 if whence == os.SEEK_SET else self._at if whence == os.SEEK_CUR else await self._size())
        if place < 0:
            raise ValueError(f"{self.path}: {place} is before its beginning")
        if not 0 <= (ahead := place - self._at) <= len(self._buffer):
            await self.close()
        self._buffer = self._buffer[ahead:] if self._source else memoryview(b"")
        self._at = place
        return place

    async def _size(self) -> int:
        return int((await self._run(system_of(self.path).size(self.path), check=True)).output)

    async def close(self) -> None:
        """Drops what was read ahead."""
        source, self._source, self._buffer = self._source, None, memoryview(b"")
        if source:
            await source.aclose()


class Writer(Stream):
    """Open for writing; its task is the copy into the guest."""

    def __init__(self, path: str, mode: Mode, files: Files, target: str, permissions: int | None) -> None:
        super().__init__(path, mode)
        self._buffer = bytearray()
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(CHUNKS_AHEAD)
        self._copy = asyncio.create_task(
            files.write(target, self._chunks(), mode=permissions), name=f"write {target!r}"
        )

    async def write(self, data: bytes) -> int:
        """See `Stream.write`."""
        self._buffer += data
        self._at += len(data)
        if len(self._buffer) >= SEND_AT:
            await self._send()
        return len(data)

    async def finish(self) -> None:
        """Waits until all is in the guest, under its name."""
        if self._buffer:
            await self._send()
        await self._put(b"")
        await self._copy

    async def drop(self) -> None:
        """Leaves the old file as it was."""
        self._copy.cancel()
        await asyncio.gather(self._copy, return_exceptions=True)

    async def _send(self) -> None:
        await self._put(bytes(self._buffer))
        self._buffer.clear()

    async def _put(self, chunk: bytes) -> None:
        """Waits for a place in the queue, or for the copy's error."""
        putting = asyncio.create_task(self._queue.put(chunk), name="put")
        try:
            await asyncio.wait({putting, self._copy}, return_when=asyncio.FIRST_COMPLETED)
            if not putting.done():
                await self._copy
        finally:
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self._queue.get():
            yield chunk


@contextlib.asynccontextmanager
async def open_stream(
    path: str, mode: Mode, files: Files, processes: Processes, *, permissions: int | None = None
) -> AsyncIterator[Stream]:
    """See `Guest.open`."""
    if mode not in get_args(Mode):
        raise ValueError(f"'{mode}': a file in a guest is opened as one of {', '.join(get_args(Mode))}")
    if mode == "rb":
        reader = Reader(path, files, processes)
        try:
            await reader.begin()
            yield reader
        finally:
            await reader.close()
        return
    part = path if mode == "wb" else system_of(path).beside(path, f".guestwire-{uuid.uuid4().hex}")
    writer = Writer(path, mode, files, part, permissions)
    try:
        yield writer
        await writer.finish()
    except BaseException:
        await finish_when_cancelled(writer.drop())
        raise
    if mode == "ab":
        try:
            await processes.run(system_of(path).concat(part, path), check=True)
        except BaseException:
            with contextlib.suppress(CallFailed):
                await finish_when_cancelled(files.remove(part))
            raise
