"""Asks one guest's agent: typed answers, and work that outlives the caller who wanted it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from guestwire.agent.commands import Ask
from guestwire.channels import Channel, Late
from guestwire.errors import CommandFailed
from guestwire.wire import Command

T = TypeVar("T")


class Asker:
    """Asks one guest; any number of callers.

    Args:
        channel: reaches the guest. Belongs to whoever made it.
        guest: how messages name the guest, for example `VM 100`.
    """

    def __init__(self, channel: Channel, guest: str) -> None:
        self.channel = channel
        self.guest = guest
        self._tasks: set[asyncio.Task[Any]] = set()

    async def forward(self, command: Command, arguments: dict[str, Any] | None = None) -> Any:
        """The answer as the agent gave it, whatever its shape.

        Raises:
            GuestError: see `Channel.execute`.
        """
        return self._decoded(command, await self.channel.execute(command, arguments), Any)

    async def ask(self, ask: Ask[T], arguments: dict[str, Any] | None = None, *, late: Late | None = None) -> T:
        """The typed answer to a command.

        Raises:
            GuestError: see `Channel.execute`; CommandFailed also when the answer is not of that type.
        """
        answer: T = self._decoded(
            ask.command, await self.channel.execute(ask.command, arguments, late=late), ask.answer
        )
        return answer

    def keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs `work` to its end, also when its caller goes away; `close` ends it."""
        task = asyncio.get_running_loop().create_task(work, name=f"work for {self.guest}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Ends what is still under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _decoded(self, command: Command, answer: bytes, shape: Any) -> Any:
        try:
            return msgspec.json.decode(answer, type=shape)
        except (msgspec.DecodeError, RecursionError) as error:
            raise CommandFailed(self.guest, command.name, f"unexpected answer: {error}") from error
