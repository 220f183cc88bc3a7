"""A relay in the guest, on a port of our own, that reads and writes pieces of files as they are, without JSON and base64.

A second agent on the port would work, too, and was tried: most of its time goes into its JSON, so that a copy was twice
as fast as through libvirt and no more. A shell and `dd` are ten times as fast, and are in each Unix.

The guest's agent starts the relay, by guest-exec. The two then speak so, one request after the other:

    guestwire                 the relay is there
    w AT COUNT PATH           COUNT blocks for the file, which follow, from its block AT on: ok, or it ends with `failed`
    r AT COUNT PATH           COUNT blocks of the file: ok and the blocks, or no, where the file has not so many

After a failure the rest of what was to be written would be taken for requests: so that is the relay's end. Its end is
also the end of the connection, so that it does not outlive its owner. It never freezes a guest, and does nothing that
the guest's agent forbids: it is only started where the agent's own commands for files are enabled.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from guestwire.agent.agent_client import AgentClient
from guestwire.agent.commands import EXEC, EXEC_STATUS, FILE_CLOSE, FILE_OPEN, FILE_READ, FILE_SEEK, FILE_WRITE, INFO
from guestwire.agent.output_files import run_shell
from guestwire.channels.own_port import OwnPorts, leftovers, new_name, plugged_in
from guestwire.errors import GuestError
from guestwire.pacing import Backoff

T = TypeVar("T")

PURPOSE: Final = "copy"

BLOCK: Final = 64 * 1024
MOST: Final = 16 * 1024 * 1024
"""Bytes of one request."""

UP_WITHIN: Final = 20.0
ANSWERS_WITHIN: Final = 20.0
ENDS_WITHIN: Final = 2.0
"""Seconds."""

HELLO: Final = b"guestwire\n"
OK: Final = b"ok\n"
NO: Final = b"no\n"
FAILED: Final = b"failed\n"

FILE_COMMANDS: Final = frozenset(one.command.name for one in (FILE_OPEN, FILE_CLOSE, FILE_READ, FILE_WRITE, FILE_SEEK))

CAN_START: Final = """\
[ -d /sys/class/virtio-ports ] && stat -L -c %s / >/dev/null && dd bs=1 count=1 iflag=fullblock </dev/null
"""

START: Final = """\
find_port() {
    for p in /sys/class/virtio-ports/*; do
        [ "$(cat "$p/name" 2>/dev/null)" = "$1" ] && [ -c "/dev/${p##*/}" ] && return
    done
    return 1
}
n=0
until find_port "$1"; do
    n=$((n + 1)); [ $n -gt 100 ] && exit 2
    sleep 0.1 2>/dev/null || sleep 1
done
exec <>"/dev/${p##*/}" >&0 2>/dev/null
echo guestwire
while read -r verb at count path; do
    case $verb in
    w)  [ -f "$path" ] && dd of="$path" bs=65536 seek="$at" count="$count" iflag=fullblock conv=notrunc ||
            { echo failed; exit 1; }
        echo ok ;;
    r)  s=$(stat -L -c %s "$path")
        if [ -f "$path" ] && [ -r "$path" ] && [ $((${s:-0} / 65536)) -ge $((at + count)) ]; then
            echo ok
            dd if="$path" bs=65536 skip="$at" count="$count" || exit 1
        else
            echo no
        fi ;;
    *) exit 1 ;;
    esac
done
"""
"""udev's links in /dev/virtio-ports are not in each guest."""

_in_a_line = re.compile(r"/|/[^\0-\x1f]*[^\0-\x20]")
"""Paths that the shell's `read` gives as they are."""


class NotCarried(Exception):
    """The relay has not done it; what it has done does no harm."""


