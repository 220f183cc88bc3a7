"""Sockets that lead to an agent's: TCP, and the UNIX socket of Cloud Hypervisor and Firecracker ("hybrid vsock")."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

PORT = 1024
"""The port of the guest that an agent listens on."""


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """As Firecracker: a connection for a port where nobody listens ends without an answer."""
    found = re.fullmatch(rb"CONNECT ([0-9]+)\n", await reader.readline())
    if not found or int(found[1]) != PORT:
        return False
    writer.write(b"OK 1073741824\n")
    return True


class _Forwarder:
    """What one end says goes to the other, and what one ends is ended."""

    def __init__(self, path: Path, *, hybrid: bool) -> None:
        self._path = path
        self._hybrid = hybrid
        self._tasks: set[asyncio.Task[None]] = set()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            if self._hybrid and not await _greet(reader, writer):
                return
            there, back = await asyncio.open_unix_connection(self._path)
            try:
                await asyncio.gather(_copy(reader, back), _copy(there, writer))
            finally:
                back.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def close(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def tcp_port(path: Path) -> AsyncIterator[int]:
    """A TCP port that leads to a UNIX socket."""
    forwarder = _Forwarder(path, hybrid=False)
    server = await asyncio.start_server(forwarder.forward, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await forwarder.close(server)


@contextlib.asynccontextmanager
async def hybrid_vsock(path: Path) -> AsyncIterator[Path]:
    """A hybrid vsock socket beside an agent's, which is behind `PORT`."""
    forwarder = _Forwarder(path, hybrid=True)
    own = path.with_suffix(".vsock")
    server = await asyncio.start_unix_server(forwarder.forward, own)
    try:
        yield own
    finally:
        await forwarder.close(server)
        own.unlink(missing_ok=True)
