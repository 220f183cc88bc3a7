"""A client of one guest's agent: typed answers, and work that outlives the caller who wanted it."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import msgspec

from guestwire.agent.commands import TypedCommand
from guestwire.agent.results import NumberTooLarge, check_numbers
from guestwire.channels.channel import Channel, OnLateReply
from guestwire.errors import AgentError, UnexpectedAnswer
from guestwire.wire import Command

T = TypeVar("T")

RELEASED_WITHIN: Final = 1.0
"""Seconds."""


class AgentClient:
    """Executes commands in one guest, for any number of callers.

    Args:
        channel: reaches the guest. Belongs to its maker.
        guest: how messages name the guest, for example `VM 100`.

    Attributes:
        last_answer: when it last answered a command, in seconds since the epoch; None: it never did.
        is_closed: nothing is begun any more.
    """

    def __init__(self, channel: Channel, guest: str) -> None:
        self.channel = channel
        self.guest = guest
        self.last_answer: float | None = None
        self.is_closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._releases: set[asyncio.Task[Any]] = set()

    async def execute_raw(self, command: Command, arguments: dict[str, Any] | None = None) -> Any:
        """The answer as the agent gave it, whatever its shape.

        Raises:
            GuestError: see `Channel.execute`.
        """
        return self._decode(command, await self._send(command, arguments), Any)

    async def execute(
        self,
        typed: TypedCommand[T],
        arguments: dict[str, Any] | None = None,
        *,
        on_late_reply: OnLateReply | None = None,
    ) -> T:
        """The typed answer to a command.

        Raises:
            GuestError: see `Channel.execute`; UnexpectedAnswer also when the answer is not of that type.
        """
        answer = await self._send(typed.command, arguments, on_late_reply)
        decoded: T = self._decode(typed.command, answer, typed.answer)
        return decoded

    async def _send(
        self, command: Command, arguments: dict[str, Any] | None, on_late_reply: OnLateReply | None = None
    ) -> bytes:
        try:
            answer = await self.channel.execute(command, arguments, on_late_reply=on_late_reply)
        except AgentError:
            self.last_answer = time.time()
            raise
        self.last_answer = time.time()
        return answer

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs `work` to its end, also when its caller goes away; `close` cancels it."""
        return self._run(work, self._tasks)

    def spawn_release(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` that gives back what the agent holds for us, which it would hold until it ends; `close` waits for it.

        It may begin when this is closed, and the channel is just being closed, too: its calls end with that.
        """
        self._run(work, self._releases)

    def _run(self, work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]]) -> asyncio.Task[T]:
        def forget(task: asyncio.Task[T]) -> None:
            tasks.discard(task)
            if not task.cancelled():
                task.exception()  # an error whose caller went away is nothing for the log: the guest decides how often it comes

        task = asyncio.get_running_loop().create_task(work, name=f"work for {self.guest}")
        tasks.add(task)
        task.add_done_callback(forget)
        return task

    async def close(self) -> None:
        """Cancels what is still under way, and gives back what the agent holds for us."""
        self.is_closed = True
        await _cancel(self._tasks)
        if self._releases:
            await asyncio.wait(self._releases, timeout=RELEASED_WITHIN)
        await _cancel(self._releases)

    def _decode(self, command: Command, answer: bytes, shape: Any) -> Any:
        try:
            return check_numbers(msgspec.json.decode(answer, type=shape))
        except (msgspec.DecodeError, RecursionError, NumberTooLarge) as error:
            raise UnexpectedAnswer(self.guest, command.name, str(error)) from error


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    left = list(tasks)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
