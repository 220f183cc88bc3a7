"""A program in a guest over a WebSocket: one side of `streams.messages`."""

import asyncio
import base64
import contextlib
import re
import signal
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
from websockets.exceptions import InvalidState, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as WebSocket
from websockets.protocol import Side
from websockets.utils import accept_key

from guestwire.contract import Endpoint, rules
from guestwire.contract.endpoints.program_streams import MOST_CHARACTERS
from guestwire.contract.openapi import SECRETS_HEADER
from guestwire.dispatch.pipeline import ReadParameters
from guestwire.errors import Forbidden, GuestwireError, InvalidParameters, StreamBroken
from guestwire.server.http1 import Refusal, Request, Wire
from guestwire.streams.messages import LARGEST, STDIN, WINDOW, Ended, FromServer, Room, ToServer, encode
from guestwire.streams.remote_process import STDERR, STDOUT, Output, RemoteProcess, WindowSize

NORMAL: Final = 1000
WRONG_MESSAGE: Final = 1008
"""Codes of a close (RFC 6455, section 7.4.1)."""

_key: Final = re.compile("[A-Za-z0-9+/]{22}==")
"""Sixteen bytes in base64."""

CHECKED_EVERY: Final = 5.0
"""Seconds between looks whether the user may still do this."""

WITHDRAWN: Final = "the right to it was withdrawn"
STOPS: Final = "the server stops"


def handshake(request: Request) -> dict[str, str]:
    """The headers of the answer that makes a request a WebSocket.

    Raises:
        Refusal: it asks for none, or comes from another site's page: a browser sends a user's cookie from there, too.
    """
    headers = request.headers
    upgrades = headers.get("upgrade", "").lower() == "websocket"
    if not upgrades or "upgrade" not in headers.get("connection", "").lower():
        raise Refusal(426, "this is a WebSocket: connect with a client of these, or use guestwire exec")
    if headers.get("sec-websocket-version") != "13":
        raise Refusal(426, "WebSockets have version 13 here")
    key = headers.get("sec-websocket-key", "")
    if not _key.fullmatch(key):
        raise Refusal(400, "Sec-WebSocket-Key is none")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        raise Refusal(403, "a page of another site may not open it")
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_key(key),
        "Server": "guestwire",
    }


def read_with_secrets(request: Request, endpoint: Endpoint, read: ReadParameters) -> ReadParameters:
    """Reads the parameters of a request without a body whose secrets stand in a header, for an address is kept in logs.

    Arguments may stand there, too.
    """
    known = rules(endpoint.parameters).values()
    secrets = {rule.name for rule in known if rule.is_secret}
    private = {rule.name for rule in known if rule.is_private}

    async def parameters() -> dict[str, Any]:
        given = dict(await read())
        if misplaced := secrets & given.keys():
            raise InvalidParameters(dict.fromkeys(misplaced, f"it stands in the header {SECRETS_HEADER}"))
        if (text := request.headers.get(SECRETS_HEADER.lower())) is not None:
            try:
                found = msgspec.json.decode(base64.b64decode(text, validate=True), type=dict[str, Any])
            except ValueError:
                raise InvalidParameters({SECRETS_HEADER: "no object of JSON, in base64"}) from None
            if unknown := found.keys() - private:
                raise InvalidParameters(dict.fromkeys(unknown, f"{SECRETS_HEADER} has secrets and arguments alone"))
            if twice := found.keys() & given.keys():
                raise InvalidParameters(dict.fromkeys(twice, f"it stands in the address and in {SECRETS_HEADER}"))
            given |= found
        return given

    return parameters


