"""Listens, and ends in order: no new connections, calls in flight come to their end, then the rest is closed.

A connection answers one request after the other, each in a task of its own, which ends when the client leaves. While it works, what the
client sends ahead is kept as far as a body may be long, and then no more is read; a long answer waits for the client to take it.
"""

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final, cast

from guestwire.dispatch import new_id
from guestwire.server import answers
from guestwire.server.answers import reason_phrase
from guestwire.server.gateway import Gateway
from guestwire.server.http1 import MAX_BODY, MAX_HEAD, Refusal, Request, Response, check_beginning, parse_head

log = logging.getLogger("guestwire.requests")

LINGER: Final = 0.5
"""Seconds that the rest of a refused body is read for, so that the client sees the answer and not a broken connection."""

FIRST_WITHIN: Final = 15.0
"""Seconds for a connection's first request."""

KEEP_ALIVE: Final = 120.0
"""Seconds from an answer to the next request."""

STOP_WITHIN: Final = 30.0
"""Seconds for calls in flight, when the server stops."""

CLOSE_WITHIN: Final = 2.0
"""Seconds for a client to agree to the end of its connection."""

TAKEN_WITHIN: Final = 120.0
"""Seconds in which a client must take something of an answer that waits for it."""

MAX_CONNECTIONS: Final = 2000
WARN_EVERY: Final = 60.0

BACKLOG: Final = 512

END: Final = b"\r\n\r\n"

Handler = Callable[[Request], Awaitable[None]]


