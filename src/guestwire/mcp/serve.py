"""Runs the server until its client leaves (stdio), or until it is told to end (HTTP)."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from guestwire.client import Host
from guestwire.client.hosts import open_host
from guestwire.client.settings import Settings
from guestwire.errors import ConfigurationError
from guestwire.mcp.all_tools import TOOLS
from guestwire.mcp.call_log import CallRecords
from guestwire.mcp.caller import Caller
from guestwire.mcp.gate import Gate
from guestwire.mcp.handlers import Context, make_server
from guestwire.mcp.policy import Policy
from guestwire.open_files import raise_limit

if TYPE_CHECKING:
    from starlette.datastructures import Headers


ENDS_WITHIN: Final = 3
"""Seconds that requests under way get when the server is told to end; clients hold some open as long as they can."""


@dataclass(frozen=True)
class Http:
    """A socket that listens, with the host name and the URL that callers use.

    With them come the bearer token, and more names that the server is reached by.
    """

    socket: socket.socket
    name: str
    url: str
    bearer: str
    hosts: list[str]


def listen(address: tuple[str, int], bearer: Path, hosts: list[str]) -> Http:
    """Listens; callers wait until they are served.

    Args:
        address: name or IP address, and port.
        bearer: the file with the token that every request needs; made when it is not there.
        hosts: more names that the server is reached by.

    Raises:
        ConfigurationError: the address or the file can't be used.
    """
    from guestwire.mcp.http import in_url, read_bearer  # noqa: PLC0415  # the other way has no need of it

    token, (name, port) = read_bearer(bearer), address
    try:
        listener = socket.create_server(address, family=socket.AF_INET6 if ":" in name else socket.AF_INET)
    except OSError as error:
        raise ConfigurationError(f"--http {in_url(name)}:{port}: {error.strerror}; name another address") from error
    return Http(listener, name, f"http://{in_url(name)}:{port}/mcp", token, hosts)


async def serve_stdio(settings: Settings, policy: Policy, records: Path) -> None:
    """For one client, on standard input and output.

    Raises:
        ConfigurationError: what is given can't be used.
        OSError: standard output can't be written.
    """
    from mcp.server.stdio import stdio_server  # noqa: PLC0415  # the other way has no need of it

    from guestwire.mcp.bad_messages import AnsweringInput  # noqa: PLC0415  # as above

    gate = Gate(TOOLS, policy, CallRecords(records))
    loop = asyncio.get_running_loop()
    async with connected(settings) as caller:
        # A read of standard input can't be broken off: after cleaning up, the signal does what it does by itself.
        loop.add_signal_handler(signal.SIGTERM, lambda: ending.append(loop.create_task(_end(caller))))
        ending: list[asyncio.Task[None]] = []
        lines = AnsweringInput(0)
        try:
            async with stdio_server(lines) as (reads, lines.answers):
                server = make_server(gate, lambda _: caller)
                await server.run(reads, lines.answers, server.create_initialization_options())
        except ExceptionGroup as group:
            cause: Exception = group
            while isinstance(cause, ExceptionGroup):
                cause = cause.exceptions[0]
            raise cause from group


async def serve_http(settings: Settings, policy: Policy, records: Path, http: Http) -> None:
    """For many clients.

    Raises:
        ConfigurationError: what is given can't be used.
    """
    import uvicorn  # noqa: PLC0415  # the other way has no need of it

    from guestwire.mcp.connections import BACKLOG, BoundedProtocol, most_connections  # noqa: PLC0415  # as above
    from guestwire.mcp.http import Callers, make_app  # noqa: PLC0415

    credentials = settings.credentials()
    is_server = (settings.host or "").startswith("http")
    has_own = bool(credentials.token or credentials.user) or not is_server
    callers = Callers(lambda token: _host_for(settings, token), has_own=has_own, takes_tokens=is_server)
    server = make_server(Gate(TOOLS, policy, CallRecords(records)), lambda context: callers.of(_headers(context)))
    app = make_app(server, callers, http.bearer, http.name, http.hosts)
    BoundedProtocol.most = most_connections(raise_limit())
    config = uvicorn.Config(
        app, http=BoundedProtocol, log_level="warning", server_header=False, timeout_graceful_shutdown=ENDS_WITHIN,
        backlog=BACKLOG,
    )  # fmt: skip
    # When uvicorn has ended, it sends itself the signal again that it was told by: that would end us before we have
    # cleaned up.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: None)
    try:
        await uvicorn.Server(config).serve([http.socket])
    finally:
        await callers.close()


async def _end(caller: Caller) -> None:
    """Cleans up, and ends the process by the signal that it got."""
    try:
        await caller.close()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)


def _headers(context: Context) -> "Headers":
    assert context.request is not None  # noqa: S101  # over HTTP every message comes in a request
    headers: Headers = context.request.headers
    return headers


def _host_for(settings: Settings, token: str) -> Host:
    """With the server's own credentials, or with the caller's token in their place."""
    if not token:
        return open_host(settings)
    return open_host(msgspec.structs.replace(settings, token=token, token_file=None, user=None, password=None))


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Caller]:
    """The caller of a server that has one."""
    caller = Caller(open_host(settings))
    try:
        yield caller
    finally:
        await caller.close()
