"""A program that is watched until it has ended, and whose outputs come then: where there is no stream, or one object is wanted."""

import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from guestwire.cli.output import note
from guestwire.cli.terminal import write_whole
from guestwire.errors import INTERRUPTED, GuestwireError

if TYPE_CHECKING:
    import asyncio

    from guestwire.client import CompletedProcess, Guest

SIGNALLED: Final = 128
"""A process that signal N ended has this and N."""
BYTE: Final = 0xFF
CUT_OFF: Final = 74
"""As for a copy that is not what it should be: what a pipe got is not all."""
PASSED_ON_WITHIN: Final = 5.0
"""Seconds that Ctrl-C may take on its way into a guest."""


class LeftRunning(GuestwireError):
    """Ctrl-C ended the command; the process in the guest goes on."""

    exit_code = INTERRUPTED


class Watched:
    """Runs a program. The first Ctrl-C is passed on to it; the second leaves it running, and tells its pid."""

    def __init__(self) -> None:
        self._pid = 0
        self._left = ""
        self._passing_on: asyncio.Task[None] | None = None

    async def run(self, guest: "Guest", line: list[str], **options: Any) -> "CompletedProcess":
        """As `Processes.run`.

        Raises:
            LeftRunning: it was interrupted.
        """
        import asyncio  # noqa: PLC0415  # `--help` must not wait for it

        loop, job = asyncio.get_running_loop(), asyncio.current_task()
        assert job  # noqa: S101  # a coroutine runs in one
        loop.add_signal_handler(signal.SIGINT, self._interrupted, guest, job)
        try:
            return await guest.run(line, on_start=self._started, **options)
        except asyncio.CancelledError:
            left = (
                f"{self._left or f'process {self._pid} was left running'}; `guestwire status {guest.vm.name} {self._pid}`"
                " tells how it ends"
                if self._pid
                else "whether the program was started is not known"
            )
            raise LeftRunning(f"{guest.context}: interrupted; {left}") from None
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            await self._end()

    def _started(self, pid: int) -> None:
        self._pid = pid

    def _interrupted(self, guest: "Guest", job: "asyncio.Task[Any]") -> None:
        if self._pid and not self._passing_on:
            self._passing_on = job.get_loop().create_task(self._pass_on(guest, job), name="Ctrl-C")
        else:
            job.cancel()

    async def _pass_on(self, guest: "Guest", job: "asyncio.Task[Any]") -> None:
        import asyncio  # noqa: PLC0415  # as above

        from guestwire.client.processes import ProcessEnded  # noqa: PLC0415  # as above

        note(f"guestwire: Ctrl-C goes to process {self._pid}; once more leaves it running")
        try:
            async with asyncio.timeout(PASSED_ON_WITHIN):
                await guest.processes.interrupt(self._pid)
        except (GuestwireError, TimeoutError) as error:
            why = "no answer" if isinstance(error, TimeoutError) else error
            note(f"guestwire: it did not arrive: {why}")
            if isinstance(error, ProcessEnded):
                self._left = f"process {self._pid} has ended, and what it started was left running"
            job.cancel()

    async def _end(self) -> None:
        import asyncio  # noqa: PLC0415  # as above

        if self._passing_on:
            self._passing_on.cancel()
            await asyncio.wait([self._passing_on])


def fields(ended: "CompletedProcess") -> dict[str, Any]:
    """As exec-status has it: one character for each byte."""
    fields: dict[str, Any] = {"pid": ended.pid, "exited": 1}
    fields |= {"exitcode": ended.code} if ended.signal is None else {"signal": ended.signal}
    return fields | {
        "out-data": ended.stdout.decode("latin-1"),
        "out-truncated": int(ended.stdout_truncated),
        "err-data": ended.stderr.decode("latin-1"),
        "err-truncated": int(ended.stderr_truncated),
    }


def pass_on(ended: "CompletedProcess") -> None:
    """Both outputs as they are, but on a terminal without what it would answer; says when the agent cut one off."""
    write_whole(sys.stdout, ended.stdout)
    write_whole(sys.stderr, ended.stderr)
    for name, truncated in (("output", ended.stdout_truncated), ("error", ended.stderr_truncated)):
        if truncated:
            note(
                f"guestwire: standard {name} of process {ended.pid} is longer; the guest's agent kept its beginning alone"
            )


def exit_code(ended: "CompletedProcess") -> int:
    """Of a command that ends as a process did. Windows has longer ones; none of them becomes 0, and no output that was cut off."""
    if ended.signal is not None:
        return min(SIGNALLED + ended.signal, BYTE)
    code = ended.code or 0
    return code & BYTE or int(code != 0) or (CUT_OFF if ended.stdout_truncated or ended.stderr_truncated else 0)
