"""Processes in a guest: start, wait, and what came of it."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from guestwire.client.commands import Wish, as_ascii, is_no_text, needs_ascii, powershell, unix_command, windows_command
from guestwire.client.ending import surely
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import AgentRefused, CallFailed, Place, WordsLost, WrongParameters, no_nul
from guestwire.client.parts import HostOfGuest
from guestwire.contract.results import ProcessState

HEAD_START: Final = 0.003
"""Seconds that a process gets before it is asked for: hardly any has ended at once."""

FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 1.0
REMOVED_WITHIN: Final = 10.0
"""Seconds; where nobody answers, the file stays."""

MAX_INPUT: Final = 64 * 1024
"""Characters that the API takes as standard input."""

WINDOWS_ID: Final = "mswindows"
"""What the agent says of Windows."""

TEMPORARY: Final = "Send ([Console]::OpenStandardOutput()) ([IO.Path]::GetTempPath())\n"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: `code`, or the `signal` that ended it; both outputs as bytes, and whether the agent cut them off (16 MiB)."""

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
        """Whether its exit code is 0."""
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
    """A process that was checked did not end with exit code 0; `ended` says how it did."""

    exit_code = 1

    def __init__(self, place: Place, ended: Ended) -> None:
        self.ended = ended
        how = f"exit code {ended.code}" if ended.signal is None else f"signal {ended.signal}"
        said = ended.errors.strip().rpartition("\n")[2][:200]
        super().__init__(place, f"'{ended.argv[0]}' ended with {how}" + (f": {said}" if said else ""))


class StillRunning(CallFailed):
    """The time was up; the process (`pid`) still runs in the guest."""

    exit_code = 124

    def __init__(self, place: Place, pid: int, seconds: float) -> None:
        self.pid = pid
        super().__init__(
            place,
            f"process {pid} still runs after {seconds:g} seconds",
            advice=f"it was left running; `guestwire status GUEST {pid}` tells how it ends",
        )


