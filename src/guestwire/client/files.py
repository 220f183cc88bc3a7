"""Files in a guest, of any size.

A file is written beside its place, in pieces, each of which is taken once; checked; and then renamed: whoever is interrupted leaves the old
file whole. guestwire's server and an agent's own socket take pieces as they are (`file-append`). Proxmox VE's API writes 60 KiB at most and
never appends: there a process in the guest adds each piece from its standard input.
"""

import asyncio
import base64
import contextlib
import hashlib
import posixpath
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Final, TypeVar

from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import AgentRefused, CallFailed, PrivilegeMissing, Unreachable
from guestwire.client.parts import HostOfGuest
from guestwire.client.processes import Processes

T = TypeVar("T")

READ_PIECE: Final = 1024 * 1024
"""Bytes of one file-read; more than that Proxmox VE does not give as one valid base64 text."""

FIRST_PIECE: Final = 45_000
"""Bytes of one file-write: their base64 is what the API takes at most, 60 KiB."""

APPENDED_PIECE: Final = 352 * 1024
"""Bytes of one file-append."""

INPUT_PIECE: Final = 64 * 1024
"""Bytes of a process's standard input."""

ATTEMPTS: Final = 8
FIRST_PAUSE: Final = 0.2

Progress = Callable[[int], None]
"""Told how many bytes are done in all, after each piece."""


class NotTheSame(CallFailed):
    """What arrived is not what was sent."""

    exit_code = 74


class LocalFile(CallFailed):
    """The file on this side can't be read or written."""

    exit_code = 74


_RENAME: Final = """\
if [ -d "$2" ]; then echo "$2: is a directory" >&2; exit 1; fi
if [ -n "$3" ]; then chmod "$3" "$1" || exit 1
elif [ -f "$2" ]; then chmod "$(stat -c %a -- "$2")" "$1" 2>/dev/null; chown "$(stat -c %u:%g -- "$2")" "$1" 2>/dev/null; fi
if [ -n "$4" ]; then touch -d "@$4" -- "$1"; fi
mv -f -- "$1" "$2"
"""


