"""A guest: the endpoints below its agent as typed methods, and what people want above them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from guestwire.agent.results import FileSystem, Interface, OsInfo
from guestwire.client.calls import text_of_bytes
from guestwire.client.carriers.base import Carrier
from guestwire.client.ending import surely
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import (
    AgentNotThere,
    AgentRefused,
    AgentTookTooLong,
    CallFailed,
    GuestStopped,
    LoginFailed,
    NoSuchEndpoint,
    NoSuchGuest,
    NotTrusted,
    Place,
    PrivilegeMissing,
    WrongParameters,
)
from guestwire.client.parts import GuestInfo, HostOfGuest
from guestwire.client.processes import Processes

if TYPE_CHECKING:
    from guestwire.client.files import Files, Progress
    from guestwire.client.folders import Folders
    from guestwire.client.streams import Mode, Stream

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0


THAWS_WITHIN: Final = 60.0
"""Seconds that one attempt to thaw may take."""

NOTHING_DONE: Final = (
    AgentNotThere, GuestStopped, LoginFailed, NoSuchEndpoint, NoSuchGuest, NotTrusted, PrivilegeMissing, WrongParameters,
)  # fmt: skip


def _did_nothing(error: BaseException) -> bool:
    """Whether the call that ended so can't have been executed."""
    return isinstance(error, NOTHING_DONE) or (isinstance(error, AgentRefused) and error.is_disabled)


class StillFrozen(CallFailed):
    """The guest's file systems could not be thawed."""

    exit_code = 7
    advice = (
        "thaw them at once: guestwire thaw GUEST; as long as they are frozen, everything that writes in the guest waits"
    )


class NotReady(CallFailed):
    """The guest's agent did not answer in time."""

    exit_code = 124
    advice = "`guestwire doctor GUEST` finds out why"


class FileSystems(list[FileSystem]):
    """Mounted file systems with a size, by mount point; sums in bytes, in which a device that is mounted twice counts once."""

    @property
    def total_bytes(self) -> int:
        """What they hold at most."""
        return sum(one.total_bytes or 0 for one in self._devices())

    @property
    def used_bytes(self) -> int:
        """What is used of it."""
        return sum(one.used_bytes or 0 for one in self._devices())

    def _devices(self) -> Iterable[FileSystem]:
        return {one.name: one for one in self}.values()


