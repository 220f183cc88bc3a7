"""Programs in a guest while they run: their input and outputs are streams."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from guestwire.client.api_access import ApiAccess
from guestwire.client.cancellation import LAST_WITHIN, finish_when_cancelled
from guestwire.client.errors import (
    CallFailed,
    ErrorContext,
    NoStream,
    NoSuchEndpoint,
    StreamEnded,
    WrongParameters,
    failure,
)
from guestwire.client.processes import (
    CompletedProcess,
    Processes,
    ProcessFailed,
    StillRunning,
    check_texts,
    plain_text,
)
from guestwire.contract.endpoints.program_streams import NO_STREAM_IN_WINDOWS, STREAM_PATH
from guestwire.errors import AgentError, GuestwireError, StreamBroken
from guestwire.streams.relay_process import start_process
from guestwire.streams.remote_process import (
    MOST_AT_ONCE,
    STDERR,
    STDOUT,
    Exit,
    Output,
    RemoteProcess,
    StreamRequest,
    WindowSize,
)

DEFAULT_WINDOW: Final = WindowSize(24, 80)

LONGEST_LINE: Final = 1024 * 1024
"""Bytes that `readline` gives at most: a guest may write one of any length."""

LONGEST_ADDRESS: Final = 7000
"""Bytes of parameters that fit into the address of a request, or a header; others go another way."""


class InputStream:
    """A program's standard input."""

    def __init__(self, process: RemoteProcess, context: ErrorContext) -> None:
        self._process = process
        self._context = context

    async def write(self, data: bytes | str) -> None:
        """Sends bytes, or text as UTF-8; waits while the program does not read.

        Raises:
            BrokenPipeError: the program reads no more.
            StreamEnded: the stream broke.
        """
        view = memoryview(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
        with _errors_of(self._context):
            for start in range(0, len(view), MOST_AT_ONCE):
                await self._process.send(bytes(view[start : start + MOST_AT_ONCE]))

    async def close(self) -> None:
        """Ends it: the program has read all when it has read what was written. On a terminal it is Ctrl-D."""
        with _errors_of(self._context):
            await self._process.send_eof()


class OutputStream:
    """What a program writes; one reader. Iterated, it gives lines."""

    def __init__(self, process: RemoteProcess, context: ErrorContext, output: Output) -> None:
        self._process = process
        self._context = context
        self._output = output
        self._kept = bytearray()

    async def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, as soon as there are some, and `b""` at the end; without a size, all until the end.

        Raises:
            StreamEnded: the stream broke before its end.
        """
        if size < 0:
            while data := await self._receive():
                self._kept += data
            size = len(self._kept)
        elif not self._kept and size:
            self._kept += await self._receive()
        found = bytes(self._kept[:size])
        del self._kept[: len(found)]
        return found

    async def readline(self) -> bytes:
        """The next line with its end, or what there is of the last one; of one of over 1 MiB a part at a time.

        Raises:
            StreamEnded: the stream broke before its end.
        """
        looked_at = 0
        while (end := self._kept.find(b"\n", looked_at)) < 0 and len(self._kept) < LONGEST_LINE:
            looked_at = len(self._kept)
            if not (data := await self._receive()):
                break
            self._kept += data
        return await self.read(min(end + 1 or len(self._kept), LONGEST_LINE)) if self._kept else b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while line := await self.readline():
            yield line

    async def _receive(self) -> bytes:
        with _errors_of(self._context):
            return await self._process.receive(self._output)


class LiveProcess:
    """A program that runs in a guest; `Guest.start` makes one.

    Attributes:
        argv: program and arguments.
        pid: its id in the guest.
        stdin: its standard input.
        stdout: its standard output, or all that its terminal shows.
        stderr: its standard error; None where that goes to `stdout`.
    """

    def __init__(self, process: RemoteProcess, request: StreamRequest, context: ErrorContext) -> None:
        self._process = process
        self._context = context
        self.argv = request.argv
        self.pid = process.pid
        self.stdin = InputStream(process, context)
        self.stdout = OutputStream(process, context, STDOUT)
        has_errors = not (request.merge or request.tty)
        self.stderr = OutputStream(process, context, STDERR) if has_errors else None

    @property
    def way(self) -> str:
        """How its bytes go now: `port` (of our own), `agent` (by its commands), `api` (of Proxmox VE), or `server`."""
        return self._process.way

    async def wait(self) -> Exit:
        """Waits for its end: exit code or signal. What it wrote may still be to be read.

        Raises:
            StreamEnded: the stream broke, and how it ends is not known.
        """
        with _errors_of(self._context):
            return await self._process.wait()

    async def resize(self, rows: int, columns: int) -> None:
        """Tells its terminal how large the window is now."""
        with _errors_of(self._context):
            await self._process.resize(WindowSize(rows, columns))

    async def signal(self, number: int | str) -> None:
        """Sends it and what it started a signal, by number or name (`INT`, `SIGTERM`); once it has ended, nothing."""
        name = number if isinstance(number, str) else signal.Signals(number).name
        with _errors_of(self._context):
            await self._process.kill(signal.Signals[f"SIG{name.removeprefix('SIG')}"])

    async def leave(self) -> None:
        """Lets it run on without its stream: its input ends, and what it writes from now on is lost.

        One on a terminal, or with a port as its connection, loses that, and ends, as with `close`.
        """
        with _errors_of(self._context):
            await self._process.leave()

    async def close(self) -> None:
        """Ends it where it still runs (SIGHUP, then SIGKILL), and leaves nothing behind."""
        with _errors_of(self._context):
            await self._process.close()


@contextmanager
def _errors_of(context: ErrorContext) -> Iterator[None]:
    try:
        yield
    except CallFailed:
        raise
    except StreamBroken as error:
        raise StreamEnded(context, f"the stream of process {error.pid} broke: {error.why}", error.fate) from error
    except GuestwireError as error:
        raise failure(context, error.status, str(error)) from error


@asynccontextmanager
async def start_in(
    processes: Processes,
    argv: Sequence[str],
    *,
    tty: WindowSize | tuple[int, int] | bool = False,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    merge: bool = False,
    input: bool = True,  # noqa: A002  # as of `run`
    connection: bool = False,
) -> AsyncIterator[LiveProcess]:
    """See `Guest.start`."""
    if isinstance(argv, str | bytes):
        raise TypeError("argv is a list, program and arguments: no shell is there to take a line apart")
    words = tuple(map(plain_text, argv))
    if not words:
        raise WrongParameters(processes.context, "there is no program to run")
    variables = tuple((plain_text(name), plain_text(value)) for name, value in (env or {}).items())
    if wrong := [name for name, _ in variables if not name or "=" in name]:
        raise WrongParameters(processes.context, f"no variable is called '{wrong[0]}'")
    check_texts(processes.context, *words, *(text for pair in variables for text in pair), cwd or "", user or "")
    window = None if tty is False else DEFAULT_WINDOW if tty is True else WindowSize(*tty)
    request = StreamRequest(words, window, variables, cwd and plain_text(cwd), user, merge, input, connection)
    starting = asyncio.create_task(_start(processes, request), name=f"start of {words[0]!r}")
    try:
        process = LiveProcess(await asyncio.shield(starting), request, processes.context)
    except asyncio.CancelledError:
        await finish_when_cancelled(_end_start(starting))
        raise
    try:
        yield process
    finally:
        await finish_when_cancelled(process.close())


async def _end_start(starting: "asyncio.Task[RemoteProcess]") -> None:
    """Ends a program that is just being started; one that is started later all the same ends by itself: its relay hears nothing."""
    await asyncio.wait([starting], timeout=LAST_WITHIN)
    starting.cancel()
    started = (await asyncio.gather(starting, return_exceptions=True))[0]
    if not isinstance(started, BaseException):
        with suppress(GuestwireError):
            await started.close()


async def run_by_stream(
    processes: Processes,
    argv: Sequence[str],
    *,
    input: bytes | str | None = None,  # noqa: A002  # as subprocess.run has it
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    check: bool = False,
    on_start: Callable[[int], None] | None = None,
) -> CompletedProcess:
    """See `Guest.run`."""

    async def feed(process: LiveProcess) -> None:
        if input is not None:
            with suppress(BrokenPipeError):  # it wants no more of it
                await process.stdin.write(input)
                await process.stdin.close()

    async with start_in(processes, argv, env=env, cwd=cwd, input=input is not None) as process:
        assert process.stderr  # noqa: S101  # the two are apart
        if on_start:
            on_start(process.pid)
        feeding = asyncio.create_task(feed(process), name="input")
        reading = [asyncio.ensure_future(output.read()) for output in (process.stdout, process.stderr)]
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(feeding, *reading)
                ended = await process.wait()
        except TimeoutError:
            await process.leave()
            raise StillRunning(processes.context, process.pid, timeout or 0.0, loses_output=True) from None
        finally:
            for task in (feeding, *reading):
                task.cancel()
            await asyncio.gather(feeding, *reading, return_exceptions=True)
        stdout, stderr = (one.result() for one in reading)
    done = CompletedProcess(process.argv, process.pid, ended.code, ended.signal, stdout, stderr)
    if check and not done.ok:
        raise ProcessFailed(processes.context, done)
    return done


async def _start(processes: Processes, request: StreamRequest) -> RemoteProcess:
    """By the host's own stream where it has one; else by what Proxmox VE's API has."""
    parameters: dict[str, Any] = {
        "rows": request.tty.rows if request.tty else None,
        "columns": request.tty.columns if request.tty else None,
        "cwd": request.cwd,
        "user": request.user,
        "merge": request.merge or None,
        "input": None if request.input else False,
        "connection": request.connection or None,
    }
    # Arguments may hold a password, too, and logs keep addresses.
    secrets = {"command": list(request.argv)}
    if request.env:
        secrets["env"] = [f"{name}={value}" for name, value in request.env]
    given = {name: value for name, value in parameters.items() if value is not None}
    fits = processes.host.is_local or (_fits_address(given) and _fits_header(secrets))
    if fits and await processes.host.is_guestwire():
        calls = processes.calls
        path = STREAM_PATH.format(node=calls.node, vmid=calls.vmid)
        try:
            return await calls.carrier.start(path, given, secrets, calls.context)
        except NoSuchEndpoint:
            pass  # an older server
    with _errors_of(processes.context):
        try:
            return await start_process(ApiAccess(processes), request)
        except AgentError as error:
            if await processes.is_windows():
                raise NoStream(processes.context, NO_STREAM_IN_WINDOWS) from error
            raise


def _fits_address(parameters: Mapping[str, Any]) -> bool:
    """False also where they are not UTF-8."""
    try:
        return len(urlencode(parameters)) < LONGEST_ADDRESS
    except UnicodeEncodeError:
        return False


def _fits_header(secrets: Mapping[str, Any]) -> bool:
    """As `_fits_address`."""
    try:
        return len(msgspec.json.encode(secrets)) * 4 // 3 < LONGEST_ADDRESS
    except UnicodeEncodeError:
        return False
