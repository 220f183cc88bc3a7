"""Streamable HTTP: one server for many people, each with their own rights.

Every request needs the server's bearer token. A caller may bring an API token of their own (`X-PVE-Token:
USER@REALM!NAME=SECRET`): then everything is done with its rights. Where the server has no credentials itself, they
must.
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.lowlevel import Server
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guestwire.client import CallFailed, Host
from guestwire.client.errors import LoginFailed
from guestwire.errors import ConfigurationError
from guestwire.mcp.bad_messages import AnsweringApp
from guestwire.mcp.caller import Caller

OWN_TOKEN: Final = "X-PVE-Token"  # noqa: S105  # a header's name
MOST_CALLERS: Final = 1000
MOST_SESSIONS: Final = 1000
"""Open at once; each takes about 40 KB."""
SESSIONS_OF_CALLER: Final = 100
IDLE_SESSION: Final = 1800.0
"""Seconds without a request until a session ends."""

ASKED_AT_ONCE: Final = 4
"""Tokens that the target is asked about at once."""

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_token = re.compile(r"[^\s!=]+![^\s!=]+=[\x21-\x7e]+")
CLEANS_UP_WITHIN: Final = 5.0
NOT_FOUND: Final = 404
BAD: Final = 400
SHORTEST: Final = 16
"""Characters of a bearer token."""


class TokenWrong(ConfigurationError):
    """The caller brought no token where one is needed, or one where none is."""


class Callers:
    """Callers by the credentials that they bring.

    Args:
        connect: makes a host for a token; "" stands for the server's own credentials.
        has_own: whether the server has any.
        takes_tokens: whether the target knows any.
    """

    def __init__(self, connect: Callable[[str], Host], *, has_own: bool, takes_tokens: bool) -> None:
        self._connect = connect
        self._has_own = has_own
        self._takes_tokens = takes_tokens
        self._known: OrderedDict[bytes, Caller] = OrderedDict()
        self._left: list[Caller] = []
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)

    async def admit(self, headers: Headers) -> Caller:
        """The caller of a request, whose token the target accepts: it is asked once for each.

        Raises:
            TokenWrong: they must bring a token, or must not, or it is none that the target knows.
            CallFailed: the target can't be asked.
        """
        token = self._token_of(headers)
        key = hashlib.sha256(token.encode()).digest()
        if token and key not in self._known:
            async with self._asking:
                host = self._connect(token)
                try:
                    await host.version()
                except LoginFailed:
                    raise TokenWrong(f"{host.name} does not accept the token in {OWN_TOKEN}") from None
                finally:
                    await host.close()
        return self.of(headers)

    def of(self, headers: Headers) -> Caller:
        """The caller of a request that was admitted.

        Raises:
            TokenWrong: they must bring a token, or must not.
        """
        token = self._token_of(headers)
        key = hashlib.sha256(token.encode()).digest()
        if key not in self._known:
            self._known[key] = Caller(self._connect(token))
            if len(self._known) > MOST_CALLERS:
                self._left.append(self._known.popitem(last=False)[1])
        self._known.move_to_end(key)
        return self._known[key]

    def _token_of(self, headers: Headers) -> str:
        token = headers.get(OWN_TOKEN, "")
        if not token and not self._has_own:
            raise TokenWrong(
                f"this server has no credentials of its own: bring an API token ({OWN_TOKEN}: USER@REALM!NAME=SECRET)"
            )
        if token and not self._takes_tokens:
            raise TokenWrong(f"this server reaches an agent's own socket, which knows no tokens: leave {OWN_TOKEN} out")
        if token and not _token.fullmatch(token):
            raise TokenWrong(f"{OWN_TOKEN} is no API token: USER@REALM!NAME=SECRET")
        return token

    async def tidy(self) -> None:
        """Ends the connections of those who had to make room and have no call under way."""
        idle = [caller for caller in self._left if not caller.running]
        self._left = [caller for caller in self._left if caller.running]
        for caller in idle:
            await caller.close()

    async def close(self) -> None:
        """Ends all connections; calls that were cancelled clean up first."""
        everybody = [*self._left, *self._known.values()]
        if running := [task for caller in everybody for task in caller.running]:
            await asyncio.wait(running, timeout=CLEANS_UP_WITHIN)
        await asyncio.gather(*(caller.close() for caller in everybody))


class BearerNeeded:
    """Lets requests with the bearer token through, and no others; a session belongs to the caller who began it."""

    def __init__(self, app: ASGIApp, bearer: str, callers: Callers) -> None:
        self._app = app
        self._expected = f"Bearer {bearer}".encode()
        self._callers = callers
        self._sessions = _Sessions()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if not hmac.compare_digest(headers.get("Authorization", "").encode(), self._expected):
            await _REFUSED(scope, receive, send)
            return
        try:
            caller = await self._callers.admit(headers)
        except TokenWrong as error:
            await PlainTextResponse(f"{error}\n", 403)(scope, receive, send)
            return
        except CallFailed as error:
            await PlainTextResponse(f"{error}\n", 503)(scope, receive, send)
            return
        await self._callers.tidy()
        session = headers.get(MCP_SESSION_ID_HEADER)
        if session is None and not self._sessions.has_room(caller.id):
            text = f"{SESSIONS_OF_CALLER} sessions of this caller are open: end some (DELETE), or wait until they do"
            await PlainTextResponse(f"{text}\n", 503)(scope, receive, send)
            return
        send = self._sessions.watch(caller.id, session, scope["method"], send)
        # A request is cancelled when the server ends: then its task is over, and uvicorn need not log a trace of it.
        with contextlib.suppress(asyncio.CancelledError):
            await self._app({**scope, "user": _as_user(caller)}, receive, send)


class _Sessions:
    """Which sessions callers have, as their answers tell: the SDK bounds the number of all, but not of one caller's."""

    def __init__(self) -> None:
        self._used: dict[str, dict[str, float]] = {}
        """By caller, when each session was last used."""

    def has_room(self, caller: str) -> bool:
        """True if the caller may open one more."""
        oldest = time.monotonic() - IDLE_SESSION
        used = {session: when for session, when in self._used.pop(caller, {}).items() if when > oldest}
        if used:
            self._used[caller] = used
        return len(used) < SESSIONS_OF_CALLER

    def watch(self, caller: str, session: str | None, method: str, send: Send) -> Send:
        """`send`, which notes what an answer says of a session: that it was opened, is there, or has ended."""

        async def watching(message: Message) -> None:
            if message["type"] == "http.response.start":
                opened = Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER)
                used = self._used.setdefault(caller, {})
                if session and (message["status"] == NOT_FOUND or method == "DELETE"):
                    used.pop(session, None)
                elif (named := session or opened) and message["status"] < BAD:
                    used[named] = time.monotonic()
            await send(message)

        return watching


