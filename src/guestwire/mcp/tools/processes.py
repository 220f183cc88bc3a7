"""Tools for processes in a guest."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from guestwire.agent.systems import UNIX
from guestwire.client.errors import NoStream
from guestwire.client.processes import CompletedProcess, StillRunning
from guestwire.contract import Effect, Level, Role, parameter
from guestwire.errors import InvalidParameters
from guestwire.mcp.live_commands import LiveCommand, run_live
from guestwire.mcp.policy import Refused
from guestwire.mcp.text_format import ENCODINGS, decode_output
from guestwire.mcp.tool import Call, GuestParameters, Registry

tools = Registry()

MOST_INPUT = 1024 * 1024


class RunCommand(GuestParameters, frozen=True, kw_only=True):
    """Parameters of run_command."""

    command: Annotated[
        list[str],
        parameter("Program and arguments, each an item; no shell is between.", Role.ARGUMENTS, examples=[["df", "-h"]]),
    ]
    input: (
        Annotated[
            str,
            parameter("Standard input.", Role.STANDARD_INPUT, max_length=MOST_INPUT),
        ]
        | None
    ) = None
    env: (
        Annotated[
            list[str],
            parameter("NAME=VALUE items.", Role.ENVIRONMENT, examples=[["LANG=C"]]),
        ]
        | None
    ) = None
    cwd: Annotated[str, parameter("Working directory.", Role.DIRECTORY)] | None = None
    seconds: Annotated[int, parameter("To wait at most.", ge=1, le=3600)] | None = None
    encoding: Annotated[str, parameter("Of the outputs, if not UTF-8.", Role.TEXT, enum=ENCODINGS)] | None = None


class Ran(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a program ended; `still_running` is its pid when it did not."""

    exit_code: int | None = None
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    stdout_cursor: str | None = None
    stderr_cursor: str | None = None
    truncated: str | None = None
    stdout_note: str | None = None
    stderr_note: str | None = None
    still_running: int | None = None


@tools.tool("run_command", RunCommand, level=Level.EXEC, effect=Effect.DISRUPTS, idempotent=False)
async def run_command(call: Call, parameters: RunCommand) -> Ran:
    """Runs a program in a guest, waits for its end, and returns exit code and both outputs.

    Long outputs are shortened in the middle (read_more). When the time is up the program is left running, and
    exec_status tells its end.
    """
    env = _environment(parameters.env or [])
    seconds = min(parameters.seconds or call.limits.seconds, call.limits.seconds)

    if call.is_followed:
        command = LiveCommand(parameters.command, parameters.input, env, parameters.cwd, seconds)
        with contextlib.suppress(NoStream):
            done, has_ended = await run_live(call, command)
            ran = _ran(call, done, parameters.encoding)
            if has_ended:
                return ran
            return msgspec.structs.replace(ran, still_running=done.pid, truncated="what it writes from now on is lost")

    def started(pid: int) -> None:
        call.note_process(pid)
        call.tell(f"process {pid} was started; cancelling leaves it running")

    try:
        async with _report_each_second(call, seconds):
            ended = await call.guest.run(
                parameters.command, input=parameters.input, env=env, cwd=parameters.cwd, timeout=seconds,
                on_start=started,
            )  # fmt: skip
    except StillRunning as error:
        return Ran(still_running=error.pid, stdout_note=None if error.exists else error.message)
    return _ran(call, ended, parameters.encoding)


UNIT = r"[A-Za-z0-9_][A-Za-z0-9_.@:\\-]*"
"""A unit's name, and nothing that may be a path or a pattern."""


class FollowLog(GuestParameters, frozen=True, kw_only=True):
    """Parameters of follow_log."""

    file: Annotated[str, parameter("A file; else the journal.", Role.READ_PATH)] | None = None
    unit: Annotated[str, parameter("Of systemd.", Role.TEXT, pattern=UNIT)] | None = None
    lines: Annotated[int, parameter("Of its end.", ge=0, le=1000)] = 20
    seconds: Annotated[int, parameter("To follow it.", ge=1, le=3600)] = 10


class Followed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was read of a log."""

    text: str = ""
    cursor: str | None = None


@tools.tool("follow_log", FollowLog, level=Level.EXEC, effect=Effect.READS)
async def follow_log(call: Call, parameters: FollowLog) -> Followed:
    """Reads the end of a log, and what is written to it for some seconds."""
    if parameters.file and parameters.unit:
        raise InvalidParameters({"unit": "name a file or a unit, and not both"})
    if parameters.file and not parameters.file.startswith("/"):
        raise InvalidParameters({"file": "a path begins with /"})
    if call.allowed.run is not None:
        # It runs tail or journalctl, as root, on what may be swapped meanwhile: what is read so can't be kept to paths.
        raise Refused(f"it runs programs that this policy does not name ({call.allowed.source}, run)")
    what = parameters.file or parameters.unit or ""
    argv = UNIX.script("logs", str(parameters.lines), "follow", what)
    seconds = min(parameters.seconds, call.limits.seconds)
    done, has_ended = await run_live(call, LiveCommand(argv, seconds=seconds, is_ended=True))
    if has_ended and not done.ok:
        raise Refused(f"there is no such log: {what or 'the guest has no journal and no syslog'}")
    text, _ = decode_output(done.stdout, None)
    text, cursor = call.caller.texts.keep_middle(text, call.limits.characters // 2)
    return Followed(text, cursor)


def _ran(call: Call, ended: CompletedProcess, encoding: str | None) -> Ran:
    texts, room = call.caller.texts, call.limits.characters // 5  # JSON may double it
    stdout, stdout_note = decode_output(ended.stdout, encoding)
    stderr, stderr_note = decode_output(ended.stderr, encoding)
    stdout, out_cursor = texts.keep_middle(stdout, room)
    stderr, err_cursor = texts.keep_middle(stderr, room)
    cut = ended.stdout_truncated or ended.stderr_truncated
    return Ran(
        exit_code=ended.code,
        signal=ended.signal,
        stdout=stdout,
        stderr=stderr,
        stdout_cursor=out_cursor,
        stderr_cursor=err_cursor,
        stdout_note=stdout_note,
        stderr_note=stderr_note,
        truncated="the agent keeps 16 MiB of output; the rest is lost" if cut else None,
    )


@contextlib.asynccontextmanager
async def _report_each_second(call: Call, seconds: float) -> AsyncIterator[None]:
    """Progress in seconds of those that there are: a client that hears nothing gives up."""

    async def report() -> None:
        for done in itertools.count(1):
            await asyncio.sleep(1)
            call.progress(done, seconds)

    task = asyncio.get_running_loop().create_task(report(), name="progress of run_command")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _environment(given: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    if not all(name and equals for name, equals, _ in pairs):
        raise InvalidParameters({"env": "each item is NAME=VALUE"})
    return {name: value for name, _, value in pairs}
