"""Listens, and ends in order: no new connections, calls in flight come to their end, then the rest is closed.

A connection answers one request after the other, each in a task of its own, which ends when the client leaves. While it works, what the
client sends ahead is kept as far as a body may be long, and then no more is read; a long answer waits for the client to take it.

Connections are accepted here and not by asyncio, so that they count from their first moment: asyncio and uvloop tell
nobody of one before its TLS handshake has ended, nor of one that found no descriptor.
"""

import asyncio
import errno
import logging
import math
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Final, cast

from guestwire.dispatch import new_id
from guestwire.server import answers
from guestwire.server.answers import reason_phrase
from guestwire.server.connection_limits import ConnectionLimits, Network
from guestwire.server.gateway import Gateway
from guestwire.server.http1 import MAX_BODY, MAX_HEAD, Head, Refusal, Request, Response, check_beginning, parse_head

log = logging.getLogger("guestwire.requests")

LINGER: Final = 0.5
"""Seconds that the rest of a refused body is read for, so that the client sees the answer and not a broken connection."""

FIRST_WITHIN: Final = 15.0
"""Seconds for a connection's TLS handshake and first request."""

KEEP_ALIVE: Final = 120.0
"""Seconds from an answer to the next request."""

STOP_WITHIN: Final = 30.0
"""Seconds for calls in flight, when the server stops."""

CLOSE_WITHIN: Final = 2.0
"""Seconds for a client to agree to the end of its connection."""

HALF_CLOSED_FOR: Final = 2.0
"""Seconds that the calls of a client get which sends no more: it may wait for its answer, or have left."""

TAKEN_WITHIN: Final = 120.0
"""Seconds in which a client must take something of an answer that waits for it."""

