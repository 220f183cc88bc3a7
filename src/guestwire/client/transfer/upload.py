"""Copying a file to a guest.

It is written to an unfinished file beside its place, in chunks, each of which may be written twice; checked by its
SHA-256 in the guest; and then renamed: a copy that is interrupted leaves the old file whole. guestwire's server and
an agent's own socket take chunks as they are (`file-piece`). Proxmox VE's API writes 60 KiB at most and never a part
of a file: there a process in the guest writes each chunk from its standard input.

The unfinished file has a name that follows from source and target, `.guestwire-…`. When the copying process is
killed, the next copy of the same source to the same place finds it, and goes on where it stopped, if what is there
has the SHA-256 that it should have.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from guestwire.agent.systems import NO_TOOL, OTHER_BYTES, Attributes, system_of
from guestwire.client.cancellation import finish_briefly, finish_when_cancelled, map_ordered
from guestwire.client.errors import AgentRefused, FileRefused, PrivilegeMissing, Unreachable
from guestwire.client.processes import CompletedProcess
from guestwire.client.transfer.local_files import Data, LocalPath, LocalSource, Progress, chunks_of, is_hole, report
from guestwire.client.transfer.reading import FileReader
from guestwire.counting import counted

FIRST_CHUNK: Final = 45_000
"""Bytes of one file-write: their base64 is what the API takes at most, 60 KiB."""

CHUNK: Final = 320 * 1024
"""Bytes of one file-piece."""

INPUT_CHUNK: Final = 64 * 1024
"""Bytes of a process's standard input."""

AHEAD: Final = 3
"""Chunks under way at once: one is made ready, one travels, one is written."""


