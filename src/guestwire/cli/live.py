"""A program in a guest at this machine's terminal or pipes, while it runs: what `exec` and `shell` have in common."""

import asyncio
import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from guestwire.cli.output import note, visible
from guestwire.cli.terminal import writer
from guestwire.cli.watched import BYTE, SIGNALLED, LeftRunning
from guestwire.client.errors import StreamEnded
from guestwire.client.live_processes import DEFAULT_WINDOW
from guestwire.client.processes import StillRunning
from guestwire.errors import GuestwireError
from guestwire.streams.remote_process import MOST_AT_ONCE, WindowSize

if TYPE_CHECKING:
    from guestwire.client import Guest
    from guestwire.client.live_processes import LiveProcess, OutputStream

ENDS_WITHIN: Final = 3.0
OUTPUTS_WITHIN: Final = 1.0
"""Seconds from Ctrl-C to a program's end, and from that to the end of its outputs, if it has left nobody behind."""

RESIZED_EVERY: Final = 0.2
"""Seconds from one size of a window to the next, at least."""

ESCAPE: Final = b"~."
"""Typed at the beginning of a line, it ends a terminal's connection, as with OpenSSH."""

HAS_ENDED: Final = "process {pid} has ended, and what it started was left running"
LEFT: Final = "process {pid} was left running; `guestwire status {name} {pid}` tells how it ends, without what it writes from now on"


class Hangup(GuestwireError):
    """This command was told to end, and its program with it."""

    exit_code = 129
    """As after SIGHUP, which the program got."""


class TimeIsUp(GuestwireError):
    """A program on a terminal has not ended in its time, and ended with that."""

    exit_code = 124
    """As of `StillRunning`."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is to run.

    Attributes:
        argv: program and arguments.
        tty: it gets this terminal.
        stdin: it gets this standard input.
        env: more variables.
        cwd: its working directory.
        user: the guest's user it runs as.
        timeout: seconds after which it is left running, or loses its terminal.
    """

    argv: Sequence[str]
    tty: bool = False
    stdin: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    user: str | None = None
    timeout: float | None = None


async def run_live(guest: "Guest", program: Program) -> int:
    """Runs a program at this machine's standard streams; the exit code to end with.

    Without a terminal, the first Ctrl-C goes to the program, and the second leaves it running.

    Raises:
        LeftRunning: it was interrupted.
        StillRunning: the time is up.
        TimeIsUp: as well, with a terminal.
        CallFailed: see `client.errors`.
    """
    env = dict(program.env)
    if program.tty:
        env.setdefault("TERM", os.environ.get("TERM", "xterm-256color"))
    window = _window()
    starting = guest.start(
        program.argv,
        tty=window if program.tty else False,
        env=env,
        cwd=program.cwd,
        user=program.user,
        input=program.stdin or program.tty,
    )
    async with contextlib.AsyncExitStack() as stack:
        process = await _start(guest, stack.enter_async_context(starting))
        live = _Live(guest, process, program, window)
        with _raw_terminal() if program.tty else contextlib.nullcontext():
            return await live.carry()