class Processes:
    """Runs programs in one guest."""

    def __init__(self, calls: Endpoints, host: HostOfGuest) -> None:
        self._calls = calls
        self._host = host
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
        started: Callable[[int], None] | None = None,
    ) -> Ended:
        """Starts a program, and waits for its end.

        Args:
            argv: program and arguments; no shell is between.
            input: its standard input; text goes as UTF-8. What the API does not take at once goes by way of a file in the guest.
            env: more environment variables.
            cwd: its working directory.
            timeout: seconds to wait.
            check: anything but exit code 0 is an error.
            started: told the process's id as soon as it runs; whoever is cancelled then leaves it running.

        Raises:
            ProcessFailed: it is checked and failed.
            StillRunning: the time is up; the process goes on.
            CallFailed: see `client.errors`.
        """
        data = input.encode() if isinstance(input, str) else input
        async with self._input(data) as path:
            began = time.monotonic()
            pid = await self.start(argv, env=env, cwd=cwd, input=None if path else data, stdin=path)
            if started:
                started(pid)
            # An answer that was long on its way gave it the time.
            await asyncio.sleep(began + HEAD_START - time.monotonic())
            ended = await self.wait(pid, argv=argv, timeout=timeout)
        if check and not ended.ok:
            raise ProcessFailed(self._calls.place, ended)
        return ended

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
        wish = Wish(argv, env or {}, cwd, stdin, stdout, stderr)
        self._check(wish)
        command = await self._command(wish)
        text = None if input is None else input.decode("latin-1")
        try:
            return (await self._calls.exec(command, input_data=text)).pid
        except WordsLost as error:
            why = f"'{argv[0]}' can't be started; most likely: No such file or directory"
            raise AgentRefused(self._calls.place, error.error_class, why, error.answered) from error

    def _check(self, wish: Wish) -> None:
        if isinstance(wish.argv, str):
            raise TypeError("argv is a list, program and arguments: no shell is there to take a line apart")
        if not wish.argv:
            raise WrongParameters(self._calls.place, "there is no program to run")
        for name in wish.env:
            if not name or "=" in name:
                raise WrongParameters(self._calls.place, f"no variable is called '{name}'")
        no_nul(self._calls.place, *wish.argv, *wish.env, *wish.env.values(), wish.cwd or "")

    async def _command(self, wish: Wish) -> list[str]:
        if not wish.is_plain and await self.is_windows():
            return windows_command(wish)
        command = unix_command(wish)
        if any(map(is_no_text, command)):
            return as_ascii(command)
        if not needs_ascii(command) or await self._host.is_guestwire():
            return command
        return windows_command(wish) if await self.is_windows() else as_ascii(command)

    async def is_windows(self) -> bool:
        """Whether the guest runs Windows; asked once. A guest that does not tell is taken for a Unix."""
        if self._windows is None:
            try:
                self._windows = (await self._calls.get_osinfo()).id == WINDOWS_ID
            except AgentRefused:
                self._windows = False
        return self._windows

    async def status(self, pid: int) -> ProcessState[str]:
        """Whether a process runs, or how it ended."""
        return await self._calls.exec_status(pid)

    async def interrupt(self, pid: int) -> None:
        """Sends a process, and those that it started, what Ctrl-C sends (SIGINT).

        Raises:
            CallFailed: the guest runs Windows, which has no such signal; or see `client.errors`.
        """
        if await self.is_windows():
            raise CallFailed(self._calls.place, "Windows has no signal for Ctrl-C")
        from guestwire.client.scripts import interrupt  # noqa: PLC0415  # seldom wanted

        await self.run(interrupt(pid), check=True)

    async def wait(self, pid: int, *, argv: Sequence[str] = ("?",), timeout: float | None = None) -> Ended:
        """Waits until a process ends, asking ever more seldom: after 10 ms first, once a second at last.

        Raises:
            StillRunning: the time is up; the process goes on.
        """
        pause = FIRST_PAUSE
        try:
            async with asyncio.timeout(timeout):
                while not (state := await self.status(pid)).exited:
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, LONGEST_PAUSE)
        except TimeoutError:
            raise StillRunning(self._calls.place, pid, timeout or 0.0) from None
        return _ended(tuple(argv), pid, state)

    @contextlib.asynccontextmanager
    async def _input(self, data: bytes | None) -> AsyncIterator[str | None]:
        """A file in the guest for input that is too long for the API; None when there is none."""
        if data is None or len(data) <= MAX_INPUT:
            yield None
            return
        from guestwire.client.pieces import ended  # noqa: PLC0415  # few processes read so much
        from guestwire.client.systems import system_of  # noqa: PLC0415  # as above

        path = await self._path_of_input()
        system = system_of(path)
        try:
            for start in range(0, len(data), MAX_INPUT):
                piece = data[start : start + MAX_INPUT]
                await ended(self.run(system.append(path), input=piece, check=True))  # else it came after the removal
            yield path
        finally:
            await surely(self._removed(system.remove(path)))

    async def _removed(self, command: Sequence[str]) -> None:
        with contextlib.suppress(CallFailed, TimeoutError):
            async with asyncio.timeout(REMOVED_WITHIN):
                await self.run(command)

    async def _path_of_input(self) -> str:
        name = f"guestwire-{os.urandom(16).hex()}"  # it can't be guessed
        if not await self.is_windows():
            return f"/tmp/{name}"  # noqa: S108
        return (await self.run(powershell(TEMPORARY), check=True)).output + name


def _ended(argv: tuple[str, ...], pid: int, state: ProcessState[str]) -> Ended:
    return Ended(
        argv=argv,
        pid=pid,
        code=state.exitcode,
        signal=state.signal,
        stdout=(state.out_data or "").encode("latin-1"),
        stderr=(state.err_data or "").encode("latin-1"),
        stdout_truncated=bool(state.out_truncated),
        stderr_truncated=bool(state.err_truncated),
    )
