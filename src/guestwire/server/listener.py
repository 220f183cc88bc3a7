"""Listens, and ends in order: no new connections, calls in flight come to their end, then the rest is closed."""

import asyncio
import logging
import re
import ssl
import time
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from guestwire.dispatch import new_id
from guestwire.server import answers
from guestwire.server.answers import reason_phrase
from guestwire.server.gateway import Gateway
from guestwire.server.refusals import Refusal
from guestwire.server.requests import MAX_BODY

log = logging.getLogger("guestwire.requests")

MAX_HEADERS: Final = 64
MAX_LINE: Final = 8190

LINGER: Final = 0.5
"""Seconds that the rest of a refused body is read for, so that the client sees the answer and not a broken connection."""

FIRST_WITHIN: Final = 15.0
"""Seconds for a connection's first request."""

MAX_CONNECTIONS: Final = 2000
WARN_EVERY: Final = 60.0

BACKLOG: Final = 512


_CREDENTIALS: Final = b"authorization:"
_host = re.compile(rb"\r\nhost:", re.IGNORECASE)
_request_line = re.compile(rb"[A-Z]+ \S+ HTTP/1\.1\r\n")
_transfer_encoding = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE)


class _Connection(RequestHandler):
    """aiohttp's connection, where Proxmox VE takes more (no Host header) or has its own words for what it refuses."""

    __slots__ = ("_head", "_inside")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head = b""
        self._inside = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Gives the client a while to say what it wants."""
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(FIRST_WITHIN, self._give_up)

    def _give_up(self) -> None:
        if self._request_count == 0 and self.transport:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Sees what a request begins with before it is parsed."""
        waiting = self._waiter is not None
        if waiting and not self._inside:
            data = self._head = _with_host(_with_space(data))
        seen = self._request_count
        super().data_received(data)
        self._inside = waiting and self._request_count == seen

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  # aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what could not be parsed."""
        if isinstance(exc, LineTooLong):
            refused = _too_long(self._head)
        elif self._head.count(b"\r\n") > MAX_HEADERS:
            refused = Refusal(431, f"more than {MAX_HEADERS} headers")
        elif found := _transfer_encoding.search(self._head):
            refused = Refusal(501, f"Unknown transfer encoding '{found[1].decode('latin-1')}'")
        else:
            refused = Refusal(status, (message or "bad request").strip().partition("\n")[0])
        if isinstance(exc, ConnectionError):  # the client left in mid-answer: the gateway has logged that
            return answers.refusal(refused)
        reason = reason_phrase(str(refused))
        log.info("id=%s from=%s subject=- unparsable request: %d %s", new_id(), _peer(self), refused.code, reason)
        return answers.refusal(refused)


def _peer(connection: RequestHandler) -> str:
    address = connection.transport.get_extra_info("peername") if connection.transport else None
    return str(address[0]) if address else "-"


def _with_space(data: bytes) -> bytes:
    """The beginning of a request, with white space at the end of its credentials kept: the parser would drop it, Proxmox VE refuses it."""
    if b" \r\n" not in data and b"\t\r\n" not in data:
        return data
    head, end, body = data.partition(b"\r\n\r\n")
    *lines, last = head.split(b"\r\n")
    return b"\r\n".join((*map(_space_shown, lines), _space_shown(last) if end else last)) + end + body


def _space_shown(line: bytes) -> bytes:
    """No regular expression: in a line of many spaces it would look for their end once for each."""
    bare = line.rstrip(b" \t")
    return bare + b"%20" if bare != line and line[: len(_CREDENTIALS)].lower() == _CREDENTIALS else line


def _with_host(data: bytes) -> bytes:
    """The beginning of a request, with a Host header where HTTP/1.1 wants one and the client sent none."""
    if b"\r\nHost:" in data or _host.search(data):
        return data
    if b"\r\n\r\n" not in data or not (line := _request_line.match(data)):
        return data
    return data[: line.end()] + b"Host: localhost\r\n" + data[line.end() :]


def _too_long(head: bytes) -> Refusal:
    line = head.find(b"\r\n")
    if line < 0 or line > MAX_LINE:
        return Refusal(414, f"the URL is longer than {MAX_LINE} bytes")
    return Refusal(431, f"a header is longer than {MAX_LINE} bytes")


class _Server(Server):
    """aiohttp's low-level server, with our connections."""

    def __call__(self) -> RequestHandler:
        """One connection; over the limit, one that ends at once."""
        if len(self.connections) >= MAX_CONNECTIONS:
            self._say_that_it_is_full()
            return cast("RequestHandler", _NoConnection())  # a protocol as any other
        return _Connection(self, loop=self._loop, **self._kwargs)

    _said_at = 0.0

    def _say_that_it_is_full(self) -> None:
        now = time.monotonic()
        if now - self._said_at > WARN_EVERY:
            self._said_at = now
            log.warning("%d connections are open: no more are taken", MAX_CONNECTIONS)


class _NoConnection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Listener:
    """Serves a gateway on one address."""

    def __init__(self, gateway: Gateway, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._gateway = gateway
        self._host = host
        self._port = port
        self._tls = tls
        self._runner: web.ServerRunner | None = None

    async def start(self) -> int:
        """Begins to listen; returns the port.

        Raises:
            OSError: the address is taken, or not ours.
        """
        options: dict[str, Any] = {
            "handler_cancellation": True,
            "access_log": None,
            "max_line_size": MAX_LINE,
            "max_field_size": MAX_LINE,
            "max_headers": MAX_HEADERS,
            "lingering_time": LINGER,
            "read_bufsize": MAX_BODY,
            "keepalive_timeout": 120.0,
        }
        self._runner = web.ServerRunner(_Server(self._gateway, **options), shutdown_timeout=30.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls, backlog=BACKLOG)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Lets calls end, 30 seconds at most, and closes."""
        if self._runner:
            await self._runner.cleanup()