GONE_AFTER: Final = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""Seconds, and how often, the kernel asks a client that says nothing: one whose machine died never closes its connection,
and a freeze while it is connected, or a stream of events, would not end.
"""

MAX_CONNECTIONS: Final = 2000
WARN_EVERY: Final = 60.0

BACKLOG: Final = 512

ACCEPTED_AT_ONCE: Final = 64
"""Connections that are accepted in one turn of the loop."""

NO_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ACCEPT_AGAIN: Final = 0.2
"""Seconds until connections are accepted again, when there was no descriptor or memory for one."""

END: Final = b"\r\n\r\n"

HANDSHAKE: Final = b"\x16"
"""The first byte of TLS. No request of HTTP begins with it."""

_host: Final = re.compile(r"[A-Za-z0-9.\-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")


class _Connection(asyncio.Protocol):
    """One connection.

    Args:
        gateway: answers requests.
        limits: all that are open; it adds itself.
        address: the other side's.
    """

    _transport: asyncio.Transport

    def __init__(self, gateway: Gateway, limits: ConnectionLimits, address: str) -> None:
        self._gateway = gateway
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.address = address
        self._connecting: asyncio.Task[None] | None = None
        self._has_begun = False
        self._received = bytearray()
        self._unread: float = 0
        """Bytes of the current request's body that are still to be taken from what is received."""
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._more: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_held = False
        self._has_all = False
        """The client has closed its side: nothing more comes."""
        self._is_ending = False
        self._is_answered = False
        self._is_on_wrong_port = False
        """It speaks plain HTTP where TLS is expected: it is told where to go, and nothing else."""
        self._deadline = self._loop.time() + FIRST_WITHIN
        self._timer = self._loop.call_at(self._deadline, self._end_if_idle)
        self.closed = self._loop.create_future()
        self.ending = asyncio.Event()
        limits.add(self)

    # What happens to it

    @property
    def is_idle(self) -> bool:
        """See `Place.is_idle`."""
        return self._task is None and not self._is_held

    def hold(self) -> asyncio.Future[None]:
        """Keeps it open without requests; returns what is done when it has ended."""
        self._is_held = True
        return self.closed

    def connect(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Takes over a socket that was accepted."""
        self._connecting = self._loop.create_task(self._connect(sock, tls))
        self._connecting.add_done_callback(lambda task: self._on_connected(task, sock))

    async def _connect(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._has_begun = True
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in GONE_AFTER.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        if tls and await self._first_byte(sock) not in (HANDSHAKE, b""):
            self._is_on_wrong_port, tls = True, None
        await self._loop.connect_accepted_socket(
            lambda: self, sock, ssl=tls,
            ssl_handshake_timeout=FIRST_WITHIN if tls else None,
            ssl_shutdown_timeout=CLOSE_WITHIN if tls else None,
        )  # fmt: skip

    def _on_connected(self, task: asyncio.Task[None], sock: socket.socket) -> None:
        """It is connected, or has ended: what was sent is no TLS, the client left, or it had to make room."""
        self._connecting = None
        error = None if task.cancelled() else task.exception()
        if not task.cancelled() and not error:
            return
        if error and not isinstance(error, OSError):
            log.error("unexpected error", exc_info=error)
        if not self._has_begun:  # a task that is cancelled before its first step runs nothing: the socket is still ours
            sock.close()
        self.connection_lost(None)

    async def _first_byte(self, sock: socket.socket) -> bytes:
        """What the client begins with, left in the socket; empty when it has left. Closes the socket when that fails."""
        readable = self._loop.create_future()
        self._loop.add_reader(sock, _wake, readable)
        try:
            await readable
            self._loop.remove_reader(sock)
            return sock.recv(1, socket.MSG_PEEK)
        except BaseException:
            self._loop.remove_reader(sock)  # before it is closed: the loop knows it by its number
            sock.close()
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TLS handshake is behind it."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not of asyncio's class

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why, is all the same
        """Ends the call: there is nobody left to answer."""
        self._is_ending = True
        self._limits.remove(self)
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

    def eof_received(self) -> bool:
        """True keeps it open for a while: a client without TLS that sends no more may still wait for its answer.

        One that has left looks the same, until something is written; with TLS, a client that ends leaves.
        """
        is_complete = self._task is not None and self._unread <= len(self._received)
        if not is_complete or self._transport.get_extra_info("sslcontext"):
            return False
        self._has_all = True
        self._timer.cancel()
        self._timer = self._loop.call_later(HALF_CLOSED_FOR, self.abort)
        return True

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
        if self.is_idle and now >= self._deadline:
            self.abort()
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
            if self._is_on_wrong_port:
                raise _elsewhere(head)
        except Refusal as refused:
            if self._gateway.refusals.allow(self.address):
                reason = reason_phrase(str(refused))
                log.info(
                    "id=%s from=%s subject=- unparsable request: %d %s", new_id(), self.address, refused.code, reason
                )
            response = answers.refusal(refused)
            assert isinstance(response.body, bytes)  # noqa: S101  # a short text
            self._transport.write(response.head("close") + response.body)
            self._end()
            return
        self._drop(end + len(END))
        # Where a transfer encoding is, the body's end is not known: it is no request's beginning in any case.
        self._unread = math.inf if "transfer-encoding" in head.headers else head.length
        address = self._limits.client(self.address, head.headers.get("x-forwarded-for", ""))
        request = Request(
            head.method, head.target, head.headers, self._send, head.length, self._read, address, head.keeps, head.is_old,
            hold=self.hold,
        )  # fmt: skip
        self._request = request
        self._is_answered = False
        self._task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        """Answers one request, and begins with the next one."""
        try:
            await self._gateway(request)
            if self._unread:
                await self._discard()
        except ConnectionError:  # the client left in mid-answer: the gateway has logged that
            self._is_ending = True
        except Exception:
            log.exception("unexpected error")
            self.abort()
        if request.is_known:
            self._limits.acknowledge(self)
        self._task = self._request = None  # they know the connection, too: the garbage collector finds no circle
        if self._is_ending or not request.keeps or not self._is_answered:
            self._end()
            return
        self._deadline = self._loop.time() + KEEP_ALIVE
        if self._received:
            self._take_request()
        if self._has_all and self._task is None:
            self._end()

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
        head = response.head("" if response.upgraded else connection)
        if response.upgraded:
            request.keeps = False
            self._transport.write(head)
            await response.upgraded(self)
        elif isinstance(response.body, bytes):
            self._transport.write(head + response.body)
        elif isinstance(response.body, AsyncGenerator):
            self._transport.write(head)
            await self._stream(response.body)
        else:
            self._transport.write(head)
            for piece in response.body:
                await self._drain()
                self._transport.write(piece)
                await asyncio.sleep(0)
        if self._drained:
            await self._drain()

    # What an upgraded connection is: see `http1.Wire`

    async def read(self) -> bytes:
        """See `Wire.read`."""
        while not self._received:
            await self._wait_for_more()
        data = bytes(self._received)
        self._drop(len(data))
        return data

    def write(self, data: bytes) -> None:
        """See `Wire.write`."""
        self._transport.write(data)

    async def drain(self) -> None:
        """See `Wire.drain`."""
        await self._drain()

    async def _stream(self, pieces: AsyncGenerator[bytes, None]) -> None:
        """Sends what comes, until the client leaves, or the server ends: then the next piece is the last one."""
        async with aclosing(pieces):
            async for piece in pieces:
                await self._drain()
                if piece:
                    self._transport.write(piece)
                if self._is_ending:
                    break

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
        self.ending.set()
        if self._connecting:
            self.abort()
        elif self._task is None:
            self._transport.close()
        return self._task is None

    def abort(self) -> None:
        """Ends at once."""
        self._is_ending = True
        if self._connecting:
            self._connecting.cancel()
        else:
            self._transport.abort()


def _elsewhere(head: Head) -> Refusal:
    """The refusal of a request in the clear: the same place behind TLS, as far as the request says where it is."""
    host = head.headers.get("host", "")
    if not (_host.fullmatch(host) and head.target.startswith("/")):
        return Refusal(400, "this port speaks HTTPS")
    return Refusal(301, "Moved Permanently", location=f"https://{host}{head.target}")


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter and not waiter.done():
        waiter.set_result(None)


class Listener:
    """Serves a gateway on one address.

    Args:
        gateway: answers requests.
        host: a name or an address.
        port: 0 takes any that is free.
        tls: None: without.
        most: connections at once.
        proxies: networks of proxies whose X-Forwarded-For counts.
    """

    def __init__(
        self, gateway: Gateway, host: str, port: int, tls: ssl.SSLContext | None, *, most: int = MAX_CONNECTIONS,
        proxies: Iterable[Network] = (),
    ) -> None:  # fmt: skip
        self._gateway = gateway
        self._host = host
        self._port = port
        self._tls = tls
        self._limits = ConnectionLimits(most, proxies)
        self._sockets: list[socket.socket] = []
        self._warned_at = -WARN_EVERY

    async def bind(self) -> None:
        """Takes the address; clients wait until `start`.

        Raises:
            OSError: the address is taken, or not ours.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
                self._sockets.append(socket.create_server(address, family=family, backlog=BACKLOG))
        except OSError:
            self._stop_listening()
            raise

    def start(self) -> int:
        """Begins to answer; returns the port."""
        for sock in self._sockets:
            sock.settimeout(0)
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)
        return int(self._sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Lets calls end, 30 seconds at most, and closes."""
        self._stop_listening()
        busy = [one.closed for one in self._connections() if not one.finish()]
        if busy:
            await asyncio.wait(busy, timeout=STOP_WITHIN)
        rest = self._connections()
        for one in rest:
            one.abort()
        if rest:
            await asyncio.wait([one.closed for one in rest], timeout=CLOSE_WITHIN)
        self._gateway.refusals.sum_up()

    def _connections(self) -> list[_Connection]:
        return [one for one in self._limits if isinstance(one, _Connection)]

    def _stop_listening(self) -> None:
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def _accept(self, listening: socket.socket) -> None:
        """Takes the connections that wait; those that find no place end at once, before they cost a TLS handshake."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in NO_RESOURCES:
                    raise
                self._wait_for_resources(listening, error)
                return
            address = str(peer[0])
            if why := self._limits.refusal(address):
                sock.close()
                if self._gateway.refusals.allow(address):
                    log.warning("from=%s connection refused: %s", address, why)
                continue
            sock.settimeout(0)
            _Connection(self._gateway, self._limits, address).connect(sock, self._tls)

    def _wait_for_resources(self, listening: socket.socket, error: OSError) -> None:
        """The socket stays readable, so it is left alone for a moment: what waits in it is not lost."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(ACCEPT_AGAIN, self._accept_again, listening)
        if loop.time() - self._warned_at > WARN_EVERY:
            self._warned_at = loop.time()
            log.error("no connection can be accepted: %s; it is tried again", error.strerror)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)
