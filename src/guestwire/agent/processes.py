"""Processes in a guest: they are started, and how they ended can be read any number of times."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from guestwire.agent.agent_client import AgentClient
from guestwire.agent.commands import EXEC, EXEC_STATUS, Capture, exec_arguments
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.output_files import OutputFiles
from guestwire.agent.results import ProcessStatus
from guestwire.errors import GuestError
from guestwire.pacing import Backoff
from guestwire.wire import Reply

FIRST_PAUSE: Final = 0.005
LONGEST_PAUSE: Final = 0.5
"""Seconds between looks at a process that is waited for."""

STOPS_WITHIN: Final = 10.0
"""Seconds that a process may take to end when it was told to."""


class Processes:
    """Processes of one guest."""

    def __init__(self, agent: AgentClient, exit_statuses: ExitStatusCache) -> None:
        self._agent = agent
        self._exit_statuses = exit_statuses
        self._requests: dict[int, asyncio.Task[ProcessStatus]] = {}
        limit = agent.channel.limits.reply
        self._files = OutputFiles(agent) if limit and limit < EXEC_STATUS.command.reply_limit else None

    async def start(
        self,
        command: Sequence[str],
        input_data: bytes | None = None,
        *,
        env: Sequence[str] | None = None,
        capture: Capture = "separated",
    ) -> int:
        """Starts `command[0]` with the rest as arguments; its output is captured, 16 MiB of each stream.

        Args:
            command: program and arguments.
            input_data: standard input.
            env: the whole environment, as `NAME=VALUE`; None: the agent's own.
            capture: the outputs that are kept.

        Returns:
            The process's id in the guest.

        Raises:
            AgentError: the guest's own reason (no such program, …).
            GuestError: see `Channel.execute`.
        """
        kept = capture
        if self._files and command and capture != "none":
            command, kept = await self._files.redirected(command, capture)
        started = await self._agent.execute(EXEC, exec_arguments(command, input_data, env=env, capture=kept))
        if self._files:
            self._files.started(started.pid)
        self._exit_statuses.drop(self._agent.guest, started.pid)
        return started.pid

    async def run(
        self, command: Sequence[str], *, interrupt: Callable[[int], Sequence[str]] | None = None
    ) -> ProcessStatus:
        """Runs a program to its end, which the caller waits for as long as it likes; nobody else can ask for the result.

        Args:
            command: program and arguments.
            interrupt: the command that stops a process by its id, for a caller that goes away; None leaves it running.

        Raises:
            GuestError: as for `start` and `status`.
        """
        pid = await self.start(command)
        try:
            return await self._wait(pid)
        except asyncio.CancelledError:
            if interrupt:
                self._agent.spawn(self._stop(pid, interrupt(pid)))
            raise

    async def _wait(self, pid: int) -> ProcessStatus:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not (status := await self.status(pid)).exited:  # noqa: ASYNC110  # only asking tells
            await asyncio.sleep(backoff.next())
        self._exit_statuses.drop(self._agent.guest, pid)
        return status

    async def _stop(self, pid: int, interrupt: Sequence[str]) -> None:
        """Stops a process, and reads how both ended: an agent keeps what nobody has read."""
        with contextlib.suppress(GuestError, TimeoutError):
            async with asyncio.timeout(STOPS_WITHIN):
                for one in (await self.start(interrupt), pid):
                    await self._wait(one)

    async def status(self, pid: int) -> ProcessStatus:
        """The state of a process: it runs, or how it ended; an ended one can be asked for again for ten minutes.

        Raises:
            AgentError: the agent knows no such process.
            GuestError: see `Channel.execute`.
        """
        if kept := self._exit_statuses.get(self._agent.guest, pid):
            return kept
        # The first request takes the only answer there is: callers meanwhile share it, and a caller that leaves takes
        # nothing away.
        request = self._requests.get(pid)
        if request is None:
            request = self._requests[pid] = self._agent.spawn(self._request(pid))
        return await asyncio.shield(request)

    async def _request(self, pid: int) -> ProcessStatus:
        def on_late_reply(reply: Reply) -> None:
            if reply.value is not msgspec.UNSET:
                with contextlib.suppress(msgspec.DecodeError):
                    self._keep(pid, msgspec.json.decode(reply.value, type=ProcessStatus))

        try:
            if self._files:
                status = await self._files.status(pid)
            else:
                status = await self._agent.execute(EXEC_STATUS, {"pid": pid}, on_late_reply=on_late_reply)
        finally:
            self._requests.pop(pid, None)
        self._keep(pid, status)
        return status

    def _keep(self, pid: int, status: ProcessStatus) -> None:
        if status.exited:
            self._exit_statuses.put(self._agent.guest, pid, status)