async def _start(guest: "Guest", starting: "Coroutine[Any, Any, LiveProcess]") -> "LiveProcess":
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(starting)
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise LeftRunning(
            f"{guest.context}: interrupted; whether the program was started is not known; if it was, it ends by itself"
        ) from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _window() -> WindowSize:
    """The size of this terminal, from itself: variables that name one are not changed when it is."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            size = os.get_terminal_size(stream.fileno())
            if size.lines and size.columns:
                return WindowSize(size.lines, size.columns)
    return DEFAULT_WINDOW


class _Live:
    def __init__(self, guest: "Guest", process: "LiveProcess", program: Program, window: WindowSize) -> None:
        self._guest = guest
        self._process = process
        self._program = program
        self._window = window
        self._is_left = self._is_hung_up = self._follows_window = False
        self._interrupts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(self) -> int:
        """Carries all that goes either way until the program has ended."""
        with self._signals():
            main = asyncio.ensure_future(self._outputs())
            self._main, self._exit = main, asyncio.ensure_future(self._process.wait())
            if self._program.stdin or self._program.tty:
                self._spawn(self._input())
            if self._program.tty:
                self._follow_window()  # it was drawn larger or smaller while the program was started
            try:
                async with asyncio.timeout(self._program.timeout):
                    await main
            except TimeoutError:
                await self._process.leave()
                if self._program.tty:
                    raise TimeIsUp(
                        f"{self._guest.context}: the time is up, and process {self._process.pid} ended with its terminal"
                    ) from None
                raise StillRunning(
                    self._guest.context, self._process.pid, self._program.timeout or 0.0, loses_output=True
                ) from None
            except asyncio.CancelledError:
                if self._is_left:
                    pid, name = self._process.pid, visible(self._guest.vm.name)
                    has_ended = self._exit.done()
                    await self._process.leave()
                    left = (HAS_ENDED if has_ended else LEFT).format(pid=pid, name=name)
                    raise LeftRunning(f"{self._guest.context}: interrupted; {left}") from None
                if self._is_hung_up:
                    raise Hangup(
                        f"{self._guest.context}: closed, and process {self._process.pid} ended with it"
                    ) from None
                raise
            finally:
                for task in (main, self._exit, *self._tasks):
                    task.cancel()
                await asyncio.gather(main, self._exit, *self._tasks, return_exceptions=True)
            ended = await self._process.wait()
        if ended.signal is not None:
            return min(SIGNALLED + ended.signal, BYTE)
        return (ended.code or 0) & BYTE

    async def _outputs(self) -> None:
        process = self._process
        await asyncio.gather(
            self._output(process.stdout, sys.stdout), self._output(process.stderr, sys.stderr), process.wait()
        )

    async def _output(self, source: "OutputStream | None", target: Any) -> None:
        if source is None:
            return
        # A terminal gets what the program writes as it is where it was asked for, and else what it can't answer.
        write = _raw_writer(target) if self._program.tty else writer(target)
        while data := await source.read(MOST_AT_ONCE):
            await asyncio.to_thread(write, data)
        await asyncio.to_thread(write, b"")

    async def _input(self) -> None:
        escape = _EscapeScanner() if self._program.tty and sys.stdin.isatty() else None
        with contextlib.suppress(BrokenPipeError, StreamEnded):  # the outputs say it
            async for data in _read_stdin():
                if escape and escape.feed(data):
                    note("\r")
                    self._hang_up()
                    return
                await self._process.stdin.write(data)
            await self._process.stdin.close()  # on a terminal, what is piped here ends with Ctrl-D

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGTERM: self._hang_up, signal.SIGHUP: self._hang_up}
        if self._program.tty:
            handlers[signal.SIGWINCH] = self._follow_window
        else:
            handlers[signal.SIGINT] = self._interrupt
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _hang_up(self) -> None:
        self._is_hung_up = True
        self._main.cancel()

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1 and not self._exit.done():
            note(f"guestwire: Ctrl-C goes to process {self._process.pid}; once more leaves it running")
            self._spawn(self._pass_on())
        else:
            self._is_left = True
            self._main.cancel()

    async def _pass_on(self) -> None:
        await self._process.signal("INT")
        # One that has ended before hears nothing of it; what it has started may hold its outputs for ever.
        await asyncio.wait([self._exit], timeout=ENDS_WITHIN)
        if self._exit.done():
            await asyncio.wait([self._main], timeout=OUTPUTS_WITHIN)
            self._is_left = True
            self._main.cancel()

    def _follow_window(self) -> None:
        if not self._follows_window:
            self._follows_window = True
            self._spawn(self._resize())

    async def _resize(self) -> None:
        """Until the window rests: one that is drawn changes a hundred times a second, and each time costs the guest processes."""
        try:
            while (size := _window()) != self._window:
                self._window = size
                await self._process.resize(*size)
                await asyncio.sleep(RESIZED_EVERY)
        finally:
            self._follows_window = False

    def _spawn(self, work: Any) -> None:
        async def quietly() -> None:
            with contextlib.suppress(StreamEnded):  # the outputs say it
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _EscapeScanner:
    """Finds `~.` at the beginning of a line in what is typed."""

    def __init__(self) -> None:
        self._before = b"\r"

    def feed(self, data: bytes) -> bool:
        """True if it is complete now."""
        typed = self._before + data
        self._before = typed[-2:]
        return any(line + ESCAPE in typed for line in (b"\r", b"\n"))


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the guest as it is; afterwards the terminal is as it was."""
    if not sys.stdin.isatty():
        yield
        return
    import termios  # noqa: PLC0415  # a Unix alone has it
    import tty  # noqa: PLC0415  # as above

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def _raw_writer(stream: Any) -> Any:
    def write(data: bytes) -> None:
        stream.buffer.write(data)
        stream.buffer.flush()

    return write


def _set_result(future: "asyncio.Future[bytes]", data: bytes) -> None:
    if not future.done():
        future.set_result(data)


async def _read_stdin() -> AsyncIterator[bytes]:
    """Standard input as it comes, whatever it is; a thread waits for it, which nothing waits for."""
    loop = asyncio.get_running_loop()
    wanted: queue.SimpleQueue[asyncio.Future[bytes]] = queue.SimpleQueue()
    fd = sys.stdin.fileno()

    def read() -> None:
        while True:
            future = wanted.get()
            try:
                data = os.read(fd, MOST_AT_ONCE)
            except OSError:  # a terminal that is gone
                data = b""
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_set_result, future, data)
            if not data:
                return

    threading.Thread(target=read, name="standard input", daemon=True).start()
    while True:
        future: asyncio.Future[bytes] = loop.create_future()
        wanted.put(future)
        data = await future
        if not data:
            return
        yield data
