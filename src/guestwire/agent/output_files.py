"""The output of processes by way of files in the guest, for channels that don't carry a large reply.

An agent gives all output in one reply, of up to 43 MiB, and forgets it with that: through libvirt the output would be
lost, or the agent for everybody. So a shell in the guest sends the outputs to files, and becomes the program: its
process id, end and signals are the program's own. When it has ended, a second shell gives what the files hold and
removes them; where that is much, they are read in pieces.

A process that was not started so is not asked for: nothing says how much it has written.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from guestwire.agent.agent_client import AgentClient
from guestwire.agent.commands import EXEC, EXEC_STATUS, GET_OSINFO, Capture, exec_arguments
from guestwire.agent.files import Files
from guestwire.agent.results import ProcessStatus
from guestwire.errors import AgentError, CommandFailed
from guestwire.pacing import Backoff
from guestwire.wire import Reply

AT_ONCE: Final = 256 * 1024
"""Bytes of each output that the second shell gives at once."""

KEPT: Final = 16 * 1024 * 1024
"""Bytes of each output at most, as the agent itself keeps."""

WINDOWS: Final = "mswindows"

WITHIN: Final = 30.0

REDIRECT: Final = """\
for d in /var/tmp /run /tmp; do [ -d "$d" ] && [ -w "$d" ] && break; done
d=$d/guestwire-$$; rm -rf "$d"; mkdir -m 700 "$d" || exit 126
: >"$d/out"; : >"$d/err"
exec "$@" REDIRECTION
"""
REDIRECTIONS: Final[dict[Capture, str]] = {
    "separated": '>"$d/out" 2>"$d/err"',
    "merged": '>"$d/out" 2>&1',
}

FIND: Final = """\
for d in /var/tmp /run /tmp; do for o in "$d"/guestwire-*; do
    [ -d "$o" ] && [ ! -e "/proc/${o##*-}" ] && find "$o" -maxdepth 0 -mmin +1440 -exec rm -rf {} + 2>/dev/null
