"""Reading a file in a guest, piece by piece; its facts, and its SHA-256."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

from guestwire.agent.systems import UNIX, digest_in, system_of
from guestwire.client.cancellation import background
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import AgentRefused, AgentTookTooLong, CallFailed, ChecksumMismatch, PrivilegeMissing
from guestwire.client.processes import Processes
from guestwire.client.protocols import HostOfGuest
from guestwire.client.transfer.retrying import Retrying
from guestwire.contract.results import FileContent
from guestwire.counting import counted

READ_SIZE: Final = 1024 * 1024
"""Bytes of one file-read; more than that Proxmox VE does not give as one valid base64 text."""

SMALLEST_PIECE: Final = 64 * 1024
"""Bytes of one file-read of a guest that is slow."""

LARGEST_SIZE: Final = 2**53

FIRST_SECOND: Final = -(2**31)
LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """A file or folder in a guest.

    `kind` is f (file), d (directory) or ? (anything else); `mtime` is in seconds since the epoch.
    """

    kind: str
    size: int
    mode: int
    mtime: int

    @classmethod
    def parse(cls, kind: str, size: str, mode: str, mtime: str) -> "FileStat":
        """Reads what a guest says. A time that no calendar here has becomes the last or the first one that it has.

        Raises:
            ValueError: these are no such numbers.
        """
        count = int(size)
        if not 0 <= count < LARGEST_SIZE:
            raise ValueError(f"a size of {size}")
        return cls(kind, count, int(mode, 8) & 0o7777, min(max(int(mtime), FIRST_SECOND), LAST_SECOND))


class FileReader:
    """Reads one guest's files. Paths are the guest's own."""

    def __init__(self, calls: Endpoints, processes: Processes, host: HostOfGuest) -> None:
        self.retrying = Retrying(calls, processes, host)
        self._piece = READ_SIZE
        self._calls = calls
        self._host = host

    async def read(self, path: str) -> bytes:
        """The whole file.

        Raises:
            AgentRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        return b"".join([chunk async for chunk in self.stream(path)])

    async def stream(self, path: str, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The file from `offset` on, in chunks; a connection that breaks is made again."""
        async with self.retrying.addressable(path) as name:
            while True:
                found = await self._read_at(name, offset)
                if found.bytes_read:
                    yield found.content
                offset += found.bytes_read
                if not found.truncated or not found.bytes_read:
                    return

    async def stream_checked(self, path: str) -> AsyncGenerator[bytes, None]:
        """The whole file in chunks; behind the last one it is compared with the SHA-256 that it has in the guest.

        Raises:
            ChecksumMismatch: it changed meanwhile.
        """
        digest, size = hashlib.sha256(), 0
        # The guest makes its SHA-256 while the file is on its way.
        async with background(self._sha256(path, LARGEST_SIZE)) as checking, aclosing(self.stream(path)) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(digest.update, chunk)
                size += len(chunk)
                yield chunk
            await self._compare(path, digest.hexdigest(), size, await checking)

    async def sha256(self, path: str) -> str:
        """The SHA-256 of a file, in hexadecimal digits: by a tool of the guest, or by reading it.

        Raises:
            AgentRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        if found := await self._sha256(path, LARGEST_SIZE):
            return found
        digest = hashlib.sha256()
        async with aclosing(self.stream(path)) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(digest.update, chunk)
        return digest.hexdigest()

    async def stat(self, path: str) -> FileStat:
        """Describes what stands at a path; links are followed.

        Raises:
            FileRefused: there is nothing.
            CallFailed: see `client.errors`.
        """
        output = (await self.retrying.check(system_of(path).stat(path))).output
        try:
            kind, size, mode, mtime = output.split()
            return FileStat.parse(kind, size, mode, mtime)
        except ValueError:
            raise CallFailed(self._calls.context, f"unexpected facts about {path}: {output[:100]!r}") from None

    async def behind_links(self, path: str) -> str:
        """The path of the file that a path leads to, for a write would replace a link.

        Where that can't be found out, it is the path itself.
        """
        if system_of(path) is not UNIX or not await self._host.may_run(self._calls.vmid):
            return path
        try:
            found = await self.retrying.run(["readlink", "-f", "--", path])
        except (AgentRefused, PrivilegeMissing):
            return path
        return found.output.removesuffix("\n") if found.ok and found.output.startswith("/") else path

    async def remove(self, path: str) -> None:
        """Removes a file; one that is not there is gone already."""
        await self.retrying.check(system_of(path).remove(path))

    async def _read_at(self, path: str, offset: int) -> FileContent[bytes]:
        """The next `READ_SIZE` bytes; in smaller pieces where guest or host are too slow for one.

        Proxmox VE gives a piece of any size five seconds.
        """
        pieces: list[bytes] = []
        size = 0
        while True:
            wanted = min(self._piece, READ_SIZE - size)
            try:
                found = await self.retrying.call(
                    partial(self._calls.read_bytes, path, offset=offset + size, count=wanted),
                    gives_up_on=AgentTookTooLong if wanted > SMALLEST_PIECE else None,
                )
            except AgentTookTooLong:
                if wanted <= SMALLEST_PIECE:
                    raise
                self._piece = max(SMALLEST_PIECE, min(self._piece, wanted) // 2)
                continue
            size += found.bytes_read
            pieces.append(found.content)
            if size >= READ_SIZE or not found.truncated or not found.bytes_read:
                content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                return FileContent(content, size, found.truncated)

    # Checking

    async def _sha256(self, path: str, size: int) -> str | None:
        """The SHA-256 of the first bytes, by a tool of the guest; None where it has none, or none may be started."""
        if not await self._host.may_run(self._calls.vmid):
            return None
        system = system_of(path)
        try:
            process = await self.retrying.run_to_read(system, system.sha256(path, size))
        except (AgentRefused, PrivilegeMissing):
            return None
        return digest_in(process.output) if process.ok else None

    async def _compare(self, path: str, digest: str, size: int, in_guest: str | None) -> None:
        """Compares what was read with the file's SHA-256 in the guest; None: it has no tool for that."""
        if in_guest is None:
            await self._verify_by_reading(path, digest)
        elif in_guest != digest:
            raise self._mismatch(
                path,
                f"its {counted(size, 'byte is not the one that was', 'bytes are not those that were')} copied: it changed meanwhile",
            )

    async def _verify_by_reading(self, path: str, digest: str) -> None:
        """Reads the file again, where the guest has no tool for SHA-256."""
        again = hashlib.sha256()
        async for chunk in self.stream(path):
            again.update(chunk)
        if again.hexdigest() != digest:
            raise self._mismatch(path, "it is not what was copied: it changed meanwhile")

    def _mismatch(self, path: str, why: str) -> ChecksumMismatch:
        hint = "copy again; of a file that never rests, `-` takes what is there"
        return ChecksumMismatch(self._calls.context, f"{path}: {why}", hint=hint)
