"""A relay by the commands of its guest's agent alone: handles that stay open, commands that are sent ahead."""

import asyncio
import re
from typing import Final

from guestwire.agent.commands import FILE_CLOSE, FILE_FLUSH, FILE_OPEN, FILE_READ, FILE_SEEK, FILE_WRITE, INFO
from guestwire.agent.files import OpenFile
from guestwire.agent.guest import GuestAgent
from guestwire.agent.results import ProcessStatus
from guestwire.errors import AgentError, GuestError
from guestwire.streams.port_process import PortProcess, start_on_port
from guestwire.streams.relay import NO_FILES
from guestwire.streams.relay_process import Pace, RelayProcess, start_process
from guestwire.streams.remote_process import StreamRequest

_output: Final = re.compile(r"[12]\.\d+")

USED: Final = frozenset(
    one.command.name for one in (FILE_OPEN, FILE_CLOSE, FILE_READ, FILE_WRITE, FILE_SEEK, FILE_FLUSH)
)


class AgentAccess:
    """See `RelayAccess`."""

    way = "agent"
    pace = Pace(0.002, 0.05, 0.25)
    largest_frame = 24 * 1024

    def __init__(self, agent: GuestAgent) -> None:
        self.guest = agent.guest
        self._agent = agent
        self.moves = agent.stream_moves
        self._files: dict[str, OpenFile] = {}
        self._opening = asyncio.Lock()

    async def check(self) -> None:
        """See `RelayAccess.check`."""
        try:
            listed = (await self._agent.execute(INFO)).supported_commands
        except AgentError:  # one that does not tell is tried
            return
        enabled = {one.name for one in listed if one.enabled}
        if not enabled >= USED:
            raise GuestError(f"{self.guest}: {NO_FILES}")

    async def start(self, command: list[str]) -> int:
        """See `RelayAccess.start`."""
        return await self._agent.processes.start(command, capture="none")

    async def status(self, pid: int) -> ProcessStatus:
        """See `RelayAccess.status`."""
        async with self._agent.stream_looks:
            return await self._agent.processes.status(pid)

    async def read(self, path: str, offset: int, count: int) -> bytes:
        """See `RelayAccess.read`."""
        file = await self._open(path, "r")
        if not _output.fullmatch(path.rpartition("/")[2]):
            return await file.read(offset, count)
        async with self._agent.stream_looks:
            return await file.read(offset, count)

    async def write(self, path: str, data: bytes) -> None:
        """See `RelayAccess.write`."""
        await (await self._open(path, "r+")).write(data)

    async def forget(self, path: str) -> None:
        """See `RelayAccess.forget`."""
        if file := self._files.pop(path, None):
            file.close()

    async def forget_all(self) -> None:
        """See `RelayAccess.forget_all`."""
        for path in [*self._files]:
            await self.forget(path)

    async def _open(self, path: str, mode: str) -> OpenFile:
        async with self._opening:
            if path not in self._files:
                self._files[path] = await self._agent.files.open(path, mode)
        return self._files[path]


async def start_in_guest(agent: GuestAgent, request: StreamRequest) -> RelayProcess | PortProcess:
    """Starts a program by its guest's agent, and over ports of our own where its VM can be given some; see `start_process`."""
    async with agent.stream_starts:
        process = await _start_connection(agent, request) or await start_process(
            AgentAccess(agent), request, agent.ports
        )
    agent.long_work.add(process)
    process.on_close = lambda: agent.long_work.discard(process)
    return process


async def _start_connection(agent: GuestAgent, request: StreamRequest) -> PortProcess | None:
    """A program that wants no more than a port can give, by one; None: it goes another way."""
    is_plain = request == StreamRequest(request.argv, connection=True)
    if not is_plain or not agent.ports or agent.ports.needs_acknowledgement:
        return None
    return await start_on_port(agent, request, agent.ports)