done; done
case $1 in */*) [ -f "$1" ] && [ -x "$1" ] ;; *) command -v "$1" >/dev/null 2>&1 ;; esac && exit 0
[ -e "$1" ] && echo "Permission denied" || echo "No such file or directory"; exit 1
"""
"""An agent says at once that it can't start a program; a shell that becomes it would say so too late. And what nobody
fetched of earlier processes goes after a day."""

COLLECT: Final = """\
for d in /var/tmp /run /tmp; do d=$d/guestwire-$1; [ -d "$d" ] && break; done
[ -d "$d" ] || exit 3
[ "$2" ] || exit 0
if [ "$(wc -c <"$d/out")" -gt "$2" ] || [ "$(wc -c <"$d/err")" -gt "$2" ]; then echo "$d"; exit 5; fi
head -c "$2" "$d/out"; head -c "$2" "$d/err" >&2; rm -rf "$d"
"""

NOT_OURS, LARGE = 3, 5
"""Exit codes of `COLLECT`."""

FOUND_FOR: Final = 60.0
"""Seconds in which a program is not looked for again."""

ROOM: Final = 1024
"""Bytes of a command beside the program and its arguments."""

MOST_FOUND: Final = 1000


class OutputFiles:
    """Starts processes whose output goes to files, and gives that when they have ended. Windows has no such shell: see `redirected`."""

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent
        self._contents = Files(agent)
        self._is_windows: bool | None = None
        self._found: dict[str, float] = {}
        """When a program was found."""
        self._started: set[int] = set()
        self._ended: dict[int, ProcessStatus] = {}
        """What the agent said of processes that have ended, and has forgotten; their files are still there."""

    async def redirected(self, command: Sequence[str], capture: Capture) -> tuple[Sequence[str], Capture]:
        """The command that starts `command` so, and what its agent is to capture of it.

        In Windows that is the command itself, whose output must stay small.
        """
        if self._is_windows is None:
            try:
                self._is_windows = (await self._agent.execute(GET_OSINFO)).id == WINDOWS
            except AgentError:  # one from before 2.10, or forbidden: most guests are no Windows
                self._is_windows = False
        if self._is_windows:
            return command, capture
        limit = self._agent.channel.limits.command
        if limit and len(msgspec.json.encode(command)) > limit - ROOM:
            why = f"Failed to execute child process (Argument list too long: {limit} bytes is all that libvirt carries)"
            raise AgentError("GenericError", f"Guest agent command failed, error was '{why}'")
        await self._find(command[0])
        script = REDIRECT.replace("REDIRECTION", REDIRECTIONS[capture])
        return ("/bin/sh", "-c", script, "sh", *command), "separated"

    async def _find(self, program: str) -> None:
        if time.monotonic() - self._found.get(program, -FOUND_FOR) < FOUND_FOR:
            return
        answer = await run_shell(self._agent, FIND, program)
        if answer.exitcode:
            why = f"Failed to execute child process “{program}” ({_text(answer)})"
            raise AgentError("GenericError", f"Guest agent command failed, error was '{why}'")
        if len(self._found) >= MOST_FOUND:
            self._found.clear()
        self._found[program] = time.monotonic()

    def started(self, pid: int) -> None:
        """A process that `redirected` made was started."""
        self._started.add(pid)
        self._ended.pop(pid, None)

    async def status(self, pid: int) -> ProcessStatus:
        """As guest-exec-status, with the output.

        Raises:
            AgentError: there is no such process, or it was not started here, or its program could not be.
            GuestError: see `Channel.execute`.
        """
        if pid not in self._started:
            # Another process of guestwire, or this one's before, may have started it; others are not asked for.
            if (await self._collect(pid, "")).exitcode == NOT_OURS:
                raise AgentError(
                    "GenericError",
                    f"PID {pid} does not exist, or was not started by guestwire, which asks libvirt for no other",
                )
            self._started.add(pid)
        status = self._ended.get(pid) or await self._ask(pid)
        if not status.exited or self._is_windows:
            return status
        self._ended[pid] = status
        complete = await self._with_output(pid, status)
        self._ended.pop(pid, None)
        self._started.discard(pid)
        return complete

    async def _ask(self, pid: int) -> ProcessStatus:
        def on_late_reply(reply: Reply) -> None:
            if reply.value is not msgspec.UNSET:
                with contextlib.suppress(msgspec.DecodeError):
                    late = msgspec.json.decode(reply.value, type=ProcessStatus)
                    if late.exited:
                        self._ended[pid] = late

        return await self._agent.execute(EXEC_STATUS, {"pid": pid}, on_late_reply=on_late_reply)

    async def _with_output(self, pid: int, status: ProcessStatus) -> ProcessStatus:
        found = await self._collect(pid, str(AT_ONCE))
        if found.exitcode == LARGE:
            text = _text(found)
            out = await self._contents.read(f"{text}/out", count=KEPT)
            err = await self._contents.read(f"{text}/err", count=KEPT)
            await self._agent.execute(EXEC, exec_arguments(("/bin/sh", "-c", 'rm -rf "$0"', text)))
            return msgspec.structs.replace(
                status, out_data=b"".join(out.pieces) or None, err_data=b"".join(err.pieces) or None,
                out_truncated=out.truncated or None, err_truncated=err.truncated or None,
            )  # fmt: skip
        if found.exitcode == NOT_OURS:  # the first shell could not make files, and has said so
            return status
        return msgspec.structs.replace(status, out_data=found.out_data, err_data=found.err_data)

    async def _collect(self, pid: int, most: str) -> ProcessStatus:
        return await run_shell(self._agent, COLLECT, str(pid), most)


async def run_shell(agent: AgentClient, script: str, *arguments: str) -> ProcessStatus:
    """Runs a script of ours, whose output is small, to its end.

    Raises:
        GuestError: it can't be run, or does not come to its end.
    """
    started = await agent.execute(EXEC, exec_arguments(("/bin/sh", "-c", script, "sh", *arguments)))
    pauses = Backoff(0.002, 0.2)
    try:
        async with asyncio.timeout(WITHIN):
            while not (status := await agent.execute(EXEC_STATUS, {"pid": started.pid})).exited:  # noqa: ASYNC110  # only asking tells
                await asyncio.sleep(pauses.next())
    except TimeoutError:
        raise CommandFailed(
            agent.guest, EXEC_STATUS.command.name, "a shell in the guest does not come to its end"
        ) from None
    return status


def _text(status: ProcessStatus) -> str:
    return (status.out_data or b"").decode(errors="replace").rstrip("\n")
