"""A guest far away: a line between a server and an agent that takes its time. `python slow_line.py SOCKET AGENT` is one."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from waiting import until

BYTES_A_SECOND = 200_000
SLICE = 4_000


@contextlib.asynccontextmanager
async def slow_line(socket: Path, agent: Path) -> AsyncIterator[None]:
    """Serves at `socket` what is said to and by the agent, at 200 KB a second."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, socket, agent)
    try:
        await until(socket.exists)
        yield
    finally:
        process.terminate()
        await process.wait()


class _SlowLine:
    def __init__(self, agent: Path) -> None:
        self._agent = agent

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            there_reads, there_writes = await asyncio.open_unix_connection(self._agent)
        except OSError:  # it is started again
            writer.transport.abort()
            return
        try:
            await asyncio.gather(self._pass(reader, there_writes), self._pass(there_reads, writer))
        finally:
            for one in (writer, there_writes):
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(SLICE):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(len(data) / BYTES_A_SECOND)
        writer.close()


async def _main(socket: str, agent: str) -> None:
    async with await asyncio.start_unix_server(_SlowLine(Path(agent)).serve, socket) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
