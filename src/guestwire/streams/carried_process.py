"""What all programs have alike whose bytes this process carries: their exit, their outputs, and that a stream breaks once."""

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from guestwire.agent.missing_commands import is_refused
from guestwire.channels.own_port import OwnPorts
from guestwire.errors import AgentError, GuestError, GuestwireError, StreamBroken
from guestwire.pacing import Backoff
from guestwire.streams.buffers import OutputBuffer
from guestwire.streams.remote_process import Exit, Output

T = TypeVar("T")

PATIENCE: Final = 20.0
"""Seconds that agent or host may be away; what is in the guest waits about as long."""

FROZEN_FOR: Final = 600.0
"""Seconds that the file systems of a guest may be frozen; what is in it waits as long."""

RESET: Final = "its VM was reset"


class CarriedProcess(ABC):
    """The part of a `RemoteProcess` that does not depend on how its bytes go.

    Args:
        guest: how messages name the guest.
        pid: the program's.
        outputs: those that it has.
        ports: of the VM, where it can be given some.
        resets: of the VM before its start.

    Attributes:
        on_close: called when nothing of it is left.
    """

    def __init__(self, guest: str, pid: int, outputs: Sequence[Output], *, ports: OwnPorts | None, resets: int) -> None:
        self.pid = pid
        self.on_close: Callable[[], None] = lambda: None
        self._guest = guest
        self._ports = ports
        self._resets = resets
        self._buffers = {output: OutputBuffer() for output in outputs}
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._broken: StreamBroken | None = None
        self._closing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self, output: Output) -> bytes:
        """See `RemoteProcess.receive`."""
        buffer = self._buffers.get(output)
        return await buffer.get() if buffer else b""

    async def wait(self) -> Exit:
        """See `RemoteProcess.wait`."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """See `RemoteProcess.close`."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name=f"end of process {self.pid}")
        await asyncio.shield(self._closing)

    @abstractmethod
    async def _close(self) -> None:
        """Ends the program where it still runs, and leaves nothing of its stream."""

    async def _end_tasks(self) -> None:
        """The first half of `_close`'s work on this side."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end_all(self) -> None:
        """The second half: nobody waits for it any more."""
        for buffer in self._buffers.values():
            await buffer.end()
        if not self._exit.done():
            self._exit.set_exception(self._broken or self._broken_error("it was closed"))
            self._exit.exception()

    # Faults

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Makes a call that may be made twice, until agent and host answer again."""
        since = time.monotonic()
        pauses = Backoff(0.05, 1.0)
        while True:
            if self._broken:
                raise self._broken
            try:
                return await call()
            except GuestError as error:
                if self._was_reset:
                    await self._break(RESET)
                    raise self._broken or error from error
                patience = PATIENCE
                if isinstance(error, AgentError):
                    # What it did before it does again, when its file systems are thawed.
                    if not is_refused(error):
                        raise
                    patience = FROZEN_FOR
                if time.monotonic() - since > patience:
                    await self._break(str(error))
                    raise self._broken or error from error
            await asyncio.sleep(pauses.next())

    @property
    def _was_reset(self) -> bool:
        return self._ports is not None and self._ports.resets != self._resets

    def _broken_error(self, why: str) -> StreamBroken:
        if self._exit.done():
            fate = "it had ended before"
        elif self._was_reset:
            fate = "it ended with that"
        else:
            fate = "it is ended there within 25 seconds, if the guest still runs it"
        return StreamBroken(self._guest, self.pid, why, fate)

    async def _break(self, why: str) -> None:
        """Only the first reason counts."""
        if self._broken is None and self._closing is None:
            self._broken = self._broken_error(why)
            if not self._exit.done():
                self._exit.set_exception(self._broken)
                self._exit.exception()  # its waiter may be gone
            for buffer in self._buffers.values():
                await buffer.end(self._broken)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str = "") -> asyncio.Task[None]:
        async def until_broken() -> None:
            try:
                await work
            except StreamBroken:
                pass  # its users hear of it
            except GuestwireError as error:
                await self._break(str(error))

        task = asyncio.get_running_loop().create_task(until_broken(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def signal_word(number: signal.Signals) -> str:
    """The signal's name as `kill -s` takes it."""
    return signal.Signals(number).name.removeprefix("SIG")
