"""One guest's agent."""

import asyncio
from typing import Any, Final, Protocol

from guestwire.agent.agent_client import AgentClient
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.files import Files
from guestwire.agent.large_files import LargeFiles
from guestwire.agent.processes import Processes
from guestwire.channels.channel import Channel, OnLateReply
from guestwire.channels.own_port import OwnPorts
from guestwire.wire import Command

FREEZES: Final = frozenset({"guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list"})


STARTS_AT_ONCE: Final = 3
MOVES_AT_ONCE: Final = 2
LOOKS_AT_ONCE: Final = 2


class LongWork(Protocol):
    """What goes on in a guest for long by its agent."""

    async def prepare_freeze(self) -> None:
        """File systems are to be frozen: the agent will take no other command until they are thawed."""
        ...

    async def close(self) -> None:
        """Ends it, in a bounded time."""
        ...


class GuestAgent(AgentClient):
    """The agent of one guest: single commands (`execute`, `execute_raw`), `files` and `processes`.

    Args:
        channel: reaches the guest. Belongs to its maker.
        guest: how messages name the guest, for example `VM 100`.
        exit_statuses: keeps the results of ended processes; shared by all guests.
        ports: for large files and streams, where the VM can be given ports.

    Attributes:
        ports: these.
        long_work: what goes on; it adds and removes itself.
        stream_starts: held while a stream starts, which takes a dozen processes: more at once take longer than one by one.
        stream_moves: held while one goes over to ports of our own, which takes as many.
        stream_looks: held while one looks for what may have come: the agent does one thing after the other, and orders and
            new programs must not wait behind the looks of all.
    """

    def __init__(
        self, channel: Channel, guest: str, exit_statuses: ExitStatusCache, ports: OwnPorts | None = None
    ) -> None:
        super().__init__(channel, guest)
        self.freeze_turn = asyncio.Lock()
        """Held by whoever freezes the guest for a time."""
        self.ports = ports
        self.long_work: set[LongWork] = set()
        self.stream_starts = asyncio.Semaphore(STARTS_AT_ONCE)
        self.stream_moves = asyncio.Semaphore(MOVES_AT_ONCE)
        self.stream_looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._large_files = LargeFiles(self, ports) if ports else None
        self.files = self._large_files or Files(self)
        self.processes = Processes(self, exit_statuses)

    async def _send(
        self, command: Command, arguments: dict[str, Any] | None, on_late_reply: OnLateReply | None = None
    ) -> bytes:
        if command.name in FREEZES:
            if self._large_files:
                await self._large_files.end_relay()
            await asyncio.gather(*(work.prepare_freeze() for work in self.long_work), return_exceptions=True)
        return await super()._send(command, arguments, on_late_reply)

    async def close(self) -> None:
        """See `AgentClient.close`; the channel must still be open."""
        await asyncio.gather(*(work.close() for work in self.long_work), return_exceptions=True)
        if self._large_files:
            await self._large_files.end_relay()
        await super().close()
