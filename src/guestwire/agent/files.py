"""Files in a guest, by handle.

A handle that was opened is always closed: on errors, when the caller goes away, when the answer to the open comes late,
and when the agent was silent at the time and comes back. Agents never give a handle's number twice, also not after a
restart, so closing late does no harm.
"""

import asyncio
import binascii
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from guestwire.agent.agent_client import AgentClient
from guestwire.agent.commands import FILE_CLOSE, FILE_FLUSH, FILE_OPEN, FILE_READ, FILE_SEEK, FILE_WRITE, TypedCommand
from guestwire.agent.results import FilePiece
from guestwire.channels.channel import ChannelState
from guestwire.counting import counted
from guestwire.errors import AgentError, CommandFailed, GuestError
from guestwire.wire import Reply

PIECE: Final = 272 * 1024
"""Bytes of one guest-file-read: 64 KiB to 1 MiB are fastest, and small pieces let other calls through. It is a little more than
the 264 KiB from which on memory goes back to the system at once (`app/prepare.py`)."""

WRITTEN_AT_ONCE: Final = 64 * 1024
"""Bytes of one guest-file-write through a channel that limits commands."""

AHEAD: Final = 2
"""Reads ahead of their answers: the agent works while we decode."""

CLOSE_LATER_ATTEMPTS: Final = 3000
CLOSE_LATER_EVERY: Final = 0.2


@dataclass(frozen=True, slots=True)
class Contents:
    """Bytes of a file in the pieces they came in; `truncated` when the end was not seen."""

    pieces: list[bytes]
    truncated: bool

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(map(len, self.pieces))


