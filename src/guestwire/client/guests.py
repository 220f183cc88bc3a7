"""A guest: the endpoints below its agent as typed methods, and what people want above them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING, Final

from guestwire.agent.results import FileSystem
from guestwire.client.carriers.base import Carrier
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import AgentNotThere, AgentTookTooLong, CallFailed, GuestStopped, Place
from guestwire.client.parts import GuestInfo, HostOfGuest
from guestwire.client.processes import Processes

if TYPE_CHECKING:
    from guestwire.client.files import Files
    from guestwire.client.folders import Folders

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0


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


class Guest(Endpoints):
    """One guest. Its methods beside those of `Endpoints`: `run`, `wait_ready`, `frozen`, `filesystems`, `power_off`."""

    def __init__(self, host: HostOfGuest, carrier: Carrier, vm: GuestInfo, place: Place) -> None:
        super().__init__(carrier, vm.node, vm.vmid, place)
        self.host = host
        self.vm = vm
        self.processes = Processes(self, host)
        self.run = self.processes.run

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
        """Whether the guest runs Windows."""
        return (await self.get_osinfo()).id == "mswindows"

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
    async def frozen(self) -> AsyncIterator[int]:
        """Freezes the guest's file systems, and thaws them at the end, whatever happens; gives how many are frozen.

        Raises:
            StillFrozen: they could not be thawed.
            CallFailed: they could not be frozen. They are thawed then, too: some may have been.
        """
        try:
            yield await self.fsfreeze_freeze()
        finally:
            await asyncio.shield(self._thaw_surely())

    async def _thaw_surely(self, attempts: int = 5) -> None:
        why = "?"
        for attempt in range(attempts):
            try:
                await self.fsfreeze_thaw()
                if await self.fsfreeze_status() == "thawed":
                    return
            except CallFailed as error:
                why = error.words
            await asyncio.sleep(FIRST_PAUSE * 2**attempt)
        raise StillFrozen(self.place, f"the file systems may still be frozen: {why}")

    async def filesystems(self) -> list[FileSystem]:
        """Mounted file systems by mount point, with their use; those without a size (pseudo file systems) are left out."""
        found = [one for one in await self.get_fsinfo() if one.total_bytes]
        return sorted(found, key=lambda one: one.mountpoint)

    async def power_off(self, *, wait: float | None = None) -> None:
        """Shuts the guest down; with `wait`, waits until its VM is stopped or its agent gone, that many seconds at most.

        Raises:
            NotReady: it still runs then.
        """
        if wait is None:
            await self.shutdown()
            return
        try:
            async with asyncio.timeout(wait):
                # The agent says nothing to it: the call ends when the guest does, or after minutes.
                await self.shutdown()
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
