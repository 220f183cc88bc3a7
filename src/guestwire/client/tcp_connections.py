"""TCP connections that are made in a guest: to its own services, and to what it reaches."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from guestwire.agent.systems import SHELL, script_text
from guestwire.client.errors import CallFailed, ErrorContext, WrongParameters
from guestwire.client.live_processes import LiveProcess, start_in
from guestwire.client.processes import Processes

CONNECTS_WITHIN: Final = 60.0
"""Seconds for a connection in the guest; over Proxmox VE each look takes a part of one."""

LONGEST_REASON: Final = 200
"""Characters of what a program in the guest says."""

MOST_LINES: Final = 20
"""Lines that it may say before it is connected."""

HIGHEST_PORT: Final = 65535

_host: Final = re.compile(r"[\w.:%][\w.:%-]*")
"""What a name or an address is made of: not a path, and no option of a program."""

HINTS: Final = (
    (r"refused", "nobody listens there: `guestwire exec GUEST -- ss -ltn` shows the ports that are open in the guest"),
    (r"[Nn]ame|resol|nodename|[Hh]ost not found", "the guest does not know that name: give it an address"),
    (r"unreachable|timed out|[Nn]o route|in time", "the guest does not reach it: check its routes and firewalls"),
    (r"none of", "install python3 in the guest"),
)
"""The next step, by the reason; the first that fits."""


class ConnectionFailed(CallFailed):
    """A TCP connection in the guest could not be made, or broke; `reason` is in the guest's words."""

    def __init__(self, context: ErrorContext, host: str, port: int, reason: str, *, was_made: bool = False) -> None:
        self.reason = reason
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        message = f"the guest's connection to {where} broke" if was_made else f"the guest can't connect to {where}"
        hint = "" if was_made else next((hint for pattern, hint in HINTS if re.search(pattern, reason)), "")
        super().__init__(context, f"{message}: {reason}", hint=hint)


class TcpConnection:
    """A TCP connection that a guest has; `Guest.connect_tcp` makes one.

    Attributes:
        host: a name or an address, as the guest knows it.
        port: the port there.
        can_write_eof: False where all that the guest could connect with is bash or an old `nc`.
    """

    def __init__(
        self, process: LiveProcess, host: str, port: int, context: ErrorContext, *, can_write_eof: bool
    ) -> None:
        self._process = process
        self._context = context
        self.host = host
        self.port = port
        self.can_write_eof = can_write_eof

    @property
    def way(self) -> str:
        """How its bytes go; see `LiveProcess.way`."""
        return self._process.way

    async def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, as soon as there are some, and `b""` at the end; without a size, all until the end.

        Raises:
            ConnectionFailed: the connection was reset.
            StreamEnded: the stream to the guest broke.
        """
        data = await self._process.stdout.read(size)
        if size < 0 or (size and not data):
            reason = await _reason(self._process)
            if reason not in ("", "closed"):
                raise ConnectionFailed(self._context, self.host, self.port, reason, was_made=True)
        return data

    async def write(self, data: bytes | str) -> None:
        """Sends bytes, or text as UTF-8; waits while the other side takes none.

        Raises:
            BrokenPipeError: the other side takes no more.
            StreamEnded: the stream to the guest broke.
        """
        await self._process.stdin.write(data)

    async def write_eof(self) -> None:
        """Tells the other side that no more will be sent; it may still be read from.

        Raises:
            NotImplementedError: see `can_write_eof`.
        """
        if not self.can_write_eof:
            raise NotImplementedError(
                f"{self._context}: nothing in the guest can end one direction of a connection; install python3 there"
            )
        await self._process.stdin.close()

    async def close(self) -> None:
        """Ends it, and leaves nothing behind in the guest."""
        await self._process.close()


@asynccontextmanager
async def connect_in(processes: Processes, host: str, port: int) -> AsyncIterator[TcpConnection]:
    """See `Guest.connect_tcp`."""
    context = processes.context
    if not _host.fullmatch(host):
        raise WrongParameters(context, f"no host is called '{host}'")
    if not 0 < port <= HIGHEST_PORT:
        raise WrongParameters(context, f"a port is a number from 1 to {HIGHEST_PORT}, and not {port}")
    # As itself, and not as a script with a name of its own: it becomes the program that connects.
    argv = [SHELL, "-c", script_text("unix/connect.sh"), "connect", host, str(port)]
    async with start_in(processes, argv) as process:
        try:
            async with asyncio.timeout(CONNECTS_WITHIN):
                can_write_eof = await _connected(process, context, host, port)
        except TimeoutError:
            raise ConnectionFailed(context, host, port, "no answer in time") from None
        yield TcpConnection(process, host, port, context, can_write_eof=can_write_eof)


async def _connected(process: LiveProcess, context: ErrorContext, host: str, port: int) -> bool:
    """Waits until the guest says that it is connected; gives whether it can end one direction alone."""
    assert process.stderr  # noqa: S101  # it is apart
    said = b""
    for _ in range(MOST_LINES):
        if not (line := await process.stderr.readline()):
            # One that was over at once was there.
            if (await process.wait()).code == 0:
                return True
            break
        if line.startswith(b"connected"):
            return line == b"connected\n"
        said = line
    raise ConnectionFailed(context, host, port, _text(said) or "it does not say why")


async def _reason(process: LiveProcess) -> str:
    """The last that the guest says of a connection."""
    assert process.stderr  # noqa: S101  # it is apart
    found = b""
    while line := await process.stderr.readline():
        found = line
    return _text(found)


def _text(line: bytes) -> str:
    """The reason alone: programs say their name and the address before it."""
    return line.decode("utf-8", "replace").strip().rpartition(": ")[2][:LONGEST_REASON]