class Files:
    """Reads and writes one guest's files."""

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent
        self._most_written = WRITTEN_AT_ONCE if agent.channel.limits.command else None

    async def read(self, path: str, *, offset: int = 0, count: int) -> Contents:
        """At most `count` bytes of the file `path`, from `offset` on.

        Raises:
            AgentError: the guest's own reason (no such file, is a directory, …).
            GuestError: see `Channel.execute`.
        """
        async with self._open(path, "r") as handle:
            if offset:
                await self._seek(handle, offset, or_at=0)  # a device without places, as /dev/zero, says 0
            return await self._read(handle, count)

    async def write(self, path: str, content: bytes) -> None:
        """Makes `content` the whole file `path`; all of it is written, or it is an error.

        Raises:
            GuestError: as for `read`.
        """
        async with self._open(path, "wb") as handle:
            await self._write_all(handle, path, content)

    async def append(self, path: str, content: bytes) -> None:
        """Adds `content` to the end of the file `path`, which is made where there is none; nothing of it stays with the agent.

        Raises:
            GuestError: as for `read`; after an error a part of it may have been added.
        """
        async with self._open(path, "ab") as handle:
            await self._write_all(handle, path, content)
            await self._agent.execute(FILE_FLUSH, {"handle": handle})

    async def write_piece(self, path: str, content: str, size: int, *, at: int) -> None:
        """Writes a piece at its place in the file `path`, which must be there; it may be written twice, and pieces in any order.

        Args:
            path: the file.
            content: the piece in base64; it is handed to the agent as it is.
            size: bytes that `content` stands for.
            at: where it begins.

        Raises:
            AgentError: not all of it was taken, or the guest's own reason.
            GuestError: as for `read`.
        """
        async with self._open(path, "r+b") as handle:
            await self._seek(handle, at, or_at=at)
            await self._write_text(handle, path, content, lambda: size)

    async def write_encoded(self, path: str, content: str) -> None:
        """Makes what base64 stands for the whole file `path`; the agent takes it leniently, as behind Proxmox VE.

        Raises:
            GuestError: as for `read`.
        """
        async with self._open(path, "wb") as handle:
            await self._write_text(handle, path, content, lambda: decoded_size(content))

    async def open(self, path: str, mode: str) -> "OpenFile":
        """A file whose handle stays open until it is closed; `mode` as C has it. A FIFO is opened at once with `r+`.

        Raises:
            GuestError: as for `read`.
        """
        handle = await self._agent.execute(FILE_OPEN, {"path": path, "mode": mode}, on_late_reply=self._close_late)
        return OpenFile(self, handle)

    async def read_open(self, handle: int, offset: int, count: int) -> bytes:
        """See `OpenFile.read`; the two commands are sent at once."""
        _, piece = await asyncio.gather(self._seek(handle, offset, or_at=offset), self._read_piece(handle, count))
        return piece.data

    async def write_open(self, handle: int, data: bytes) -> None:
        """See `OpenFile.write`."""
        written, _ = await asyncio.gather(
            self._agent.execute(FILE_WRITE, {"handle": handle, "buf-b64": data}),
            self._agent.execute(FILE_FLUSH, {"handle": handle}),
        )
        if written.count != len(data):
            raise AgentError("GenericError", f"the guest took {counted(written.count, 'byte')} of {len(data)}")

    def close_soon(self, handle: int) -> None:
        """See `OpenFile.close`."""
        self._agent.spawn_release(self._close_eventually(handle))

    async def _seek(self, handle: int, offset: int, *, or_at: int) -> None:
        found = await self._agent.execute(FILE_SEEK, {"handle": handle, "offset": offset, "whence": 0})
        if found.position not in (offset, or_at):
            raise self._wrong(FILE_SEEK, f"position {found.position} where {offset} was asked for")

    async def _write_text(self, handle: int, path: str, content: str, measure: Callable[[], int]) -> None:
        """Hands base64 to the agent as it is, and what it did not take of it once more.

        What the content stands for is measured when the agent has taken it: refusing it is the agent's part. What the
        channel does not carry at once is decoded here.
        """
        if self._most_written and len(content) * 3 // 4 > self._most_written:
            try:
                decoded = _decode(content)
            except binascii.Error as error:
                raise AgentError("GenericError", f"Base64 data could not be decoded: {error}") from error
            await self._write_all(handle, path, decoded)
            return
        written = await self._agent.execute(FILE_WRITE, {"handle": handle, "buf-b64": content})
        try:
            size = measure()
        except binascii.Error:
            raise self._wrong(FILE_WRITE, "the guest took what is no base64") from None
        if not 0 <= written.count <= size:
            raise self._wrong(FILE_WRITE, f"{counted(written.count, 'byte')} written of {size}")
        if written.count < size:
            await self._write_all(handle, path, decode_leniently(content)[written.count :])

    async def _write_all(self, handle: int, path: str, content: bytes) -> None:
        rest = memoryview(content)
        while True:
            piece = bytes(rest[: self._most_written])
            written = await self._agent.execute(FILE_WRITE, {"handle": handle, "buf-b64": piece})
            if not 0 <= written.count <= len(piece):
                raise self._wrong(FILE_WRITE, f"{counted(written.count, 'byte')} written of {len(piece)}")
            rest = rest[written.count :]
            if not rest:
                return
            if written.count < 1:
                raise AgentError(
                    "GenericError",
                    f"the guest took no more, {counted(len(rest), 'byte is', 'bytes are')} missing in '{path}'",
                )

    async def _read(self, handle: int, count: int) -> Contents:
        pieces: list[bytes] = []
        while left := count - sum(map(len, pieces)):
            before = len(pieces)
            async with contextlib.aclosing(self._pieces(handle, left)) as answers:
                async for piece in answers:
                    pieces.append(piece.data)
                    if piece.eof:
                        return Contents(pieces, truncated=False)
            if not any(pieces[before:]):
                break
        return Contents(pieces, truncated=True)

    async def _pieces(self, handle: int, count: int) -> AsyncGenerator[FilePiece, None]:
        """The answers to reads of `count` bytes in all, some of them sent ahead."""
        sizes = deque(min(PIECE, count - start) for start in range(0, count, PIECE))
        ahead: deque[asyncio.Task[FilePiece]] = deque()
        try:
            while sizes or ahead:
                while sizes and len(ahead) < AHEAD:
                    ahead.append(self._agent.spawn(self._read_piece(handle, sizes.popleft())))
                yield await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _read_piece(self, handle: int, size: int) -> FilePiece:
        piece = await self._agent.execute(FILE_READ, {"handle": handle, "count": size})
        if len(piece.data) > size:
            raise self._wrong(
                FILE_READ, f"{counted(len(piece.data), 'byte')} where {counted(size, 'was', 'were')} asked for"
            )
        if piece.count != len(piece.data):
            raise self._wrong(FILE_READ, f"{counted(len(piece.data), 'byte')}, and its count is {piece.count}")
        return piece

    def _wrong(self, command: TypedCommand[Any], what: str) -> CommandFailed:
        """The error for an agent that says what can't be: nothing that it says of this file is relied on."""
        return CommandFailed(self._agent.guest, command.command.name, what)

    @contextlib.asynccontextmanager
    async def _open(self, path: str, mode: str) -> AsyncIterator[int]:
        handle = await self._agent.execute(FILE_OPEN, {"path": path, "mode": mode}, on_late_reply=self._close_late)
        try:
            yield handle
        except BaseException:
            self.close_soon(handle)
            raise
        await self._close(handle)

    async def _close(self, handle: int) -> None:
        """Closes at the end of good work; an error here (a full disk shows itself now) is the caller's."""
        try:
            await self._agent.execute(FILE_CLOSE, {"handle": handle})
        except AgentError:
            raise
        except BaseException:
            self.close_soon(handle)
            raise

    def _close_late(self, reply: Reply) -> None:
        """Closes the handle in the answer to an open whose caller has gone away."""
        if reply.value is not msgspec.UNSET:
            with contextlib.suppress(msgspec.DecodeError):
                self.close_soon(msgspec.json.decode(reply.value, type=int))

    async def _close_eventually(self, handle: int) -> None:
        """Tries until the agent has answered, for ten minutes and more; once where all is being closed."""
        for _ in range(CLOSE_LATER_ATTEMPTS):
            if await self._try_to_close(handle) or self._agent.is_closed:
                return
            await asyncio.sleep(CLOSE_LATER_EVERY)

    async def _try_to_close(self, handle: int) -> bool:
        if self._agent.channel.state is not ChannelState.UP:
            return False
        try:
            await self._agent.execute(FILE_CLOSE, {"handle": handle})
        except AgentError:
            return True
        except GuestError:
            return False
        return True


