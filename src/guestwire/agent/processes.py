"""Processes in a guest: start them, and read how they ended as often as one likes."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from guestwire.agent.asker import Asker
from guestwire.agent.commands import EXEC, EXEC_STATUS
from guestwire.agent.kept import KeptResults
from guestwire.agent.results import ProcessStatus
from guestwire.wire import Reply


class Processes:
    """Processes of one guest."""

    def __init__(self, asker: Asker, kept: KeptResults) -> None:
        self._asker = asker
        self._kept = kept
        self._asking: dict[int, asyncio.Task[ProcessStatus]] = {}

    async def start(self, command: Sequence[str], input_data: bytes | None = None) -> int:
        """Starts `command[0]` with the rest as arguments; its output is captured, 16 MiB of each stream.

        Returns:
            The process's id in the guest.

        Raises:
            AgentError: the guest's own reason (no such program, …).
            GuestError: see `Channel.execute`.
        """
        started = await self._asker.ask(EXEC, _exec_arguments(command, input_data))
        self._kept.drop(self._asker.guest, started.pid)
        return started.pid

    async def status(self, pid: int) -> ProcessStatus:
        """Whether the process still runs, or how it ended; an ended one can be asked for again for ten minutes.

        Raises:
            AgentError: the agent knows no such process.
            GuestError: see `Channel.execute`.
        """
        if kept := self._kept.get(self._asker.guest, pid):
            return kept
        # The first to ask takes the only answer there is: whoever asks meanwhile shares it, whoever leaves loses nothing.
        asking = self._asking.get(pid)
        if asking is None:
            asking = self._asking[pid] = self._asker.keep(self._ask(pid))
        return await asyncio.shield(asking)

    async def _ask(self, pid: int) -> ProcessStatus:
        def late(reply: Reply) -> None:
            if reply.value is not msgspec.UNSET:
                with contextlib.suppress(msgspec.DecodeError):
                    self._keep(pid, msgspec.json.decode(reply.value, type=ProcessStatus))

        try:
            status = await self._asker.ask(EXEC_STATUS, {"pid": pid}, late=late)
        finally:
            self._asking.pop(pid, None)
        self._keep(pid, status)
        return status

    def _keep(self, pid: int, status: ProcessStatus) -> None:
        if status.exited:
            self._kept.put(self._asker.guest, pid, status)


def _exec_arguments(command: Sequence[str], input_data: bytes | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {"capture-output": True}
    if command:
        arguments |= {"path": command[0], "arg": list(command[1:])}
    if input_data is not None:
        arguments["input-data"] = input_data
    return arguments