class ProcessSocket:
    """Carries a program's bytes until it or the client has ended, and ends it then.

    Args:
        wire: belongs to its maker.
        process: belongs to this one.
        check: raises `Forbidden` when its user may not do this any more.
    """

    def __init__(self, wire: Wire, process: RemoteProcess, check: Callable[[], None]) -> None:
        self._wire = wire
        self._check = check
        self._process = process
        self._socket = WebSocket(Side.SERVER, max_size=LARGEST)
        self._message = bytearray()
        self._opcode = Opcode.BINARY
        self._room: dict[Output, int] = {STDOUT: WINDOW, STDERR: WINDOW}
        self._has_room = asyncio.Condition()
        self._input: deque[bytes] = deque()
        self._input_size = 0
        self._input_ended = False
        self._input_changed = asyncio.Event()

    async def serve(self) -> None:
        """Returns when all is over.

        Raises:
            ConnectionError: the client has left.
        """
        self._say(FromServer(pid=self._process.pid, way=self._process.way))
        listening = asyncio.create_task(self._listen(), name="socket")
        feeding = asyncio.create_task(self._feed(), name="input")
        ending = asyncio.create_task(self._wire.ending.wait(), name="ending")
        carrying = asyncio.create_task(self._carry(), name="outputs")
        checking = asyncio.create_task(self._until_forbidden(), name="rights")
        tasks = {listening, feeding, ending, carrying, checking}
        try:
            await asyncio.wait({listening, ending, carrying, checking}, return_when=asyncio.FIRST_COMPLETED)
            if checking.done() and not carrying.done():
                self._say(FromServer(broken=WITHDRAWN, fate="it is ended with it"))
            if ending.done() and not carrying.done():
                self._say(FromServer(broken=STOPS, fate="it is ended with it"))
            if listening.done() and (error := listening.exception()):
                raise error
        finally:
            for task in tasks:
                task.cancel()
            # A client that has closed the socket hangs up at once: this goes to its end all the same.
            closing = asyncio.gather(*tasks, self._process.close(), return_exceptions=True)
            while not closing.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([closing])
            with contextlib.suppress(InvalidState):
                self._socket.send_close(NORMAL)
            self._flush()

    async def _until_forbidden(self) -> None:
        with contextlib.suppress(Forbidden):
            while True:
                await asyncio.sleep(CHECKED_EVERY)
                self._check()

    # To the client

    async def _carry(self) -> None:
        """All that the program writes, and how it ends."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry_output(STDOUT))
                group.create_task(self._carry_output(STDERR))
                group.create_task(self._tell_exit())
        except* GuestwireError as errors:
            error = errors.exceptions[0]
            if isinstance(error, StreamBroken):
                self._say(FromServer(broken=error.why, fate=error.fate))
            else:
                self._say(FromServer(broken=str(error)))
        await self._wire.drain()

    async def _carry_output(self, output: Output) -> None:
        while data := await self._process.receive(output):
            rest = memoryview(data)
            while rest:
                async with self._has_room:
                    await self._has_room.wait_for(lambda: self._room[output] > 0)
                    size = min(len(rest), self._room[output])
                    self._room[output] -= size
                self._send(self._socket.send_binary, bytes([output]) + rest[:size])
                await self._wire.drain()
                rest = rest[size:]
        self._say(FromServer(end=output))

    async def _tell_exit(self) -> None:
        ended = await self._process.wait()
        self._say(FromServer(exit=Ended(ended.code, ended.signal)))

    def _say(self, message: FromServer) -> None:
        self._send(self._socket.send_text, encode(message))

    def _send(self, send: Any, data: bytes) -> None:
        with contextlib.suppress(InvalidState):  # it is being closed
            send(data)
        self._flush()

    def _flush(self) -> None:
        if data := b"".join(self._socket.data_to_send()):
            self._wire.write(data)

    # From the client

    async def _listen(self) -> None:
        """Until the client closes it, or says what it may not."""
        while True:
            self._socket.receive_data(await self._wire.read())
            for event in self._socket.events_received():
                if isinstance(event, Frame):
                    if event.opcode is Opcode.CLOSE:
                        self._flush()
                        return
                    try:
                        await self._take_frame(event)
                    except (msgspec.DecodeError, ValueError, ProtocolError) as error:
                        self._socket.fail(WRONG_MESSAGE, str(error)[:100])
                        self._flush()
                        return
            self._flush()
            # What is said to a client that reads nothing waits for it, and it is heard no more meanwhile.
            await self._wire.drain()
            if self._socket.close_expected():
                return

    async def _take_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.PING, Opcode.PONG):
            return
        if frame.opcode is not Opcode.CONT:
            self._opcode = frame.opcode
        self._message += frame.data
        if len(self._message) > LARGEST:
            raise ValueError(f"a message of over {LARGEST} bytes")
        if not frame.fin:
            return
        message, self._message = bytes(self._message), bytearray()
        if self._opcode is Opcode.TEXT:
            await self._obey(msgspec.json.decode(message, type=ToServer))
            return
        if not message or message[0] != STDIN:
            raise ValueError("a binary message begins with 0")
        if len(message) == 1:
            return
        self._input.append(message[1:])
        self._input_size += len(message) - 1
        if self._input_size > WINDOW:
            raise ValueError("more input than there is room for")
        self._input_changed.set()

    async def _obey(self, order: ToServer) -> None:
        if order.room:
            async with self._has_room:
                for output in (STDOUT, STDERR):
                    more = order.room.get(str(output), 0)
                    self._room[output] = min(self._room[output] + max(more, 0), WINDOW)
                self._has_room.notify_all()
        if order.eof:
            self._input_ended = True
            self._input_changed.set()
        with contextlib.suppress(GuestwireError):  # the outputs say it
            if order.leave:
                await self._process.leave()
            if order.resize:
                rows, columns = order.resize
                if not (0 < rows <= MOST_CHARACTERS and 0 < columns <= MOST_CHARACTERS):
                    raise ValueError("no size of a window")
                await self._process.resize(WindowSize(rows, columns))
            if order.signal is not None:
                await self._process.kill(signal.Signals(order.signal))

    async def _feed(self) -> None:
        """Hands on the input, as the program reads it."""
        room = Room()
        with contextlib.suppress(GuestwireError):  # the outputs say it
            while True:
                await self._input_changed.wait()
                self._input_changed.clear()
                while self._input:
                    data = self._input.popleft()
                    try:
                        await self._process.send(data)
                    except BrokenPipeError:
                        self._say(FromServer(stdin=False))
                        return
                    self._input_size -= len(data)
                    if more := room.take(len(data)):
                        self._say(FromServer(room={str(STDIN): more}))
                if self._input_ended:
                    await self._process.send_eof()
                    return
