"""Processes in a guest: started, waited for, and how they ended."""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from guestwire.agent.systems import (
    UNIX,
    WINDOWS,
    Command,
    CommandSpec,
    as_ascii,
    is_undecodable,
    needs_ascii,
    system_of,
)
from guestwire.client.advice import NO_SUCH_PROCESS, hint_for
from guestwire.client.cancellation import finish_briefly, finish_when_cancelled
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import (
    AgentRefused,
    AgentTookTooLong,
    CallFailed,
    ErrorContext,
    ErrorTextLost,
    WrongParameters,
    is_passing,
)
from guestwire.client.protocols import HostOfGuest
from guestwire.contract.results import ProcessState
from guestwire.counting import counted
from guestwire.pacing import Backoff

HEAD_START: Final = 0.003
"""Seconds that a process gets before it is asked for: hardly any has ended at once."""

PATIENCE: Final = 60.0
"""Seconds that a host or agent may be away while a process is waited for that has all the time."""

LOOKS_WITHIN: Final = 5.0
"""Seconds for looking whether a process is there."""

LONGEST_ARGUMENT: Final = 128 * 1024 - 1
"""Bytes of one argument of a program on Linux."""

FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 1.0
REMOVED_WITHIN: Final = 10.0
"""Seconds; a guest that does not answer keeps the file."""

MAX_INPUT: Final = 64 * 1024
"""Characters that the API takes as standard input."""

WINDOWS_ID: Final = "mswindows"
"""The id of Windows in guest-get-osinfo."""