@dataclass(slots=True)
class _Upload:
    """A file on its way: its unfinished file, its place, the chunks that are still to be sent, and what the file gets.

    `done` bytes are in the guest; `digest` is the SHA-256 of all before the chunks, then of all that was sent.
    """

    unfinished: str
    path: str
    chunks: AsyncGenerator[bytes, None]
    total: int | None
    attributes: Attributes
    done: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class Uploads(FileReader):
    """Copies files to one guest."""

    async def write(
        self,
        path: str,
        data: Data,
        *,
        mode: int | None = None,
        mtime: int | None = None,
        for_new: bool = False,
        size: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Makes `data` the whole file `path`; returns its size. The old file is whole until the new one is.

        Args:
            path: its folder must be there.
            data: bytes, or chunks of them; what an ordinary iterable gives is waited for in a thread.
            mode: permissions; default: those of the old file, or what the guest gives to new ones.
            mtime: seconds since the epoch.
            for_new: `mode` is for a new file: one that stands there keeps its own.
            size: of data in chunks, where it is known; for progress alone.
            progress: see `Progress`.

        Raises:
            FileRefused: the guest's own reason.
            ChecksumMismatch: what arrived is something else; the old file is still there.
            CallFailed: see `client.errors`.
        """
        attributes = Attributes(mode, mtime, for_new=for_new)
        if isinstance(data, bytearray | memoryview):
            data = bytes(data)
        if not isinstance(data, bytes):
            data = await _all_if_few(data)
        if isinstance(data, bytes) and len(data) <= INPUT_CHUNK:
            report(progress, 0, len(data))
            return await self._put(path, data, attributes, progress)
        total = len(data) if isinstance(data, bytes) else size
        unfinished = _unfinished_path(path, uuid.uuid4().hex)
        async with self._removed_on_error(unfinished):
            await finish_briefly(self.retrying.check(system_of(path).create(unfinished, path, keep=False)))
            chunks = chunks_of(data, await self._chunk_size())
            return await self._send(_Upload(unfinished, path, chunks, total, attributes), progress)

    async def upload(self, source: LocalPath, path: str, *, progress: Progress | None = None) -> int:
        """Copies a file to the guest, with its time, and for a new file its permissions; returns its size.

        Args:
            source: a link is followed.
            path: what stands there is replaced, and keeps owner, permissions and other attributes.
            progress: see `Progress`.

        Raises:
            LocalFile: `source` can't be read, or changed meanwhile.
            FileRefused: the guest's own reason.
        """
        source = Path(source)
        async with LocalSource.open(source, self._calls.context) as local:
            facts = Attributes(stat.S_IMODE(local.stat.st_mode), int(local.stat.st_mtime), for_new=True)
            if local.size <= INPUT_CHUNK:
                return await self._put(path, await local.read(), facts, progress)
            unfinished = _unfinished_path(path, f"{socket.gethostname()} {local.identity}")
            async with self._removed_on_error(unfinished):
                size = await self._chunk_size()
                done = await self._resume(unfinished, path, local, size)
                chunks = local.chunks(done, size)
                upload = _Upload(unfinished, path, chunks, local.size, facts, done, local.digest)
                return await self._send(upload, progress)

    async def _chunk_size(self) -> int:
        return CHUNK if await self._host.is_guestwire() else INPUT_CHUNK

    async def _put(self, path: str, data: bytes, attributes: Attributes, progress: Progress | None) -> int:
        """Sends few bytes with one process.

        Where none may be started, file-write does it, which leaves half a file when it is interrupted.
        """
        unfinished, system = _unfinished_path(path, uuid.uuid4().hex), system_of(path)
        if len(data) <= FIRST_CHUNK and not await self._host.may_run(self._calls.vmid):
            return await self._write_directly(path, data, progress)
        try:
            digest = hashlib.sha256(data).hexdigest()
            process = await self.retrying.run(system.put(unfinished, path, digest, attributes), data)
            if process.code == NO_TOOL:
                process = await self.retrying.run(system.put(unfinished, path, "", attributes), data)
            self._check_exit(path, process)
        except (PrivilegeMissing, AgentRefused):
            if len(data) > FIRST_CHUNK:
                raise
            return await self._write_directly(path, data, progress)
        report(progress, len(data), len(data))
        return len(data)

    async def _write_directly(self, path: str, data: bytes, progress: Progress | None) -> int:
        """Writes few bytes without a process, and looks whether all of them arrived, where they may be read."""
        async with self.retrying.addressable(path) as name:
            await self.retrying.call(lambda: self._calls.file_write(name, _base64(data), encode=False))
            if not await self._host.is_guestwire():  # which looks by itself
                with contextlib.suppress(PrivilegeMissing):
                    found = await self._read_at(name, 0)
                    if found.content != data:
                        raise self._mismatch(path, f"the guest took {found.bytes_read} of {counted(len(data), 'byte')}")
        report(progress, len(data), len(data))
        return len(data)

    async def _resume(self, unfinished: str, path: str, local: LocalSource, size: int) -> int:
        """The number of bytes that an earlier copy has written rightly; 0 for a new one.

        Those that were under way last are not counted.
        """
        system = system_of(path)
        found = int((await finish_briefly(self.retrying.check(system.create(unfinished, path, keep=True)))).output)
        kept = max(0, min(found, local.size) // size - AHEAD) * size
        if kept and await self._sha256(unfinished, kept) == await local.rewind(kept):
            return kept
        if found:
            await self.retrying.check(system.create(unfinished, path, keep=False))
        await local.rewind(0)
        return 0

    @contextlib.asynccontextmanager
    async def _removed_on_error(self, unfinished: str) -> AsyncIterator[None]:
        """Removes the unfinished file when something fails.

        Where the host can't be reached any more, it stays for the next copy.
        """
        try:
            yield
        except Unreachable as error:
            hint = f"copy again: it goes on where it stopped; {error.hint}"
            raise Unreachable(error.context, error.message, error.http_status, hint=hint) from error
        except BaseException:
            await finish_when_cancelled(self.retrying.remove_quietly(unfinished))
            raise

    async def _send(self, upload: _Upload, progress: Progress | None) -> int:
        report(progress, upload.done, upload.total)
        async with (
            self.retrying.addressable(upload.unfinished) as name,
            contextlib.aclosing(map_ordered(self._writes(upload, name), AHEAD)) as sizes,
        ):
            async for size in sizes:
                upload.done += size
                report(progress, upload.done, upload.total)
        system, digest = system_of(upload.path), upload.digest.hexdigest()
        place = upload.unfinished, upload.path
        process = await self.retrying.run(system.finish(*place, digest, upload.attributes))
        if process.code == NO_TOOL:
            await self._verify_by_reading(upload.unfinished, digest)
            process = await self.retrying.run(system.finish(*place, "", upload.attributes))
        self._check_exit(upload.path, process)
        return upload.done

    def _check_exit(self, path: str, process: CompletedProcess) -> None:
        if process.code == OTHER_BYTES:
            raise self._mismatch(path, "what arrived is not what was sent")
        self.retrying.raise_for_exit(process)

    async def _writes(self, upload: _Upload, name: str) -> AsyncGenerator[Coroutine[Any, Any, int], None]:
        """A write for each chunk, which gives its size.

        Zeros are not sent, but for the last chunk, which gives the file its size.
        """
        write = self._write_piece if await self._host.is_guestwire() else self._write_by_process
        offset, last = upload.done, b""
        async with contextlib.aclosing(upload.chunks):
            async for chunk in upload.chunks:
                if last:
                    yield asyncio.sleep(0, len(last)) if is_hole(last) else write(name, last, offset - len(last))
                await asyncio.to_thread(upload.digest.update, chunk)
                offset, last = offset + len(chunk), chunk
        if last:
            yield write(name, last, offset - len(last))

    async def _write_piece(self, path: str, chunk: bytes, offset: int) -> int:
        content = await asyncio.to_thread(_base64, chunk)
        try:
            await self.retrying.call(lambda: self._calls.file_piece(path, offset, content))
        except AgentRefused as error:
            is_gone = "No such file" in error.description
            why = f"{path}: it is gone; another copy to the same place may have ended" if is_gone else error.description
            raise FileRefused(error.context, why) from error
        return len(chunk)

    async def _write_by_process(self, path: str, chunk: bytes, offset: int) -> int:
        await self.retrying.check(system_of(path).write(path, offset), chunk)
        return len(chunk)


async def _all_if_few(data: Data) -> Data:
    """The bytes themselves where they are few; otherwise chunks, of which the first was looked at."""
    chunks = chunks_of(data, INPUT_CHUNK + 1)
    first = await anext(chunks, b"")
    if len(first) <= INPUT_CHUNK:
        return first

    async def all_of_them() -> AsyncGenerator[bytes, None]:
        yield first
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    return all_of_them()


def _unfinished_path(path: str, source: str) -> str:
    """The file beside `path` that a copy of `source` is written to: short, whatever their names are."""
    system = system_of(path)
    _, name = system.split(path)
    target, origin = (hashlib.sha256(os.fsencode(text)).hexdigest()[:20] for text in (name, source))
    return system.beside(path, f".guestwire-{target}-{origin}")


def _base64(data: bytes) -> str:
    """Twice as fast as Python's own."""
    return str(msgspec.to_builtins(data))
