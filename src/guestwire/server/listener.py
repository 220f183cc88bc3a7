"""Listens, and ends in order: no new connections, calls in flight come to their end, then the rest is closed."""

import ssl
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from guestwire.server import answers
from guestwire.server.gateway import Gateway
from guestwire.server.refusals import Refusal
from guestwire.server.requests import MAX_BODY

MAX_HEADERS: Final = 64
MAX_LINE: Final = 8190

LINGER: Final = 0.5
"""Seconds that the rest of a refused body is read for, so that the client sees the answer and not a broken connection."""

BACKLOG: Final = 512


class _Connection(RequestHandler):
    """aiohttp's connection, with our words for what is not HTTP."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answers what could not be parsed."""
        if isinstance(exc, LineTooLong):
            refused = (
                Refusal(431, "Request header too large")
                if request.method != "UNKNOWN"
                else Refusal(414, "URI too long")
            )
        else:
            refused = Refusal(status, (message or "bad request").strip().partition("\n")[0])
        return answers.refusal(refused)


class _Server(Server):
    """aiohttp's low-level server, with our connections."""

    def __call__(self) -> RequestHandler:
        """One connection."""
        return _Connection(self, loop=self._loop, **self._kwargs)


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
