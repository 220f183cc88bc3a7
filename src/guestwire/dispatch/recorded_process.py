"""A program that a call has started, whose end is recorded as the call's."""

import signal
from collections.abc import Callable

from guestwire.counting import counted
from guestwire.errors import GuestError
from guestwire.streams.remote_process import Exit, Output, RemoteProcess, WindowSize

OnEnd = Callable[[int, str], None]
"""Gets a status and what became of it."""


class RecordedProcess:
    """See `RemoteProcess`; it counts what goes through.

    Args:
        process: belongs to this one.
        on_end: called once, when it is closed.
    """

    def __init__(self, process: RemoteProcess, on_end: OnEnd) -> None:
        self._process = process
        self._on_end: OnEnd | None = on_end
        self._exit: Exit | None = None
        self._sent = self._received = 0
        self.pid = process.pid

    @property
    def way(self) -> str:
        """See `RemoteProcess.way`."""
        return self._process.way

    async def send(self, data: bytes) -> None:
        """See `RemoteProcess.send`."""
        await self._process.send(data)
        self._sent += len(data)

    async def send_eof(self) -> None:
        """See `RemoteProcess.send_eof`."""
        await self._process.send_eof()

    async def receive(self, output: Output) -> bytes:
        """See `RemoteProcess.receive`."""
        data = await self._process.receive(output)
        self._received += len(data)
        return data

    async def resize(self, size: WindowSize) -> None:
        """See `RemoteProcess.resize`."""
        await self._process.resize(size)

    async def kill(self, number: signal.Signals) -> None:
        """See `RemoteProcess.kill`."""
        await self._process.kill(number)

    async def wait(self) -> Exit:
        """See `RemoteProcess.wait`."""
        self._exit = await self._process.wait()
        return self._exit

    async def leave(self) -> None:
        """See `RemoteProcess.leave`."""
        await self._process.leave()
        self._end(200, "it was left running")

    async def close(self) -> None:
        """See `RemoteProcess.close`."""
        try:
            await self._process.close()
        finally:
            if self._on_end:
                status = 200
                try:
                    ended = self._exit or await self._process.wait()
                    how = f"signal {ended.signal}" if ended.code is None else f"exit code {ended.code}"
                except GuestError as error:
                    status, how = error.status, str(error)
                self._end(status, how)

    def _end(self, status: int, how: str) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end:
            sizes = f"{counted(self._sent, 'byte')} in, {counted(self._received, 'byte')} out"
            on_end(status, f"process {self.pid}: {how}; {sizes}")
