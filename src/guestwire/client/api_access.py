"""A relay by the calls of an API alone, as Proxmox VE has them: no handles, and each call takes its time."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from guestwire.client.errors import AgentRefused, CallFailed, is_passing
from guestwire.client.processes import Processes
from guestwire.contract.results import ProcessState
from guestwire.errors import AgentError, GuestError
from guestwire.streams.relay import NO_FILES
from guestwire.streams.relay_process import Pace

USED: Final = frozenset({"guest-file-open", "guest-file-read", "guest-file-seek", "guest-file-close"})

WRITE: Final = 'exec cat >"$1"'
"""Into a FIFO that the relay reads."""

WRITTEN_WITHIN: Final = 20.0
"""Seconds: a FIFO that nobody reads is not even opened."""


class ApiAccess:
    """See `RelayAccess`."""

    way = "api"
    pace = Pace(0.05, 0.5, 1.0)
    largest_frame = 24 * 1024

    def __init__(self, processes: Processes) -> None:
        self.guest = str(processes.context)
        self._calls = processes.calls
        self._processes = processes
        self.moves = asyncio.Semaphore()
        self._turn = asyncio.Lock()
        self._ended: dict[int, ProcessState[str]] = {}
        """Proxmox VE says once how a process ended."""

    async def check(self) -> None:
        """See `RelayAccess.check`."""
        try:
            with _as_guest_errors():
                listed = (await self._calls.info()).supported_commands
        except AgentError:  # one that does not tell is tried
            return
        if not {one.name for one in listed if one.enabled} >= USED:
            raise GuestError(f"{self.guest}: {NO_FILES}")

    async def start(self, command: list[str]) -> int:
        """See `RelayAccess.start`."""
        with _as_guest_errors():
            return await self._processes.start(command)

    async def status(self, pid: int) -> ProcessState[str]:
        """See `RelayAccess.status`."""
        async with self._turn:
            if pid not in self._ended:
                with _as_guest_errors():
                    state = await self._calls.exec_status(pid)
                if not state.exited:
                    return state
                self._ended[pid] = state
            return self._ended[pid]

    async def read(self, path: str, offset: int, count: int) -> bytes:
        """See `RelayAccess.read`."""
        with _as_guest_errors():
            return (await self._calls.read_bytes(path, offset=offset, count=count)).content

    async def write(self, path: str, data: bytes) -> None:
        """See `RelayAccess.write`."""
        with _as_guest_errors():
            written = await self._processes.run(
                ["/bin/sh", "-c", WRITE, "sh", path], input=data, timeout=WRITTEN_WITHIN
            )
        if not written.ok:
            raise AgentError("GenericError", "the relay reads no more")

    async def forget(self, path: str) -> None:
        """See `RelayAccess.forget`; nothing is kept open."""

    async def forget_all(self) -> None:
        """See `RelayAccess.forget_all`."""


@contextlib.contextmanager
def _as_guest_errors() -> Iterator[None]:
    """What may be tried again, and what the agent itself refuses, as they are called below the client; others stay as they are."""
    try:
        yield
    except AgentRefused as error:
        raise AgentError(error.error_class, error.description) from error
    except CallFailed as error:
        if is_passing(error):
            raise GuestError(str(error)) from error
        raise
