"""`guestwire exec`, `status` and `cat`: bytes that come from a guest, passed on unchanged."""

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.connecting import guest_and_path, guest_argument, on_guest, path_argument, plain
from guestwire.cli.output import examples, json_option, note, to_json
from guestwire.cli.terminal import write_whole, writer
from guestwire.cli.units import Seconds
from guestwire.errors import INTERRUPTED, GuestwireError

if TYPE_CHECKING:
    import asyncio

    from guestwire.client import CompletedProcess, Guest

SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "fish"})

SIGNALLED: Final = 128
"""A process that signal N ended has this and N."""
BYTE: Final = 0xFF
CUT_OFF: Final = 74
"""As for a copy that is not what it should be: what a pipe got is not all."""
PASSED_ON_WITHIN: Final = 5.0
"""Seconds that Ctrl-C may take on its way into a guest."""

EXIT_CODES: Final = """\
\b
Exit codes:
  0    done
  1    any other error
  2    wrong use, or the host refuses a parameter; nothing was done
  3    the guest or its agent can't do it: stopped, not running, an error of its own
  4    no such guest
  5    authentication: no credentials, or bad ones
  6    a privilege is missing
  7    a freeze was lost, or could not be ended
  69   the host can't be reached, or its certificate is not trusted
  74   a file of this machine can't be used, what was copied is not what arrived, or an output was cut off
  78   configuration: no host, a profile or a file that can't be used
  124  the time is up
  130  Ctrl-C
exec and shell end with the program's own exit code, with 128 + N after signal N, or with 74 when it would be 0 but
more than 16 MiB of output came, of which the guest's agent keeps the beginning."""

pid_argument = click.argument("pid", metavar="PID", help="The process id that `exec --detach` shows.", type=int)


class LeftRunning(GuestwireError):
    """Ctrl-C ended the command; the process in the guest goes on."""

    exit_code = INTERRUPTED


@click.command(
    "exec",
    epilog=examples(
        "guestwire exec web -- systemctl restart nginx",
        "guestwire exec -i web -- tar -xC /srv < site.tar",
        "guestwire exec -e LANG=C -w /srv --timeout 60 web -- make",
    )
    + f"\n\n{EXIT_CODES}",
    context_settings={"allow_interspersed_args": False},
)
@guest_argument
@click.argument(
    "argv", metavar="-- ARGV...", help="The program and its arguments; no shell reads them.", nargs=-1, required=True
)
@click.option("--tty", "-t", help="No terminal can be had; `guestwire shell` runs lines.", is_flag=True, hidden=True)
@click.option("--stdin", "-i", help="Read standard input to its end, and pass it on.", is_flag=True)
@click.option(
    "--env", "-e", metavar="K=V", help="Set an environment variable. Can be given several times.", multiple=True
)
@click.option("--cwd", "-w", metavar="DIR", help="The program's working directory.")
@click.option(
    "--timeout",
    metavar="S",
    help="Seconds to wait for the end; the program runs on after them.",
    type=Seconds(),
)
@click.option("--detach", help="Show the process id, and do not wait.", is_flag=True)
@json_option
@click.pass_context
def execute(
    context: click.Context,
    guest: str,
    argv: tuple[str, ...],
    *,
    tty: bool,
    stdin: bool,
    env: tuple[str, ...],
    cwd: str | None,
    timeout: float | None,
    detach: bool,
    json: bool,
) -> None:
    """Run a program, and end with its exit code.

    Its outputs come byte for byte when it has ended. The first Ctrl-C is passed on to the program, the second leaves it
    running.
    """
    line = _line(argv)
    is_shell = len(line) == 1 and line[0].rpartition("/")[2] in SHELLS
    if tty or (is_shell and not stdin and sys.stdin.isatty()):
        raise click.UsageError(f"exec has no terminal for {line[0]}: `guestwire shell {guest}` runs lines.")
    options: dict[str, Any] = {
        "input": sys.stdin.buffer.read() if stdin else None,
        "env": _environment(env),
        "cwd": cwd,
    }
    if detach:
        pid = on_guest(context, guest, lambda found: found.processes.start(line, **options))
        print(to_json({"pid": pid}) if json else pid)
        return
    watched = Watched()
    ended = on_guest(context, guest, lambda found: watched.run(found, line, timeout=timeout, **options))
    if json:
        print(to_json(fields(ended), indent=2))
    else:
        pass_on(ended)
    raise click.exceptions.Exit(exit_code(ended))


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


def _line(argv: Sequence[str]) -> list[str]:
    """The program and its arguments, which stand behind `--` where that is given."""
    line = list(argv[1:] if argv[0] == "--" else argv)
    if not line:
        raise click.BadParameter("there is no program to run behind '--'.")
    if argv[0] != "--" and argv[0].startswith("-"):
        raise click.BadParameter(f"options stand before GUEST; a program named '{argv[0]}' stands behind '--'.")
    return line


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair.removeprefix("="):
            raise click.BadParameter(f"'{pair}' is not K=V.")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


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


@click.command("status", epilog=examples("guestwire status web 4711"))
@guest_argument
@pid_argument
@json_option
@click.pass_context
def status(context: click.Context, guest: str, pid: int, *, json: bool) -> None:
    """Show how a process ended, and what it wrote.

    Both outputs come byte for byte when it has ended; standard error says how it ended.
    """
    state = on_guest(context, guest, lambda found: found.processes.status(pid))
    if json:
        print(to_json(plain(state), indent=2))
        return
    write_whole(sys.stdout, (state.out_data or "").encode("latin-1"))
    write_whole(sys.stderr, (state.err_data or "").encode("latin-1"))
    how = f"exit code {state.exitcode}" if state.signal is None else f"signal {state.signal}"
    note(f"process {pid}: {f'ended with {how}' if state.exited else 'still runs'}")


@click.command("cat", epilog=examples("guestwire cat web:/etc/hostname", "guestwire cat web:/boot/vmlinuz > vmlinuz"))
@path_argument
@json_option
@click.pass_context
def cat(context: click.Context, path: str, *, json: bool) -> None:
    """Write a guest's file to standard output."""
    name, file = guest_and_path(path)
    if json:
        data = on_guest(context, name, lambda guest: guest.files.read(file))
        print(to_json({"content": data.decode("latin-1"), "bytes-read": len(data)}))
    else:
        on_guest(context, name, lambda guest: _piece_by_piece(guest, file))


async def _piece_by_piece(guest: "Guest", file: str) -> None:
    write = writer(sys.stdout)
    async for piece in guest.files.stream(file):
        write(piece)
    write(b"")