class OpenFile:
    """A file that stays open; one call after the other. `close` must be called."""

    def __init__(self, files: Files, handle: int) -> None:
        self._files = files
        self._handle = handle
        self._turn = asyncio.Lock()

    async def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from there on, fewer only where it ends now; may be asked twice.

        Raises:
            GuestError: see `Files.read`.
        """
        async with self._turn:
            return await self._files.read_open(self._handle, offset, count)

    async def write(self, data: bytes) -> None:
        """Writes into a FIFO, at once.

        Raises:
            GuestError: see `Files.read`; part of it may have been written.
        """
        async with self._turn:
            await self._files.write_open(self._handle, data)

    def close(self) -> None:
        """Closes it in the background, as soon as its agent answers."""
        self._files.close_soon(self._handle)


def decoded_size(content: str) -> int:
    """Bytes that the agent makes of base64; see `decode_leniently`."""
    bare = content.rstrip("=")
    if len(content) % 4 or content[len(bare) :] not in ("", "=", "==") or any(letter in bare for letter in "=\n"):
        return len(decode_leniently(content))
    return len(bare) * 3 // 4


def _decode(content: str) -> bytes:
    """As `decode_leniently`, and at once where the base64 is clean."""
    try:
        return binascii.a2b_base64(content, strict_mode=True)
    except binascii.Error:
        return decode_leniently(content)


def decode_leniently(content: str) -> bytes:
    """Decodes base64 as GLib does for the agent.

    Line ends are passed over, letters behind the last group of four are dropped, and padding may stand anywhere.

    Raises:
        binascii.Error: there is another letter in it.
    """
    letters = content.replace("\n", "")
    data = bytearray()
    for start in range(0, len(letters) // 4 * 4, 4):
        group = letters[start : start + 4]
        first, second, third = binascii.a2b_base64(group.replace("=", "A"), strict_mode=True)
        data += bytes([first, *[second] * (group[2] != "="), *[third] * (group[3] != "=")])
    return bytes(data)