class _Connection(asyncio.Protocol):
    """One connection.

    Args:
        handler: answers requests.
        connections: all that are open; it adds itself.
    """

    _transport: asyncio.Transport

    def __init__(self, handler: Handler, connections: "set[_Connection]") -> None:
        self._handler = handler
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._address = "-"
        self._received = bytearray()
        self._unread: float = 0
        """Bytes of the current request's body that are still to be taken from what is received."""
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._more: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_ending = False
        self._is_answered = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.closed = self._loop.create_future()

    # What happens to it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Gives the client a while to say what it wants."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not of asyncio's class
        self._connections.add(self)
        if peer := self._transport.get_extra_info("peername"):
            self._address = str(peer[0])
        self._deadline = self._loop.time() + FIRST_WITHIN
        self._timer = self._loop.call_at(self._deadline, self._end_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why, is all the same
        """Ends the call: there is nobody left to answer."""
        self._is_ending = True
        self._connections.discard(self)
        if self._timer:
            self._timer.cancel()
        if self._task:
            self._task.cancel()
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Takes what a client sends: the next request, or more of the current one's body."""
        if self._is_ending and not self._unread:
            return
        self._received += data
        if self._task is None:
            self._take_request()
            return
        _wake(self._more)
        if len(self._received) > MAX_BODY and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The client takes less than it is sent."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has taken it."""
        _wake(self._drained)
        self._drained = None

    def _end_if_idle(self) -> None:
        """Called now and then, and not anew for each request: that costs less."""
        now = self._loop.time()
        if self._task is None and now >= self._deadline:
            self._transport.abort()
            return
        self._timer = self._loop.call_at(max(self._deadline, now + 1), self._end_if_idle)

    # Requests

    def _take_request(self) -> None:
        """Begins with the next request, if its head is there."""
        while self._received.startswith(b"\r\n"):
            self._drop(2)
        end = self._received.find(END, 0, MAX_HEAD + len(END))
        try:
            if end < 0:
                check_beginning(self._received)
                return
            head = parse_head(bytes(self._received[:end]))
        except Refusal as refused:
            reason = reason_phrase(str(refused))
            log.info("id=%s from=%s subject=- unparsable request: %d %s", new_id(), self._address, refused.code, reason)
            response = answers.refusal(refused)
            assert isinstance(response.body, bytes)  # noqa: S101  # a short text
            self._transport.write(response.head("close") + response.body)
            self._end()
            return
        self._drop(end + len(END))
        # Where a transfer encoding is, the body's end is not known: it is no request's beginning in any case.
        self._unread = math.inf if "transfer-encoding" in head.headers else head.length
        request = Request(
            head.method, head.target, head.headers, self._send, head.length, self._read, self._address, head.keeps, head.is_old,
        )  # fmt: skip
        self._request = request
        self._is_answered = False
        self._task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        """Answers one request, and begins with the next one."""
        try:
            await self._handler(request)
            if self._unread:
                await self._discard()
        except ConnectionError:  # the client left in mid-answer: the gateway has logged that
            self._is_ending = True
        except Exception:
            log.exception("unexpected error")
            self._is_ending = True
            self._transport.abort()
        self._task = self._request = None  # they know the connection, too: the garbage collector finds no circle
        if self._is_ending or not request.keeps or not self._is_answered:
            self._end()
            return
        self._deadline = self._loop.time() + KEEP_ALIVE
        if self._received:
            self._take_request()

    async def _read(self) -> bytes:
        request, size = self._request, int(self._unread)
        waits = request and not request.is_old and request.headers.get("expect", "").lower() == "100-continue"
        if waits and len(self._received) < size:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(self._received) < size:
            await self._wait_for_more()
        body = bytes(self._received[:size])
        self._drop(size)
        self._unread = 0
        return body

    async def _discard(self) -> None:
        """Reads the rest of a body that nobody wanted, for a short time; without its end, there is no next request."""
        try:
            async with asyncio.timeout(LINGER):
                while self._unread:
                    size = int(min(self._unread, len(self._received)))
                    self._drop(size)
                    self._unread -= size
                    if self._unread:
                        await self._wait_for_more()
        except TimeoutError:
            self._is_ending = True
            self._unread = 0

    async def _wait_for_more(self) -> None:
        self._more = self._loop.create_future()
        await self._more

    def _drop(self, size: int) -> None:
        del self._received[:size]
        if self._is_paused and len(self._received) <= MAX_BODY:
            self._is_paused = False
            self._transport.resume_reading()

    # Answers

    async def _send(self, response: Response) -> None:
        """Sends an answer: a short one with one write, a long one as fast as the client takes it.

        Raises:
            ConnectionError: the client has left.
        """
        request = self._request
        if self._is_answered or not request:
            raise RuntimeError("a request has one answer")
        self._is_answered = True
        request.keeps = request.keeps and not response.closes and not self._is_ending
        connection = "close" if not request.keeps else "keep-alive" if request.is_old else ""
        head = response.head(connection)
        if isinstance(response.body, bytes):
            self._transport.write(head + response.body)
        else:
            self._transport.write(head)
            for piece in response.body:
                await self._drain()
                self._transport.write(piece)
                await asyncio.sleep(0)
        if self._drained:
            await self._drain()

    async def _drain(self) -> None:
        while waiter := self._drained:
            waiting = self._transport.get_write_buffer_size()
            done, _ = await asyncio.wait([waiter], timeout=TAKEN_WITHIN)
            if not done and self._transport.get_write_buffer_size() >= waiting:
                self._transport.abort()
                raise ConnectionResetError("the client takes nothing of its answer")
        if self._transport.is_closing():
            raise ConnectionResetError("the client has left")

    # The end

    def _end(self) -> None:
        self._is_ending = True
        self._unread = 0
        self._transport.close()

    def finish(self) -> bool:
        """Takes no more requests; False when there is a call in flight, after which it ends."""
        self._is_ending = True
        if self._task is None:
            self._transport.close()
        return self._task is None

    def abort(self) -> None:
        """Ends at once."""
        self._transport.abort()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter and not waiter.done():
        waiter.set_result(None)


class _NoConnection(asyncio.Protocol):
    """A connection over the limit: it ends at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Listener:
    """Serves a gateway on one address."""

    def __init__(self, gateway: Gateway, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._gateway = gateway
        self._host = host
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._warned_at = -WARN_EVERY

    async def start(self) -> int:
        """Begins to listen; returns the port.

        Raises:
            OSError: the address is taken, or not ours.
        """
        self._server = await asyncio.get_running_loop().create_server(
            self._new_connection, self._host, self._port, ssl=self._tls, backlog=BACKLOG,
            ssl_handshake_timeout=FIRST_WITHIN if self._tls else None,
            ssl_shutdown_timeout=CLOSE_WITHIN if self._tls else None,
        )  # fmt: skip
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Lets calls end, 30 seconds at most, and closes."""
        if not self._server:
            return
        self._server.close()
        busy = [one.closed for one in list(self._connections) if not one.finish()]
        if busy:
            await asyncio.wait(busy, timeout=STOP_WITHIN)
        rest = [one.closed for one in self._connections]
        for one in list(self._connections):
            one.abort()
        if rest:
            await asyncio.wait(rest, timeout=CLOSE_WITHIN)

    def _new_connection(self) -> asyncio.Protocol:
        if len(self._connections) < MAX_CONNECTIONS:
            return _Connection(self._gateway, self._connections)
        now = time.monotonic()
        if now - self._warned_at > WARN_EVERY:
            self._warned_at = now
            log.warning("%d connections are open: no more are taken", MAX_CONNECTIONS)
        return _NoConnection()
