"""Files in a guest, of any size.

A file is written beside its place, in pieces, each of which may be written twice; checked by its SHA-256 in the guest; and then renamed: whoever
is interrupted leaves the old file whole. guestwire's server and an agent's own socket take pieces as they are (`file-piece`). Proxmox VE's API
writes 60 KiB at most and never a part of a file: there a process in the guest writes each piece from its standard input.

The unfinished file has a name that follows from source and target, `.guestwire-…`. When the copying process is killed, the next copy of
the same source to the same place finds it, and goes on where it stopped, if what is there has the SHA-256 that it should have.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from guestwire.client import scripts
from guestwire.client.ending import surely
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import AgentRefused, CallFailed, PrivilegeMissing, Unreachable
from guestwire.client.local import LocalFile, Reading, Unfinished
from guestwire.client.parts import HostOfGuest
from guestwire.client.pieces import beside, ended, in_flight, is_hole, pieces_of, resized
from guestwire.client.processes import Ended, Processes
from guestwire.client.steady import FileRefused, Steady
from guestwire.client.systems import system_of
from guestwire.contract.results import FileContent

__all__ = ["Facts", "FileRefused", "Files", "LocalFile", "NotTheSame", "Progress"]

T = TypeVar("T")

READ_PIECE: Final = 1024 * 1024
"""Bytes of one file-read; more than that Proxmox VE does not give as one valid base64 text."""

FIRST_PIECE: Final = 45_000
"""Bytes of one file-write: their base64 is what the API takes at most, 60 KiB."""

PIECE: Final = 320 * 1024
"""Bytes of one file-piece."""

INPUT_PIECE: Final = 64 * 1024
"""Bytes of a process's standard input."""

READS_AHEAD: Final = 2
"""Reads under way at once. An agent whose answers are not taken at once spins: more of them make it slower."""

AHEAD: Final = 3
"""Pieces under way at once: one is made ready, one travels, one is written."""

WHOLE_NUMBER: Final = 2**53

FIRST_SECOND: Final = -(2**31)
LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999."""

Progress = Callable[[int, int | None], None]
"""Told how many bytes are done, and how many there are in all (None: nobody knows): before the first piece, and after each. What an
earlier copy had done already counts as done."""


class NotTheSame(CallFailed):
    """What arrived is not what was sent."""

    exit_code = 74


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file is: `kind` is f (file), d (directory) or ? (anything else); `mtime` in seconds since the epoch."""

    kind: str
    size: int
    mode: int
    mtime: int


def facts_of(kind: str, size: str, mode: str, mtime: str) -> Facts:
    """What a guest says of a file. Of times that no calendar here has, the last or the first one that it has.

    Raises:
        ValueError: these are no such numbers.
    """
    count = int(size)
    if not 0 <= count < WHOLE_NUMBER:
        raise ValueError(f"a size of {size}")
    return Facts(kind, count, int(mode, 8) & 0o7777, min(max(int(mtime), FIRST_SECOND), LAST_SECOND))