@dataclass(frozen=True, slots=True)
class CompletedProcess:
    """A process that ended.

    Attributes:
        argv: program and arguments.
        pid: its id in the guest.
        code: its exit code; None after a signal.
        signal: that ended it.
        stdout: the bytes of its standard output; `output` has them as text.
        stderr: the bytes of its standard error; `errors` has them as text.
        stdout_truncated: the agent kept its first 16 MiB.
        stderr_truncated: as above.
    """

    argv: tuple[str, ...]
    pid: int
    code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool = False
    stderr_truncated: bool = False

    @property
    def ok(self) -> bool:
        """True if its exit code is 0."""
        return self.code == 0

    @property
    def output(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are kept (surrogateescape)."""
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def errors(self) -> str:
        """Standard error as text."""
        return self.stderr.decode("utf-8", "surrogateescape")


class ProcessFailed(CallFailed):
    """A process that was checked did not end with exit code 0; `process` says how it did."""

    exit_code = 1

    def __init__(self, context: ErrorContext, process: CompletedProcess) -> None:
        self.process = process
        how = f"exit code {process.code}" if process.signal is None else f"signal {process.signal}"
        last_line = process.errors.strip().rpartition("\n")[2][:200]
        super().__init__(context, f"'{process.argv[0]}' ended with {how}" + (f": {last_line}" if last_line else ""))


class StillRunning(CallFailed):
    """The time was up; the process (`pid`) was left running in the guest.

    Args:
        context: which guest.
        pid: the process's id.
        seconds: the time.
        exists: whether the process itself was seen to run; None: nothing could be seen.
        loses_output: what it writes from now on is lost.
    """

    exit_code = 124

    def __init__(
        self,
        context: ErrorContext,
        pid: int,
        seconds: float,
        *,
        exists: bool | None = True,
        loses_output: bool = False,
    ) -> None:
        self.pid = pid
        self.exists = exists
        hint = f"it was left running; `guestwire status GUEST {pid}` tells how it ends"
        hint += ", without what it writes from now on" if loses_output else ""
        match exists:
            case True:
                message = f"process {pid} still runs after {counted(seconds, 'second')}"
            case None:
                message = f"process {pid} had not ended when it was last asked for, in {counted(seconds, 'second')}"
            case _:
                message = (
                    f"process {pid} has ended, but what it started holds its outputs after {counted(seconds, 'second')}"
                )
                hint = (
                    f"`guestwire status GUEST {pid}` gives its output when they are closed; a job that goes on needs"
                    " outputs of its own: COMMAND >/dev/null 2>&1 &"
                )
        super().__init__(context, message, hint=hint)


class ProcessEnded(CallFailed):
    """The process has ended already; what it started may go on, and holds its outputs."""


class OutcomeUnknown(CallFailed):
    """A process was started (`pid`), and nothing says how it ended, or whether it did.

    Args:
        context: which guest.
        pid: the process's id.
        cause: the last error of asking for it.
        unheard: an answer about the process did not arrive in time before.
    """

    def __init__(self, context: ErrorContext, pid: int, cause: CallFailed, *, unheard: bool = False) -> None:
        self.pid = pid
        self.exit_code = cause.exit_code
        asks = f"`guestwire status GUEST {pid}` asks again"
        why, hint = cause.message, f"{cause.hint}; {asks}" if cause.hint else asks
        if hint_for(cause.message) == NO_SUCH_PROCESS:
            why, hint = f"its agent knows it no more ({cause.message})", "agent or guest were started again meanwhile"
            if unheard:
                why = f"its output was lost, for the host did not wait until it had arrived ({cause.message})"
                hint = "have it write its output to a file in the guest, and copy that"
        super().__init__(context, f"how process {pid} ends is not known: {why}", cause.http_status, hint=hint)


class Processes:
    """Runs programs in one guest."""

    def __init__(self, calls: Endpoints, host: HostOfGuest) -> None:
        self.calls = calls
        self.host = host
        self.context = calls.context
        self._windows: bool | None = None

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002  # as subprocess.run has it
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        on_start: Callable[[int], None] | None = None,
    ) -> CompletedProcess:
        """Starts a program, and waits for its end.

        Args:
            argv: program and arguments, texts or paths; no shell is between.
            input: its standard input; text goes as UTF-8. What the API does not take at once goes by way of a file in
                the guest.
            env: more environment variables.
            cwd: its working directory.
            timeout: seconds to wait.
            check: anything but exit code 0 is an error.
            on_start: called with the process's id as soon as it runs; a caller who is cancelled then leaves it
                running.

        Raises:
            ProcessFailed: it is checked and failed.
            StillRunning: the time is up; the process goes on.
            CallFailed: see `client.errors`.
        """
        if isinstance(input, str):
            check_texts(self.calls.context, input, nul=True)
        data = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input
        async with self._input_file(data) as path:

            async def start() -> int:
                pid = await self.start(argv, env=env, cwd=cwd, input=None if path else data, stdin=path)
                if on_start:
                    on_start(pid)
                return pid

            began = time.monotonic()
            # A process that was started while its caller was cancelled has a caller that knows of it.
            pid = await finish_briefly(start())
            # An answer that was long on its way gave it the time.
            await asyncio.sleep(began + HEAD_START - time.monotonic())
            process = await self.wait(pid, argv=argv, timeout=timeout)
        if check and not process.ok:
            raise ProcessFailed(self.calls.context, process)
        return process

    async def start(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,  # noqa: A002  # as subprocess.run has it
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | None = None,
        stdout: str | None = None,
        stderr: str | None = None,
    ) -> int:
        """Starts a program and returns its pid; `stdin`, `stdout` and `stderr` are paths in the guest.

        Raises:
            WrongParameters: a name of a variable, or an argument, can't be one.
            CallFailed: see `client.errors`.
        """
        if isinstance(argv, str | bytes):
            raise TypeError("argv is a list, program and arguments: no shell is there to take a line apart")
        words = [plain_text(word) for word in argv]
        variables = {plain_text(name): plain_text(value) for name, value in (env or {}).items()}
        spec = CommandSpec(words, variables, cwd and plain_text(cwd), stdin, stdout, stderr)
        self._check(spec)
        command = await self._command(spec)
        text = None if input is None else input.decode("latin-1")
        try:
            return (await self.calls.exec(command, input_data=text)).pid
        except ErrorTextLost as error:
            is_long = max(map(len, map(os.fsencode, command))) > LONGEST_ARGUMENT
            reason = "Argument list too long" if is_long else "No such file or directory"
            why = f"'{argv[0]}' can't be started; most likely: Failed to execute child process ({reason})"
            raise AgentRefused(self.calls.context, error.error_class, why, error.http_status) from error

    def _check(self, spec: CommandSpec) -> None:
        if not spec.argv:
            raise WrongParameters(self.calls.context, "there is no program to run")
        for name in spec.env:
            if not name or "=" in name:
                raise WrongParameters(self.calls.context, f"no variable is called '{name}'")
        check_texts(self.calls.context, *spec.argv, *spec.env, *spec.env.values(), spec.cwd or "")

    async def _command(self, spec: CommandSpec) -> Command:
        """The guest is asked for its system only where that matters."""
        if not spec.is_plain and await self.is_windows():
            return WINDOWS.command(spec)
        command = UNIX.command(spec)
        if any(map(is_undecodable, command)):
            return as_ascii(command)
        if not needs_ascii(command) or await self.host.is_guestwire():
            return command
        return WINDOWS.command(spec) if await self.is_windows() else as_ascii(command)

    async def is_windows(self) -> bool:
        """True if the guest runs Windows; asked once. A guest that does not tell is taken for a Unix."""
        if self._windows is None:
            try:
                self._windows = (await self.calls.get_osinfo()).id == WINDOWS_ID
            except AgentRefused:
                self._windows = False
        return self._windows

    async def status(self, pid: int) -> ProcessState[str]:
        """The state of a process: it runs, or how it ended."""
        return await self.calls.exec_status(pid)

    async def interrupt(self, pid: int) -> None:
        """Sends a process, and those that it started, what Ctrl-C sends (SIGINT).

        Raises:
            ProcessEnded: there is none any more to send it to.
            CallFailed: the guest runs Windows, which has no such signal; or see `client.errors`.
        """
        if await self.is_windows():
            raise CallFailed(self.calls.context, "Windows has no signal for Ctrl-C")
        if (await self.run(UNIX.interrupt(pid), check=False)).code:
            raise ProcessEnded(self.calls.context, f"process {pid} has ended; what it started holds its outputs")

    async def wait(self, pid: int, *, argv: Sequence[str] = ("?",), timeout: float | None = None) -> CompletedProcess:
        """Waits until a process ends, asking ever more seldom: after 10 ms first, once a second at last.

        While host or agent break off, it goes on asking: until the time is up, or for a minute without one.

        Raises:
            StillRunning: the time is up; the process goes on.
            OutcomeUnknown: it could not be asked for any more.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, 1.5)
        failure: CallFailed | None = None
        state: ProcessState[str]
        failing_since, unheard = math.inf, False
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        if (state := await self.status(pid)).exited:
                            break
                        failure, failing_since, unheard = None, math.inf, False
                    except CallFailed as error:
                        unheard = unheard or isinstance(error, AgentTookTooLong)
                        failure, failing_since = error, min(failing_since, time.monotonic())
                        lasts = time.monotonic() - failing_since
                        if not is_passing(error) or (timeout is None and lasts > PATIENCE):
                            raise OutcomeUnknown(self.calls.context, pid, error, unheard=unheard) from error
                    await asyncio.sleep(backoff.next())
        except TimeoutError:
            if failure:
                raise OutcomeUnknown(self.calls.context, pid, failure) from failure
            raise StillRunning(
                self.calls.context, pid, timeout or 0.0, exists=await finish_briefly(self._exists(pid))
            ) from None
        return CompletedProcess(
            argv=tuple(argv),
            pid=pid,
            code=state.exitcode,
            signal=state.signal,
            stdout=(state.out_data or "").encode("latin-1"),
            stderr=(state.err_data or "").encode("latin-1"),
            stdout_truncated=bool(state.out_truncated),
            stderr_truncated=bool(state.err_truncated),
        )

    async def _exists(self, pid: int) -> bool | None:
        """Looks whether a process is there; None where that can't be seen in a short time."""
        try:
            async with asyncio.timeout(LOOKS_WITHIN):
                system = WINDOWS if await self.is_windows() else UNIX
                return (await self.run(system.exists(pid))).ok
        except (CallFailed, TimeoutError):
            return None

    @contextlib.asynccontextmanager
    async def _input_file(self, data: bytes | None) -> AsyncIterator[str | None]:
        """A file in the guest for input that is too long for the API, removed at the end; None when it is not."""
        if data is None or len(data) <= MAX_INPUT:
            yield None
            return
        path = f"guestwire-{os.urandom(16).hex()}"  # it can't be guessed
        if await self.is_windows():
            path = (await self.run(WINDOWS.script("temporary"), check=True)).output + path
        else:
            path = UNIX.temporary + path
        system = system_of(path)
        try:
            for start in range(0, len(data), MAX_INPUT):
                chunk = data[start : start + MAX_INPUT]
                # A chunk that is broken off must not arrive after the file was removed.
                await finish_briefly(self.run(system.append(path), input=chunk, check=True))
            yield path
        finally:
            await finish_when_cancelled(self._remove(system.remove(path)))

    async def _remove(self, command: Command) -> None:
        with contextlib.suppress(CallFailed, TimeoutError):
            async with asyncio.timeout(REMOVED_WITHIN):
                await self.run(command)


def plain_text(word: "str | os.PathLike[str]") -> str:
    """A text, or a path as one, of the very type `str`.

    Raises:
        TypeError: it is neither.
    """
    text = os.fspath(word)
    if not isinstance(text, str):
        raise TypeError(f"{type(word).__name__} is no text; os.fsdecode makes one of bytes")
    return text if type(text) is str else "".join(text)


def check_texts(context: ErrorContext, *texts: str, nul: bool = False) -> None:
    """Checks that texts arrive as they are: a guest takes one to end at a NUL, which `nul` allows.

    Bytes that are not UTF-8 are well (surrogateescape).

    Raises:
        WrongParameters: one does not.
    """
    for text in texts:
        if "\0" in text and not nul:
            raise WrongParameters(
                context, "there is a NUL in an argument, variable, path or password, where the guest would end it"
            )
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise WrongParameters(context, f"{text[error.start]!a} is half a character, and no text") from None