class Guest(Endpoints):
    """One guest. `run`, files by `read_file` and others, `freeze` and `shutdown` stand above the endpoints; beside it, `processes`, `files` and `folders`."""

    def __init__(self, host: HostOfGuest, carrier: Carrier, vm: GuestInfo, place: Place) -> None:
        super().__init__(carrier, vm.node, vm.vmid, place)
        self.host = host
        self.vm = vm
        self.run = self.processes.run

    @cached_property
    def processes(self) -> Processes:
        """Its processes."""
        return Processes(self, self.host)

    # Loaded when they are wanted: few calls are about files.

    @cached_property
    def files(self) -> "Files":
        """Its files."""
        from guestwire.client.files import Files  # noqa: PLC0415

        return Files(self, self.processes, self.host)

    @cached_property
    def folders(self) -> "Folders":
        """Its folders."""
        from guestwire.client.folders import Folders  # noqa: PLC0415

        return Folders(self.processes, self.files)

    async def is_windows(self) -> bool:
        """Whether the guest runs Windows; asked once."""
        return await self.processes.is_windows()

    # Files

    async def read_file(self, path: str) -> bytes:
        """The whole file; see `Files.read`."""
        return await self.files.read(path)

    async def write_file(
        self,
        path: str,
        data: "bytes | AsyncIterator[bytes]",
        *,
        mode: int | None = None,
        mtime: int | None = None,
        progress: "Progress | None" = None,
    ) -> int:
        """Makes `data` the whole file; see `Files.write`."""
        return await self.files.write(path, data, mode=mode, mtime=mtime, progress=progress)

    @contextlib.asynccontextmanager
    async def open(self, path: str, mode: "Mode" = "rb", *, permissions: int | None = None) -> "AsyncIterator[Stream]":
        """Opens a file as a stream of bytes.

        Args:
            path: in the guest.
            mode: `rb` reads. `wb` writes a new file, `ab` adds to what is there: either appears as a whole, when the stream is closed; after
                an exception nothing does. Adding takes a process in the guest.
            permissions: of a file that is written; default: see `Files.write`.

        Raises:
            CallFailed: it can't be read or written; see `client.errors`.
        """
        from guestwire.client.streams import opened  # noqa: PLC0415

        async with opened(path, mode, self.files, self.processes, permissions=permissions) as stream:
            yield stream

    async def copy_to(self, source: Path, path: str, *, progress: "Progress | None" = None) -> int:
        """Copies a file to the guest; see `Files.copy_to`. A folder: `folders.copy_to`."""
        return await self.files.copy_to(source, path, progress=progress)

    async def copy_from(self, path: str, target: Path, *, progress: "Progress | None" = None) -> int:
        """Copies a file from the guest; see `Files.copy_from`. A folder: `folders.copy_from`."""
        return await self.files.copy_from(path, target, progress=progress)

    # What the guest tells

    async def osinfo(self) -> OsInfo:
        """Which operating system it runs; see `get_osinfo`."""
        return await self.get_osinfo()

    async def interfaces(self) -> list[Interface]:
        """Its network interfaces and addresses; see `network_get_interfaces`."""
        return await self.network_get_interfaces()

    async def filesystems(self) -> FileSystems:
        """Its mounted file systems with their use, by mount point, and the sums; those without a size (pseudo file systems) are left out."""
        found = (one for one in await self.get_fsinfo() if one.total_bytes)
        return FileSystems(sorted(found, key=lambda one: one.mountpoint))

    # What changes it

    async def set_user_password(self, username: str, password: str, *, crypted: bool = False) -> None:
        """Sets the password of a user in the guest, which gets it as UTF-8.

        Args:
            username: The user in the guest.
            password: The new password.
            crypted: The password is a hash already.
        """
        await super().set_user_password(username, text_of_bytes(password), crypted=crypted)

    async def wait_ready(self, timeout: float = 120.0) -> None:
        """Waits until the agent answers; also for a VM that is just being started.

        Raises:
            NotReady: it does not within that many seconds.
        """
        pause, why = FIRST_PAUSE, "no answer"
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await self.ping()
                    except (AgentNotThere, AgentTookTooLong, GuestStopped) as error:
                        why = error.words
                    else:
                        return
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
        except TimeoutError:
            raise NotReady(self.place, f"not ready after {timeout:g} seconds: {why}") from None

    @contextlib.asynccontextmanager
    async def freeze(self) -> AsyncIterator[int]:
        """Freezes the guest's file systems, and thaws them at the end, whatever happens; gives how many are frozen.

        Raises:
            StillFrozen: they could not be thawed.
            CallFailed: they could not be frozen. Where some may have been, they are thawed then, too.
        """
        try:
            count = await self.fsfreeze_freeze()
        except BaseException as error:
            if not _did_nothing(error):
                await surely(self._thaw())
            raise
        try:
            yield count
        finally:
            await surely(self._thaw())

    async def _thaw(self, attempts: int = 5) -> None:
        why = "they are still frozen"
        for attempt in range(attempts):
            try:
                async with asyncio.timeout(THAWS_WITHIN):
                    await self.fsfreeze_thaw()
                    if await self.fsfreeze_status() == "thawed":
                        return
            except (CallFailed, TimeoutError) as error:
                why = error.words if isinstance(error, CallFailed) else f"no answer within {THAWS_WITHIN:g} seconds"
            await asyncio.sleep(FIRST_PAUSE * 2**attempt)
        raise StillFrozen(self.place, f"the file systems may still be frozen: {why}")

    async def shutdown(self, *, wait: float | None = None) -> None:
        """Shuts the guest down; with `wait`, waits until its VM is stopped or its agent gone, that many seconds at most.

        Raises:
            NotReady: it still runs then.
        """
        if wait is None:
            await super().shutdown()
            return
        try:
            async with asyncio.timeout(wait):
                # The agent says nothing to it: the call ends when the guest does, or after minutes.
                await super().shutdown()
                await self._off()
        except TimeoutError:
            raise NotReady(self.place, f"it still runs after {wait:g} seconds") from None

    async def _off(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self.ping()
            except (GuestStopped, AgentNotThere):
                return
            except AgentTookTooLong:
                pass
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
