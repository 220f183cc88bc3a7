"""A command of an assistant while it runs: what it writes goes to the client as progress."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from guestwire.client.cancellation import finish_when_cancelled
from guestwire.client.processes import CompletedProcess
from guestwire.mcp.display import sanitize
from guestwire.mcp.tool import Call

if TYPE_CHECKING:
    from guestwire.client.live_processes import LiveProcess, OutputStream

MOST_OUTPUT: Final = 16 * 1024 * 1024
"""Bytes of each output that are kept."""

LONGEST_PROGRESS: Final = 1000
"""Characters of the output that one progress shows: the end of what came since the one before."""

EVERY: Final = 1.0


@dataclass
class LiveCommand:
    """What runs, and what has come of it.

    Attributes:
        argv: program and arguments.
        input: its standard input.
        env: more variables.
        cwd: its working directory.
        seconds: after which it is left running.
        is_ended: it is ended then, and when its call is cancelled: it is no work, but a look.
    """

    argv: Sequence[str]
    input: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    seconds: float = 60.0
    is_ended: bool = False


@dataclass
class _Output:
    data: bytearray = field(default_factory=bytearray)
    is_cut: bool = False

    async def keep(self, stream: "OutputStream | None", fresh: bytearray) -> None:
        while stream and (data := await stream.read(65536)):
            room = MOST_OUTPUT - len(self.data)
            self.data += data[:room]
            self.is_cut = self.is_cut or len(data) > room
            fresh += data
            del fresh[: -4 * LONGEST_PROGRESS]


async def run_live(call: Call, command: LiveCommand) -> tuple[CompletedProcess, bool]:
    """Runs a command; what came of it, and whether it has ended. One that has not is left running.

    Raises:
        NoStream: the guest can't carry a stream.
        CallFailed: see `client.errors`.
    """
    out, err, fresh = _Output(), _Output(), bytearray()
    async with call.guest.start(
        command.argv, env=command.env, cwd=command.cwd, input=command.input is not None
    ) as process:
        call.note_process(process.pid)
        ends = command.is_ended or call.limits.cancelled_ends
        fate = "ends it" if ends else "leaves it running"
        call.tell(f"process {process.pid} was started; cancelling {fate}")
        work = [
            asyncio.ensure_future(one)
            for one in (out.keep(process.stdout, fresh), err.keep(process.stderr, fresh), _feed(process, command.input))
        ]
        telling = asyncio.create_task(_tell(call, command.seconds, fresh), name="progress of run_command")
        ended = None
        try:
            async with asyncio.timeout(command.seconds):
                await asyncio.gather(*work)
                ended = await process.wait()
        except TimeoutError:
            if not command.is_ended:
                await process.leave()
        except asyncio.CancelledError:
            if not ends:
                await finish_when_cancelled(process.leave())
            raise
        finally:
            for task in (telling, *work):
                task.cancel()
            await asyncio.gather(telling, *work, return_exceptions=True)
    done = CompletedProcess(
        argv=tuple(command.argv),
        pid=process.pid,
        code=ended.code if ended else None,
        signal=ended.signal if ended else None,
        stdout=bytes(out.data),
        stderr=bytes(err.data),
        stdout_truncated=out.is_cut,
        stderr_truncated=err.is_cut,
    )
    return done, ended is not None


async def _feed(process: "LiveProcess", text: str | None) -> None:
    if text is None:
        return
    try:
        await process.stdin.write(text)
        await process.stdin.close()
    except BrokenPipeError:
        pass  # it wants no more of it


async def _tell(call: Call, seconds: float, fresh: bytearray) -> None:
    """Progress in seconds of those that there are, with the end of what came meanwhile."""
    for done in itertools.count(1):
        await asyncio.sleep(EVERY)
        text = sanitize(fresh.decode("utf-8", "replace"))[-LONGEST_PROGRESS:]
        fresh.clear()
        call.progress(done, seconds, text or None)
