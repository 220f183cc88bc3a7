"""A program in a guest behind a guestwire server: the other side of `server/process_socket.py`."""

import asyncio
import base64
import contextlib
import signal
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import msgspec

from guestwire.contract.openapi import SECRETS_HEADER
from guestwire.errors import StreamBroken
from guestwire.streams.buffers import OutputBuffer
from guestwire.streams.messages import LARGEST, STDIN, WINDOW, FromServer, Room, ToServer, encode
from guestwire.streams.remote_process import MOST_AT_ONCE, STDERR, STDOUT, Exit, Output, WindowSize

HEARTBEAT: Final = 20.0
"""Seconds between questions whether the server is still there."""

CLOSES_WITHIN: Final = 10.0

GONE: Final = "the connection to the server broke"
ENDED_THERE: Final = "the server ends it when it sees that, within 25 seconds"


class SocketProcess:
    """See `RemoteProcess`. Must be made where an event loop runs.

    Args:
        session: belongs to this one from now on.
        socket: its open WebSocket.
        pid: the program's id.
        host: the server's name.
    """

    way = "server"

    def __init__(
        self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, pid: int, host: str
    ) -> None:
        self.pid = pid
        self._session = session
        self._socket = socket
        self._host = host
        self._buffers: dict[Output, OutputBuffer] = {STDOUT: OutputBuffer(), STDERR: OutputBuffer()}
        self._rooms: dict[Output, Room] = {STDOUT: Room(), STDERR: Room()}
        self._room = WINDOW
        self._has_room = asyncio.Condition()
        self._reads = True
        self._broken: StreamBroken | None = None
        self._input_turn = asyncio.Lock()
        self._input_ended = False
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen(), name=f"stream of process {pid}")

    async def send(self, data: bytes) -> None:
        """See `RemoteProcess.send`."""
        rest = memoryview(data)
        async with self._input_turn:
            while rest:
                async with self._has_room:
                    await self._has_room.wait_for(lambda: self._room > 0 or self._is_deaf())
                    if self._broken:
                        raise self._broken
                    if self._is_deaf():
                        raise BrokenPipeError(f"process {self.pid} reads no more")
                    size = min(len(rest), self._room, MOST_AT_ONCE)
                    self._room -= size
                await self._say(bytes([STDIN]) + rest[:size])
                rest = rest[size:]

    def _is_deaf(self) -> bool:
        return not self._reads or self._input_ended or self._exit.done()

    async def send_eof(self) -> None:
        """See `RemoteProcess.send_eof`."""
        async with self._input_turn:
            if not self._is_deaf():
                self._input_ended = True
                await self._say(ToServer(eof=True))

    async def receive(self, output: Output) -> bytes:
        """See `RemoteProcess.receive`."""
        data = await self._buffers[output].get()
        # Behind the program's end, too: what it wrote may still be on its way.
        if data and (more := self._rooms[output].take(len(data))):
            with contextlib.suppress(StreamBroken):  # what has come is to be had
                await self._say(ToServer(room={str(output): more}))
        return data

    async def resize(self, size: WindowSize) -> None:
        """See `RemoteProcess.resize`."""
        if not self._exit.done():
            await self._say(ToServer(resize=(size.rows, size.columns)))

    async def kill(self, number: signal.Signals) -> None:
        """See `RemoteProcess.kill`."""
        if not self._exit.done():
            await self._say(ToServer(signal=int(number)))

    async def wait(self) -> Exit:
        """See `RemoteProcess.wait`."""
        return await asyncio.shield(self._exit)

    async def leave(self) -> None:
        """See `RemoteProcess.leave`."""
        await self._say(ToServer(leave=True))
        await self.close()

    async def close(self) -> None:
        """See `RemoteProcess.close`; the server ends the program with the connection."""
        try:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(CLOSES_WITHIN):
                    await self._socket.close()
        finally:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            await self._session.close()

    async def _say(self, message: ToServer | bytes) -> None:
        try:
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_str(encode(message).decode())
        except (aiohttp.ClientError, OSError) as error:
            if self._exit.done() and not self._exit.exception():
                return
            raise StreamBroken(self._host, self.pid, GONE, ENDED_THERE) from error

    async def _listen(self) -> None:
        why, fate = GONE, ENDED_THERE
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.BINARY and message.data[:1] in (b"\1", b"\2"):
                    output: Output = STDOUT if message.data[0] == STDOUT else STDERR
                    await self._buffers[output].put(message.data[1:])
                elif message.type is aiohttp.WSMsgType.TEXT:
                    said = msgspec.json.decode(message.data, type=FromServer)
                    if said.broken:
                        why, fate = said.broken, said.fate
                    await self._hear(said)
        except (msgspec.MsgspecError, OSError, aiohttp.ClientError) as error:
            why = str(error)
        finally:
            has_exited = self._exit.done()
            self._broken = StreamBroken(self._host, self.pid, why, fate)
            if not has_exited:
                self._exit.set_exception(self._broken)
                self._exit.exception()  # its waiter may be gone
            for buffer in self._buffers.values():
                await buffer.end(self._broken)
            async with self._has_room:
                self._has_room.notify_all()

    async def _hear(self, message: FromServer) -> None:
        if message.end in (STDOUT, STDERR):
            await self._buffers[STDOUT if message.end == STDOUT else STDERR].end()
        if message.exit and not self._exit.done():
            self._exit.set_result(Exit(message.exit.code, message.exit.signal))
        async with self._has_room:
            self._room += max(message.room.get(str(STDIN), 0), 0)
            self._reads = self._reads and message.stdin
            self._has_room.notify_all()


async def first_message(socket: aiohttp.ClientWebSocketResponse) -> FromServer:
    """The server's first words: which process it has started.

    Raises:
        OSError: there are none.
    """
    message: Any = await socket.receive()
    if message.type is not aiohttp.WSMsgType.TEXT:
        raise ConnectionResetError("the server has ended the stream")
    return msgspec.json.decode(message.data, type=FromServer)


def secrets_header(secrets: Mapping[str, Any]) -> dict[str, str]:
    """Parameters that must not stand in an address.

    Raises:
        ValueError: they are not UTF-8.
    """
    return {SECRETS_HEADER: base64.b64encode(msgspec.json.encode(secrets)).decode()} if secrets else {}


def socket_options() -> dict[str, Any]:
    """How aiohttp is to open one."""
    return {"max_msg_size": LARGEST + 1, "heartbeat": HEARTBEAT}
