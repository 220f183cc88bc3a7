"""Bytes between an end of this machine (standard streams, a socket) and one in a guest, both ways at the same time."""

import os
import signal
import stat
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

if TYPE_CHECKING:
    import asyncio

    from guestwire.client.live_processes import LiveProcess

CHUNK: Final = 64 * 1024

LINGER: Final = 5.0
"""Seconds of silence that end a connection whose end can't be passed on to the guest."""


class End(Protocol):
    """One of two ends, as `TcpConnection` is one."""

    async def read(self, size: int) -> bytes:
        """At most so many bytes, as soon as there are some; `b""` at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Writes all of it."""
        ...

    async def write_eof(self) -> None:
        """Says that no more will be written."""
        ...


class GuestEnd(End, Protocol):
    """The end in the guest."""

    can_write_eof: bool


class ProcessEnd:
    """Standard input and output of a program in a guest that serves a connection."""

    can_write_eof = False

    def __init__(self, process: "LiveProcess") -> None:
        self.read = process.stdout.read
        self.write = process.stdin.write
        self.write_eof = process.stdin.close


class SocketEnd:
    """A connection that this machine has."""

    def __init__(self, reader: "asyncio.StreamReader", writer: "asyncio.StreamWriter") -> None:
        self.read = reader.read
        self._writer = writer

    async def write(self, data: bytes) -> None:
        """Sends them; waits while the other side takes none."""
        self._writer.write(data)
        await self._writer.drain()

    async def write_eof(self) -> None:
        """Ends this direction."""
        self._writer.write_eof()


class StandardStreams:
    """Standard input and output, whatever they are: pipes, sockets, files, a terminal.

    Pipes and sockets do not block meanwhile; afterwards they are as they were, for other programs may have them, too.
    """

    def __init__(self) -> None:
        self._is_blocking = os.get_blocking(1)

    def __enter__(self) -> Self:
        # A terminal takes what it gets, and would not block for its other programs either.
        if stat.S_ISFIFO(mode := os.fstat(1).st_mode) or stat.S_ISSOCK(mode):
            os.set_blocking(1, False)
        return self

    def __exit__(self, *_: object) -> None:
        os.set_blocking(1, self._is_blocking)

    async def read(self, size: int) -> bytes:
        """What is there, once there is something: then reading does not block."""
        import asyncio  # noqa: PLC0415  # `--help` must not wait for it

        loop = asyncio.get_running_loop()
        await _ready(0, loop.add_reader, loop.remove_reader)
        return os.read(0, size)

    async def write(self, data: bytes) -> None:
        """Writes all of it; waits while nothing is taken."""
        import asyncio  # noqa: PLC0415  # `--help` must not wait for it

        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(1, data) :]
            except BlockingIOError:
                await _ready(1, loop.add_writer, loop.remove_writer)

    async def write_eof(self) -> None:
        """The end of this program is that of its output."""


async def _ready(file: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    """Waits until a file can be read or written; one that is no pipe and the like always can."""
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def be_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        add(file, be_ready)
    except PermissionError:
        return
    try:
        await ready
    finally:
        remove(file)


async def carry(here: End, guest: GuestEnd, *, until_guest_ends: bool) -> bool:
    """Passes bytes on both ways.

    Args:
        here: this machine's end.
        guest: the guest's.
        until_guest_ends: no more is sent once the guest sends no more; else each direction has its own end.

    Returns:
        True if the guest sends no more; False: this machine's end has ended, and the guest's does not know.

    Raises:
        GuestwireError: the guest's end broke.
        OSError: this machine's did.
    """
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    both = _BothWays(here, guest)
    receiving = asyncio.create_task(both.receive(), name="from the guest")
    sending = asyncio.create_task(both.send(), name="to the guest")
    waiting = {receiving, sending}
    try:
        while waiting and not both.is_silent and not (until_guest_ends and receiving.done()):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return receiving.done()
    finally:
        receiving.cancel()
        sending.cancel()
        await asyncio.gather(receiving, sending, return_exceptions=True)


class _BothWays:
    """What `carry` does.

    Attributes:
        is_silent: all was sent, the guest can't be told so, and nothing comes from it any more.
    """

    def __init__(self, here: End, guest: GuestEnd) -> None:
        self._here = here
        self._guest = guest
        self._heard = 0.0
        self.is_silent = False

    async def send(self) -> None:
        import asyncio  # noqa: PLC0415  # `--help` must not wait for it

        while data := await self._here.read(CHUNK):
            try:
                await self._guest.write(data)
            except BrokenPipeError:
                return  # it takes no more, and may still send
        if self._guest.can_write_eof:
            await self._guest.write_eof()
            return
        self._heard = time.monotonic()
        while (left := self._heard + LINGER - time.monotonic()) > 0:  # noqa: ASYNC110  # silence is no event
            await asyncio.sleep(left)  # which `receive` makes longer
        self.is_silent = True

    async def receive(self) -> None:
        while data := await self._guest.read(CHUNK):
            self._heard = time.monotonic()
            await self._here.write(data)
        await self._here.write_eof()


async def until_signal(work: Coroutine[Any, Any, int], *signals: signal.Signals) -> int:
    """Does the work. SIGHUP, SIGTERM and these end it, with exit code 128 + N, when it has left nothing in a guest."""
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    came: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        came.append(number)
        task.cancel()

    numbers = (signal.SIGHUP, signal.SIGTERM, *signals)
    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        if came and task.cancelled():
            return 128 + came[0]
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