class Files:
    """Reads and writes one guest's files. Paths are the guest's own."""

    def __init__(self, calls: Endpoints, processes: Processes, host: HostOfGuest) -> None:
        self._calls = calls
        self._host = host
        self.steady = Steady(calls, processes, host)

    # Reading

    async def read(self, path: str) -> bytes:
        """The whole file.

        Raises:
            AgentRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        return b"".join([piece async for piece in self.stream(path)])

    async def stream(self, path: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """The file from `offset` on, in pieces; a connection that breaks is made again."""
        async with self.steady.nameable(path) as name:
            while True:
                found = await self._read(name, offset)
                if found.bytes_read:
                    yield self._bytes(found)
                offset += found.bytes_read
                if not found.truncated or not found.bytes_read:
                    return

    async def facts(self, path: str) -> Facts:
        """What stands at a path, links followed.

        Raises:
            FileRefused: there is nothing.
            CallFailed: see `client.errors`.
        """
        found = (await self.steady.done(system_of(path).stat(path))).output
        try:
            kind, size, mode, mtime = found.split()
            return facts_of(kind, size, mode, mtime)
        except ValueError:
            raise CallFailed(self._calls.place, f"unexpected facts about {path}: {found[:100]!r}") from None

    async def copy_from(
        self, path: str, target: Path, *, facts: Facts | None = None, progress: Progress | None = None
    ) -> int:
        """Copies the guest's file to `target`, which appears when it is whole, with its permissions and time; returns its size.

        Args:
            path: a link is followed.
            target: what stands there is replaced.
            facts: of `path`, when they are known.
            progress: see `Progress`.

        Raises:
            NotTheSame: the file changed meanwhile.
            FileRefused: it is no regular file, or can't be read.
            LocalFile: `target` can't be written.
        """
        facts = facts or await self._facts_if_allowed(path)
        if facts and facts.kind != "f":
            raise FileRefused(
                self._calls.place, f"{path} is {'a directory' if facts.kind == 'd' else 'no regular file'}"
            )
        async with contextlib.AsyncExitStack() as stack:
            file = await stack.enter_async_context(Unfinished.beside(target, self._calls.place))
            await self._continue(path, file)
            async with self.steady.nameable(path) as name, beside(self._prefix(path, WHOLE_NUMBER)) as digest:
                await self._fetch(name, file, facts.size if facts else 0, progress)
                await self._check(path, file, await digest)
            await file.finish(facts.mode if facts else None, facts.mtime if facts else None)
        return file.done

    async def _facts_if_allowed(self, path: str) -> Facts | None:
        """A token may read files and start no process; then the agent's word is taken for what it reads."""
        try:
            return await self.facts(path)
        except (PrivilegeMissing, AgentRefused):
            return None

    async def _continue(self, path: str, file: Unfinished) -> None:
        """Keeps what an earlier copy left, where the guest's file begins with the very same bytes."""
        if await file.measure() and await self._prefix(path, file.done) != file.digest:
            await file.restart()

    async def _fetch(self, path: str, file: Unfinished, size: int, progress: Progress | None) -> None:
        _tell(progress, file.done, size or None)
        async with contextlib.aclosing(in_flight(self._reads(path, file.done, size), READS_AHEAD)) as answers:
            async for found in answers:
                is_last = found.bytes_read < min(READ_PIECE, size - file.done)
                if found.bytes_read:
                    await file.write(await asyncio.to_thread(self._bytes, found))
                    _tell(progress, file.done, size or None)
                if size and file.done > size:
                    raise self._changed(path, "it grew while it was read")
                if is_last:  # whether it became shorter, or never was that long (as below /sys), its SHA-256 tells
                    break

    async def _reads(
        self, path: str, offset: int, size: int
    ) -> AsyncGenerator[Coroutine[Any, Any, FileContent[str]], None]:
        """Reads of the whole file, one behind the other; what has no size (as below /proc) is read until there is no more."""
        while size == 0:
            found = await self._read(path, offset)
            yield _at_once(found)
            offset += found.bytes_read
            if not found.truncated or not found.bytes_read:
                return
        for start in range(offset, size + 1, READ_PIECE):
            yield self._read(path, start)

    async def _read(self, path: str, offset: int) -> FileContent[str]:
        """As base64, where it has to be made into JSON: that takes a third less time than text of any bytes."""
        decode = self._host.is_local
        return await self.steady.again(
            partial(self._calls.file_read, path, count=READ_PIECE, offset=offset, decode=decode)
        )

    def _bytes(self, found: FileContent[str]) -> bytes:
        if self._host.is_local:
            return found.data
        try:
            return msgspec.convert(found.content, bytes)  # base64, five times as fast as Python's own
        except msgspec.ValidationError as error:
            raise CallFailed(self._calls.place, f"file-read: unexpected answer: {error}") from error

    # Writing

    async def write(
        self, path: str, data: bytes | AsyncIterator[bytes], *, mode: int | None = None, mtime: int | None = None,
        progress: Progress | None = None,
    ) -> int:  # fmt: skip
        """Makes `data` the whole file `path`; returns its size. The old file is whole until the new one is.

        Args:
            path: its folder must be there.
            data: bytes, or pieces of them.
            mode: permissions; default: those of the old file, or what the guest gives to new ones.
            mtime: seconds since the epoch.
            progress: see `Progress`.

        Raises:
            FileRefused: the guest's own reason.
            NotTheSame: what arrived is something else; the old file is still there.
            CallFailed: see `client.errors`.
        """
        if isinstance(data, bytearray | memoryview):
            data = bytes(data)
        if isinstance(data, bytes) and len(data) <= INPUT_PIECE:
            _tell(progress, 0, len(data))
            await self._put(path, data, mode, mtime)
            _tell(progress, len(data), len(data))
            return len(data)
        total = len(data) if isinstance(data, bytes) else None
        source = _Source(resized(pieces_of(data), await self._piece()), total, mode, mtime)
        unfinished = _unfinished(path, uuid.uuid4().hex)
        async with self._gone_at_the_end(unfinished):
            await ended(self.steady.done(system_of(path).begin(unfinished, path, keep=False)))
            return await self._send(unfinished, path, source, progress)

    async def copy_to(self, source: Path, path: str, *, progress: Progress | None = None) -> int:
        """Copies a file to the guest, with its permissions and time; returns its size.

        Args:
            source: a link is followed.
            path: what stands there is replaced.
            progress: see `Progress`.

        Raises:
            LocalFile: `source` can't be read, or changed meanwhile.
            FileRefused: the guest's own reason.
        """
        async with Reading.of(source, self._calls.place) as reading:
            mode, mtime = stat.S_IMODE(reading.facts.st_mode), int(reading.facts.st_mtime)
            if reading.size <= INPUT_PIECE:
                data = await reading.all()
                await self._put(path, data, mode, mtime)
                _tell(progress, len(data), len(data))
                return len(data)
            unfinished = _unfinished(path, f"{socket.gethostname()} {reading.identity}")
            async with self._gone_at_the_end(unfinished):
                done = await self._agreed(unfinished, path, reading)
                pieces = reading.pieces(done, await self._piece())
                sent = _Source(pieces, reading.size, mode, mtime, done, reading.digest)
                return await self._send(unfinished, path, sent, progress)

    async def _piece(self) -> int:
        return PIECE if await self._host.is_guestwire() else INPUT_PIECE

    async def _put(self, path: str, data: bytes, mode: int | None, mtime: int | None) -> None:
        """Few bytes, with one process; or where none may be started, by the agent alone, which leaves half a file when it is interrupted."""
        digest = hashlib.sha256(data).hexdigest()
        try:
            done = await self.steady.sh(
                system_of(path).put(_unfinished(path, uuid.uuid4().hex), path, digest, mode, mtime), data
            )
            if done.code == scripts.NO_TOOL:
                done = await self.steady.sh(
                    system_of(path).put(_unfinished(path, uuid.uuid4().hex), path, "", mode, mtime), data
                )
        except (PrivilegeMissing, AgentRefused):
            if len(data) > FIRST_PIECE:
                raise
            encoded = _encoded(data)
            async with self.steady.nameable(path) as name:
                await self.steady.again(lambda: self._calls.file_write(name, encoded, encode=False))
        else:
            self._check_ended(path, done)

    async def _agreed(self, unfinished: str, path: str, reading: Reading) -> int:
        """How many bytes an earlier copy has written rightly; those that were under way last are not counted on."""
        begun = await ended(self.steady.done(system_of(path).begin(unfinished, path, keep=True)))
        piece = await self._piece()
        there = int(begun.output)
        kept = max(0, min(there, reading.size) // piece - AHEAD) * piece
        if kept and await self._prefix(unfinished, kept) == await reading.prefix(kept):
            return kept
        if there:
            await self.steady.done(system_of(path).begin(unfinished, path, keep=False))
        await reading.prefix(0)
        return 0

    async def _send(self, unfinished: str, path: str, source: "_Source", progress: Progress | None) -> int:
        _tell(progress, source.done, source.total)
        await self._send_pieces(unfinished, source, progress)
        await self._finish(unfinished, path, source)
        return source.done

    @contextlib.asynccontextmanager
    async def _gone_at_the_end(self, unfinished: str) -> AsyncIterator[None]:
        """Removes the unfinished file when something fails; where nothing can be reached any more, it stays for the next copy."""
        try:
            yield
        except Unreachable as error:
            raise Unreachable(
                error.place,
                error.words,
                error.answered,
                advice=f"copy again: it goes on where it stopped; {error.next}",
            ) from error
        except BaseException:
            await surely(self.steady.remove_quietly(unfinished))
            raise

    async def _send_pieces(self, unfinished: str, source: "_Source", progress: Progress | None) -> None:
        async with self.steady.nameable(unfinished) as name:
            write = self._write_piece if await self._host.is_guestwire() else self._write_by_process
            async with contextlib.aclosing(in_flight(_writes(source, partial(write, name)), AHEAD)) as written:
                async for size in written:
                    source.done += size
                    _tell(progress, source.done, source.total)

    async def _write_piece(self, path: str, piece: bytes, at: int) -> int:
        given = {"file": path, "at": at, "content": await asyncio.to_thread(_encoded, piece)}
        where = f"/nodes/{self._calls.node}/qemu/{self._calls.vmid}/guestwire/file-piece"
        try:
            await self.steady.again(lambda: self._host.raw("POST", where, **given))
        except AgentRefused as error:
            raise FileRefused(error.place, error.description) from error
        return len(piece)

    async def _write_by_process(self, path: str, piece: bytes, at: int) -> int:
        await self.steady.done(system_of(path).piece(path, at), piece)
        return len(piece)

    async def _finish(self, unfinished: str, path: str, source: "_Source") -> None:
        digest, kept = source.digest.hexdigest(), (source.mode, source.mtime)
        done = await self.steady.sh(system_of(path).finish(unfinished, path, digest, *kept))
        if done.code == scripts.NO_TOOL:
            await self._read_again(unfinished, digest)
            done = await self.steady.sh(system_of(path).finish(unfinished, path, "", *kept))
        self._check_ended(path, done)

    def _check_ended(self, path: str, done: Ended) -> None:
        if done.code == scripts.OTHER_BYTES:
            raise self._changed(path, "what arrived is not what was sent")
        self.steady.succeeded(done)

    def _changed(self, path: str, how: str) -> NotTheSame:
        return NotTheSame(
            self._calls.place,
            f"{path}: {how}",
            advice="copy again; of a file that never rests, `-` takes what is there",
        )

    # Checking

    async def _check(self, path: str, file: Unfinished, digest: str | None) -> None:
        """By the guest's own SHA-256, where it has a tool for it; else by reading again."""
        if digest is None:
            await self._read_again(path, file.digest)
        elif digest != file.digest:
            raise self._changed(path, f"its {file.done} bytes are not those that were copied: it changed meanwhile")

    async def _prefix(self, path: str, size: int) -> str | None:
        """The SHA-256 of the first bytes in the guest; None when it can't tell."""
        try:
            done = await self.steady.sh(system_of(path).prefix(path, size))
        except (AgentRefused, PrivilegeMissing):
            return None
        return scripts.digest_in(done.output) if done.ok else None

    async def _read_again(self, path: str, digest: str) -> None:
        again = hashlib.sha256()
        async for piece in self.stream(path):
            again.update(piece)
        if again.hexdigest() != digest:
            raise self._changed(path, "it is not what was copied: it changed meanwhile")

    async def remove(self, path: str) -> None:
        """Removes a file; one that is not there is gone already."""
        await self.steady.remove(path)


@dataclass(slots=True)
class _Source:
    """Pieces on their way to a guest, and what their file gets; `digest` and `done` are of all before them."""

    pieces: AsyncGenerator[bytes, None]
    total: int | None
    mode: int | None
    mtime: int | None
    done: int = 0
    digest: Any = None

    def __post_init__(self) -> None:
        self.digest = self.digest or hashlib.sha256()


async def _writes(
    source: _Source, write: Callable[[bytes, int], Coroutine[Any, Any, int]]
) -> AsyncGenerator[Coroutine[Any, Any, int], None]:
    """A write for each piece; of zeros nothing is sent but the last one, which gives the file its size."""
    at, held = source.done, b""
    async with contextlib.aclosing(source.pieces):
        async for piece in source.pieces:
            if held:
                yield _skipped(held) if is_hole(held) else write(held, at - len(held))
            await asyncio.to_thread(source.digest.update, piece)
            at, held = at + len(piece), piece
    if held:
        yield write(held, at - len(held))


async def _skipped(piece: bytes) -> int:
    return len(piece)


async def _at_once(found: T) -> T:
    return found


def _unfinished(path: str, source: str) -> str:
    """The file beside `path` that a copy of `source` is written to: short, whatever their names are."""
    system = system_of(path)
    _, name = system.split(path)
    target, origin = (hashlib.sha256(os.fsencode(text)).hexdigest()[:20] for text in (name, source))
    return system.beside(path, f".guestwire-{target}-{origin}")


def _encoded(data: bytes) -> str:
    """Base64; twice as fast as Python's own."""
    return str(msgspec.to_builtins(data))


def _tell(progress: Progress | None, done: int, total: int | None) -> None:
    if progress:
        progress(done, total)
