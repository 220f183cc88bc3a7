"""Copying a file from a guest.

It is written to an unfinished file beside its place here, whose name follows from that of the target; checked by its
SHA-256 in the guest; and then renamed. When the copying process is killed, the next copy to the same place goes on
where it stopped, if the guest's file begins with what is there.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from guestwire.client.cancellation import background, map_ordered
from guestwire.client.errors import AgentRefused, FileRefused, PrivilegeMissing
from guestwire.client.transfer.local_files import LocalTarget, Progress, report
from guestwire.client.transfer.reading import LARGEST_SIZE, READ_SIZE, FileReader, FileStat
from guestwire.contract.results import FileContent
from guestwire.counting import counted

READS_AHEAD: Final = 2
"""Reads under way at once. An agent whose answers are not taken at once spins: more of them make it slower."""


class Downloads(FileReader):
    """Copies files from one guest."""

    async def download(
        self, path: str, target: Path, *, stat: FileStat | None = None, progress: Progress | None = None,
        before_replacing: Callable[[], Awaitable[None]] | None = None,
    ) -> int:  # fmt: skip
        """Copies the guest's file to `target`, with its permissions and time; returns its size.

        It appears under its name when it is whole.

        Args:
            path: a link is followed.
            target: what stands there is replaced.
            stat: of `path`, when it is known.
            progress: see `Progress`.
            before_replacing: an exception of it leaves what stands at `target`.

        Raises:
            ChecksumMismatch: the file changed meanwhile.
            FileRefused: it is no regular file, or can't be read.
            LocalFile: `target` can't be written.
        """
        # A token may read files and start no process: then what the agent reads is taken for the file.
        if not stat and await self._host.may_run(self._calls.vmid):
            with contextlib.suppress(PrivilegeMissing, AgentRefused):
                stat = await self.stat(path)
        if stat and stat.kind != "f":
            raise FileRefused(
                self._calls.context, f"{path} is {'a directory' if stat.kind == 'd' else 'no regular file'}"
            )
        async with LocalTarget.open(target, self._calls.context) as file:
            if await file.measure() and await self._sha256(path, file.done) != file.digest:
                await file.restart()
            # The guest makes its SHA-256 while the file is on its way.
            async with (
                self.retrying.addressable(path) as name,
                background(self._sha256(path, LARGEST_SIZE)) as checking,
            ):
                await self._fetch(name, file, stat.size if stat else 0, progress)
                digest = await checking
            if digest is None:
                await self._verify_by_reading(path, file.digest)
            elif digest != file.digest:
                raise self._mismatch(
                    path,
                    f"its {counted(file.done, 'byte is not the one that was', 'bytes are not those that were')} copied: it changed meanwhile",
                )
            if before_replacing:
                await before_replacing()
            await file.finish(stat.mode if stat else None, stat.mtime if stat else None)
        return file.done

    async def _fetch(self, path: str, file: LocalTarget, size: int, progress: Progress | None) -> None:
        report(progress, file.done, size or None)
        # Proxmox VE pings before each read, with three seconds: two at once gain nothing, and are refused sooner.
        ahead = READS_AHEAD if await self._host.is_guestwire() else 1
        async with contextlib.aclosing(map_ordered(self._reads(path, file.done, size), ahead)) as answers:
            async for found in answers:
                is_last = found.bytes_read < min(READ_SIZE, size - file.done)
                if found.bytes_read:
                    await file.write(found.content)
                    report(progress, file.done, size or None)
                if size and file.done > size:
                    raise self._mismatch(path, "it grew while it was read")
                if is_last:  # whether it became shorter, or never was that long (as below /sys), its SHA-256 tells
                    break

    async def _reads(
        self, path: str, offset: int, size: int
    ) -> AsyncGenerator[Coroutine[Any, Any, FileContent[bytes]], None]:
        """Reads of the whole file.

        One without a size (as below /proc) is read until there is no more, one read after the other.
        """
        if size:
            for start in range(offset, size + 1, READ_SIZE):
                yield self._read_at(path, start)
            return
        while True:
            found = await self._read_at(path, offset)
            yield asyncio.sleep(0, found)
            offset += found.bytes_read
            if not found.truncated or not found.bytes_read:
                return