_REFUSED: Final = PlainTextResponse(
    "the bearer token is missing or wrong\n", 401, {"WWW-Authenticate": "Bearer"}
)  # fmt: skip


def _as_user(caller: Caller) -> AuthenticatedUser:
    """The SDK holds a session to the user who began it."""
    return AuthenticatedUser(AccessToken(token="", client_id=caller.id, scopes=[]))


def make_app(server: Server[Any], callers: Callers, bearer: str, bound: str, hosts: list[str]) -> ASGIApp:
    """The application; it answers at `/mcp`.

    Args:
        server: what answers.
        callers: by their credentials.
        bearer: the token that every request needs.
        bound: name or IP address that it listens on.
        hosts: more names that it is reached by (`Host`, `Origin`).
    """
    names = [in_url(name) for name in (*(LOOPBACK if bound in LOOPBACK else (bound,)), *hosts)]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
        allowed_origins=[
            f"{scheme}://{name}{port}" for name in names for scheme in ("http", "https") for port in ("", ":*")
        ],
    )
    app = server.streamable_http_app(
        transport_security=security,
        host=bound,
        max_sessions=MOST_SESSIONS,
        session_idle_timeout=IDLE_SESSION,
    )
    return BearerNeeded(AnsweringApp(app), bearer, callers)


def in_url(host: str) -> str:
    """A name or IP address as URLs have it; a port may follow a name."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def read_bearer(path: Path) -> str:
    """The bearer token in the file; the first time one is made, for its owner alone.

    Raises:
        ConfigurationError: the file can't be used.
    """
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{path}: others can read the bearer token in it; chmod 600 {path}")
        bearer = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    if len(bearer) < SHORTEST or not bearer.isascii():
        raise ConfigurationError(f"{path}: it should hold a bearer token of {SHORTEST} characters at least")
    return bearer