class Files:
    """Reads and writes one guest's files. Paths are the guest's own."""

    def __init__(self, calls: Endpoints, processes: Processes, host: HostOfGuest) -> None:
        self._calls = calls
        self._run = processes.run
        self._host = host

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
        while True:
            found = await self._again(
                partial(self._calls.file_read, path, count=READ_PIECE, offset=offset, decode=False)
            )
            if found.bytes_read:
                yield base64.b64decode(found.content)
            offset += found.bytes_read
            if not found.truncated or not found.bytes_read:
                return

    async def copy_from(self, path: str, target: Path, *, progress: Progress | None = None) -> int:
        """Copies the guest's file to `target`, which appears when it is whole; returns its size.

        Raises:
            NotTheSame: the guest's SHA-256 of the file is another; it may have changed meanwhile.
            LocalFile: `target` can't be written.
        """
        unfinished = target.with_name(f".{target.name}.guestwire")
        digest, done = hashlib.sha256(), 0
        try:
            with self._local(unfinished, "wb") as file:
                async for piece in self.stream(path):
                    await asyncio.to_thread(file.write, piece)
                    digest.update(piece)
                    done += len(piece)
                    _tell(progress, done)
            await self._check(path, digest.hexdigest(), done)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        return done

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
            AgentRefused: the guest's own reason.
            NotTheSame: what arrived is something else; the old file is still there.
            CallFailed: see `client.errors`.
        """
        if isinstance(data, bytes) and len(data) <= FIRST_PIECE and not await self._may_run():
            await self._write_first(path, data)
            return len(data)
        unfinished = posixpath.join(posixpath.dirname(path), f".guestwire-{uuid.uuid4().hex}")
        try:
            digest, done = await self._write_pieces(unfinished, _pieces(data), progress)
            await self._check(unfinished, digest, done)
            await self._rename(unfinished, path, mode, mtime)
        except BaseException:
            await asyncio.shield(self._remove_quietly(unfinished))
            raise
        return done

    async def copy_to(self, source: Path, path: str, *, progress: Progress | None = None) -> int:
        """Copies a file to the guest, with its permissions and time; returns its size.

        Raises:
            LocalFile: `source` can't be read.
        """
        try:
            facts = await asyncio.to_thread(source.stat)
        except OSError as error:
            raise LocalFile(self._calls.place, f"{source}: {error.strerror}") from error
        pieces = self._local_pieces(source)
        return await self.write(path, pieces, mode=facts.st_mode & 0o7777, mtime=int(facts.st_mtime), progress=progress)

    async def _write_pieces(
        self, path: str, pieces: AsyncIterator[bytes], progress: Progress | None
    ) -> tuple[str, int]:
        digest, done = hashlib.sha256(), 0
        append, size = (
            (self._append, APPENDED_PIECE)
            if await self._host.is_guestwire()
            else (self._append_by_process, INPUT_PIECE)
        )
        await self._write_first(path, b"")
        async for piece in _resized(pieces, size):
            await append(path, piece, done)
            digest.update(piece)
            done += len(piece)
            _tell(progress, done)
        return digest.hexdigest(), done

    async def _write_first(self, path: str, data: bytes) -> None:
        encoded = base64.b64encode(data).decode()
        await self._again(lambda: self._calls.file_write(path, encoded, encode=False))

    async def _append(self, path: str, piece: bytes, at: int) -> None:
        """The server knows where the piece belongs: one that is there already is not added again."""
        given = {"file": path, "at": at, "content": base64.b64encode(piece).decode()}
        for pause in _pauses():
            try:
                await self._host.raw(
                    "POST", f"/nodes/{self._calls.node}/qemu/{self._calls.vmid}/guestwire/file-append", **given
                )
            except Unreachable:
                await asyncio.sleep(pause)
            except AgentRefused as error:
                if f"has {at + len(piece)} bytes" not in error.description:
                    raise
                return
            else:
                return
        raise Unreachable(self._calls.place, "the connection broke again and again")

    async def _append_by_process(self, path: str, piece: bytes, at: int) -> None:
        for pause in _pauses():
            try:
                await self._run(["/bin/sh", "-c", 'cat >> "$0"', path], input=piece, check=True)
            except Unreachable:
                await asyncio.sleep(pause)
                size = await self._size(path)
                if size == at + len(piece):
                    return
                if size != at:
                    await self._run(["truncate", "-s", str(at), path], check=True)
            else:
                return
        raise Unreachable(self._calls.place, "the connection broke again and again")

    async def _size(self, path: str) -> int:
        ended = await self._again(lambda: self._run(["/bin/sh", "-c", 'wc -c < "$0"', path], check=True))
        return int(ended.output)

    async def _rename(self, unfinished: str, path: str, mode: int | None, mtime: int | None) -> None:
        arguments = [unfinished, path, f"{mode:o}" if mode is not None else "", str(mtime) if mtime is not None else ""]
        await self._run(["/bin/sh", "-c", _RENAME, "sh", *arguments], check=True)

    async def _check(self, path: str, digest: str, size: int) -> None:
        """By SHA-256 where the guest has a tool for it; else by size, and by reading again."""
        try:
            ended = await self._run(["sha256sum", "--", path])
        except (AgentRefused, PrivilegeMissing):
            ended = None
        if ended and ended.ok:
            found = ended.output.removeprefix("\\").partition(" ")[0]
        else:
            again = hashlib.sha256()
            async for piece in self.stream(path):
                again.update(piece)
            found = again.hexdigest()
        if found != digest:
            raise NotTheSame(
                self._calls.place,
                f"{path}: its {size} bytes are not those that were copied",
                advice="it may have changed meanwhile; try again",
            )

    async def remove(self, path: str) -> None:
        """Removes a file; one that is not there is gone already."""
        await self._run(["rm", "-f", "--", path], check=True)

    # What the others stand on

    async def _may_run(self) -> bool:
        """Whether a process can be started here: a token may write files and do nothing else."""
        try:
            return (await self._run(["true"])).ok
        except (PrivilegeMissing, AgentRefused):
            return False

    async def _remove_quietly(self, path: str) -> None:
        with contextlib.suppress(CallFailed):
            await self.remove(path)

    async def _again(self, call: Callable[[], Awaitable[T]]) -> T:
        """For calls that may be made twice: makes them again when the connection broke."""
        for pause in _pauses():
            try:
                return await call()
            except Unreachable:
                await asyncio.sleep(pause)
        return await call()

    async def _local_pieces(self, source: Path) -> AsyncIterator[bytes]:
        with self._local(source, "rb") as file:
            while piece := await asyncio.to_thread(file.read, READ_PIECE):
                yield piece

    @contextlib.contextmanager
    def _local(self, path: Path, how: str) -> Iterator[IO[bytes]]:
        try:
            with path.open(how) as file:
                yield file
        except OSError as error:
            raise LocalFile(self._calls.place, f"{path}: {error.strerror}") from error


def _pauses() -> Iterable[float]:
    return (FIRST_PAUSE * 2**attempt for attempt in range(ATTEMPTS))


async def _pieces(data: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    async for piece in data:
        yield piece


async def _resized(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in pieces of this size; the last may be shorter."""
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)


def _tell(progress: Progress | None, done: int) -> None:
    if progress:
        progress(done)