class PieceRelay:
    """Reads and writes pieces of a guest's files, as whole blocks; any number of calls at once.

    Args:
        agent: the guest's, whose work it is.
        reader, writer: the other side of the relay's port. Belong to its maker.

    Attributes:
        failed: set when it is of no more use.
        has_refused: that is so because it could not do what was asked, as on a full disk.
    """

    def __init__(self, agent: AgentClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.failed = asyncio.Event()
        self.has_refused = False
        self._agent = agent
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self._last: asyncio.Future[None] | None = None
        """Done when the answer to the last request was read; the next one's comes behind it."""

    async def read(self, path: str, *, offset: int, count: int) -> bytes:
        """Bytes of a file that has so many from there on.

        Raises:
            NotCarried: it has not, or it can't be read, or the relay has failed.
        """

        async def answer() -> bytes:
            if (line := await self._reader.readline()) == NO:
                raise NotCarried
            self._expect(OK, line)
            return await self._reader.readexactly(count)

        return await self._request(_line("r", path, offset, count), answer)

    async def write(self, path: str, content: bytes, *, offset: int) -> None:
        """Writes into a file that is there.

        Raises:
            NotCarried: it can't be written, or the relay has failed.
        """

        async def answer() -> None:
            self._expect(OK, await self._reader.readline())

        await self._request(_line("w", path, offset, len(content)) + content, answer)

    async def greet(self) -> None:
        """Waits for its first word.

        Raises:
            ConnectionError: it is another one.
        """
        self._expect(HELLO, await self._reader.readline())

    def _expect(self, wanted: bytes, line: bytes) -> None:
        if line != wanted:
            self.has_refused = line == FAILED
            raise ConnectionError(f"{line[:32]!r} where {wanted!r} was expected")

    async def _request(self, request: bytes, answer: Callable[[], Awaitable[T]]) -> T:
        # A caller that goes away leaves an answer, which must be read before the next one.
        return await asyncio.shield(self._agent.spawn(self._ask(request, answer)))

    async def _ask(self, request: bytes, answer: Callable[[], Awaitable[T]]) -> T:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                async with self._turn:
                    self._check()
                    before, self._last = self._last, done
                    self._writer.write(request)
                    await self._writer.drain()
                if before:
                    await before
                self._check()
                return await answer()
        except NotCarried:
            raise
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            self.failed.set()
            raise NotCarried from error
        except asyncio.CancelledError:
            self.failed.set()
            raise
        finally:
            done.set_result(None)

    def _check(self) -> None:
        if self.failed.is_set():
            raise NotCarried


def _line(verb: str, path: str, offset: int, size: int) -> bytes:
    if offset % BLOCK or size % BLOCK or not 0 < size <= MOST or not _in_a_line.fullmatch(path):
        raise NotCarried
    try:
        return f"{verb} {offset // BLOCK} {size // BLOCK} {path}\n".encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise NotCarried from None


@contextlib.asynccontextmanager
async def piece_relay(agent: AgentClient, ports: OwnPorts) -> AsyncIterator[PieceRelay]:
    """Starts one, and ends it and takes its port out at the end.

    Args:
        agent: the guest's.
        ports: of the same VM.

    Raises:
        GuestError: it can't be had, and nothing of it is left; or the caller's.
    """
    enabled = {one.name for one in (await agent.execute(INFO)).supported_commands if one.enabled}
    if not enabled >= FILE_COMMANDS:
        raise GuestError(f"{agent.guest}: its agent does not allow all that is done with files")
    if (await run_shell(agent, CAN_START)).exitcode != 0:
        raise GuestError(f"{agent.guest}: it lacks stat, dd with iflag=fullblock, or virtio-serial ports")
    for name in await leftovers(ports, PURPOSE):  # what was behind it has ended with its connection
        await ports.unplug(name)
    name = new_name(PURPOSE)
    async with plugged_in(ports, name):
        arguments = {"path": "/bin/sh", "arg": ["-c", START, "sh", name], "capture-output": False}
        pid = (await agent.execute(EXEC, arguments)).pid
        try:
            async with _connected(agent, ports, name) as relay:
                yield relay
        finally:
            await _wait_for_its_end(agent, pid)


@contextlib.asynccontextmanager
async def _connected(agent: AgentClient, ports: OwnPorts, name: str) -> AsyncIterator[PieceRelay]:
    reader, writer = await asyncio.open_unix_connection(sock=await ports.connect(name))
    try:
        relay = PieceRelay(agent, reader, writer)
        try:
            async with asyncio.timeout(UP_WITHIN):
                await relay.greet()
        except (OSError, TimeoutError, ValueError) as error:
            raise GuestError(f"{agent.guest}: the relay does not start: {error!r}") from error
        yield relay
    finally:
        writer.transport.abort()


async def _wait_for_its_end(agent: AgentClient, pid: int) -> None:
    """It ends by itself, as its connection has; one that does not (its disk is frozen) is ended when it can be.

    An agent keeps how a process ended until it is asked.
    """
    pauses = Backoff(0.005, 0.1)
    with contextlib.suppress(GuestError, TimeoutError):
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                while not (await agent.execute(EXEC_STATUS, {"pid": pid})).exited:  # noqa: ASYNC110  # only asking tells
                    await asyncio.sleep(pauses.next())
        except TimeoutError:
            async with asyncio.timeout(ENDS_WITHIN):
                await run_shell(agent, 'kill -9 "$1"', str(pid))
