"""A server over HTTPS: Proxmox VE or guestwire."""

import asyncio
import hashlib
import os
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
import msgspec
from yarl import URL

from guestwire.client.carriers.base import plain
from guestwire.client.errors import (
    CallFailed,
    CertificateNotTrusted,
    ErrorContext,
    LoginFailed,
    NoSuchEndpoint,
    Unreachable,
    WrongParameters,
    failure,
)
from guestwire.client.settings import Credentials, Https, Trust
from guestwire.errors import ConfigurationError

if TYPE_CHECKING:
    from guestwire.contract.guest_events import Event
    from guestwire.streams.remote_process import RemoteProcess

API: Final = "/api2/json"
RENEW_AFTER: Final = 90 * 60.0
"""Seconds; a ticket lives two hours."""

CONNECT_TIMEOUT: Final = 10.0
CALL_TIMEOUT: Final = 3700.0
"""Seconds: a freeze may take an hour."""

LONGEST_HELD: Final = 25 * 3600.0
"""Seconds; longer than any lease."""

EVENTS_TIMEOUT: Final = 60.0
"""Seconds; a stream of events says at least every fifteen that it is still there."""

STREAM_STARTS_WITHIN: Final = 190.0

PROXY_HINT: Final = "HTTPS_PROXY and HTTP_PROXY name it; NO_PROXY=HOST goes without it"

LARGEST_ANSWER: Final = 256 * 1024 * 1024

OCTETS: Final = "application/octet-stream"
"""Wanted, guestwire gives a file as it is; Proxmox VE's JSON is all that it has, whatever is wanted."""


@dataclass(slots=True)
class _Ticket:
    """The result of a login; `was_good` as soon as a call with it was answered."""

    cookie: str = field(repr=False)
    csrf: str = field(repr=False)
    made: float = 0.0
    was_good: bool = False


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    parameters: Mapping[str, Any] = field(repr=False)
    context: ErrorContext
    repeatable: bool
    as_bytes: bool = False


class HttpsCarrier:
    """Must be made where an event loop runs, and closed."""

    def __init__(self, target: Https, credentials: Credentials, trust: Trust, *, connections: int = 32) -> None:
        self._target = target
        self._trust = trust
        self._name = str(target)
        self._credentials = credentials
        self._ticket: _Ticket | None = None
        self._login = asyncio.Lock()
        self._proxy = _proxy_for(target)
        self._session = aiohttp.ClientSession(
            # One that is to be held open is not closed for being idle.
            connector=aiohttp.TCPConnector(
                ssl=_trusting(trust), limit=connections, keepalive_timeout=15 if connections > 1 else LONGEST_HELD
            ),
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Accept-Encoding": "identity"
            },  # what is large is mostly base64: packing it costs more than it saves
        )
        # aiohttp would send again by itself what it takes for repeatable: PUT and DELETE too.
        self._session._retry_connection = False  # noqa: SLF001

    @property
    def name(self) -> str:
        """See `Carrier.name`."""
        return self._name

    @property
    def may_have_ports(self) -> bool:
        """See `Carrier.may_have_ports`: only the server knows."""
        return True

    def another(self) -> "HttpsCarrier":
        """See `Carrier.another`."""
        return HttpsCarrier(self._target, self._credentials, self._trust, connections=1)

    async def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        context: ErrorContext,
        *,
        repeatable: bool = False,
        as_bytes: bool = False,
    ) -> Any:
        """See `Carrier.call`."""
        request = _Request(plain(method), plain(path), plain(parameters), context, repeatable, as_bytes)
        ticket = await self._valid_ticket(context) if self._by_ticket(context) else None
        try:
            return await self._answer(request, ticket)
        except LoginFailed:
            # It was refused, and so not executed: a new ticket, once, if this one was good before.
            if ticket is None or not ticket.was_good:
                raise
        return await self._answer(request, await self._ticket_instead_of(ticket, context))

    async def _answer(self, request: "_Request", ticket: "_Ticket | None") -> Any:
        headers = self._authorization(request.method, ticket)
        answer = await self._send_twice_at_most(request, headers)
        if ticket:
            ticket.was_good = True
        return answer

    async def _send_twice_at_most(self, request: "_Request", headers: Mapping[str, str]) -> Any:
        try:
            return await self._send(request, headers)
        except _Lost as lost:
            if not request.repeatable and not lost.before_sending:
                raise Unreachable(
                    request.context, str(lost), hint="the call may have been executed; look before you repeat it"
                ) from lost
        try:
            return await self._send(request, headers)
        except _Lost as lost:
            raise Unreachable(request.context, str(lost)) from lost

    async def events(self, path: str, context: ErrorContext) -> "AsyncGenerator[Event | None, None]":
        """See `Carrier.events`."""
        from guestwire.contract.guest_events import Event  # noqa: PLC0415  # few calls are about it

        ticket = await self._valid_ticket(context) if self._by_ticket(context) else None
        headers = {**self._authorization("GET", ticket), "Accept": "text/event-stream"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=EVENTS_TIMEOUT)
        try:
            async with self._session.get(
                URL(f"{self._name}{API}{path}", encoded=True),
                headers=headers, timeout=timeout, allow_redirects=False, proxy=self._proxy,
            ) as response:  # fmt: skip
                if response.status != HTTPStatus.OK or response.content_type != "text/event-stream":
                    self._result(response, await _body(response, context), context)
                    raise NoSuchEndpoint(context, f"{path} is no stream of events")
                async for line in response.content:
                    if line.startswith(b"data:"):
                        yield msgspec.json.decode(line.removeprefix(b"data:"), type=Event)
                    elif line.startswith(b":"):  # a comment: nothing happened
                        yield None
        except msgspec.MsgspecError as error:
            raise CallFailed(context, f"the answer is none of this API's: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unreachable(context, str(error) or "it says nothing any more") from error
        raise Unreachable(context, "the server has ended the stream of events")

    async def start(
        self, path: str, parameters: Mapping[str, Any], secrets: Mapping[str, Any], context: ErrorContext
    ) -> "RemoteProcess":
        """See `Carrier.start`."""
        # Few calls are about it.
        from guestwire.client.carriers.socket_process import (  # noqa: PLC0415
            SocketProcess,
            first_message,
            secrets_header,
            socket_options,
        )

        ticket = await self._valid_ticket(context) if self._by_ticket(context) else None
        refused: list[aiohttp.ClientResponse] = []

        async def keep(_session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
            refused.append(params.response)

        async def refuse(_session: Any, _context: Any, _params: aiohttp.TraceRequestRedirectParams) -> None:
            # The API never redirects, and the target of a redirection must not get credentials and secrets.
            raise ConnectionError("it redirects to another place")

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(keep)
        trace.on_request_redirect.append(refuse)
        # A connection of its own: it is held for long, and closed with it.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_trusting(self._trust), limit=1),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace],
        )
        try:
            given = {name: _plain(value) for name, value in plain(parameters).items()}
            url = URL(f"{self._name}{API}{_quoted(path)}{_query(given)}", encoded=True)
            async with asyncio.timeout(STREAM_STARTS_WITHIN):
                headers = self._authorization("GET", ticket) | secrets_header(secrets)
                socket = await session.ws_connect(url, headers=headers, proxy=self._proxy, **socket_options())
                said = await first_message(socket)
            return SocketProcess(session, socket, said.pid or 0, str(context))
        except BaseException as error:
            await session.close()
            if isinstance(error, aiohttp.WSServerHandshakeError):
                reason = refused[-1].reason if refused else error.message
                raise failure(context, error.status, str(reason or error.message)) from error
            if isinstance(error, aiohttp.ClientError | TimeoutError | OSError | ValueError | msgspec.MsgspecError):
                raise Unreachable(context, str(error) or "no answer in time") from error
            raise

    async def close(self) -> None:
        """See `Carrier.close`."""
        await self._session.close()

    def _by_ticket(self, context: ErrorContext) -> bool:
        if not self._credentials.token and not self._credentials.user:
            raise LoginFailed(context, "no credentials", hint="give a token (GUESTWIRE_TOKEN), or user and password")
        return not self._credentials.token

    def _authorization(self, method: str, ticket: "_Ticket | None") -> dict[str, str]:
        if ticket is None:
            return {"Authorization": f"PVEAPIToken={self._credentials.token}"}
        csrf = {} if method == "GET" else {"CSRFPreventionToken": ticket.csrf}
        return {"Cookie": f"PVEAuthCookie={quote(ticket.cookie)}", **csrf}

    async def _valid_ticket(self, context: ErrorContext) -> "_Ticket":
        async with self._login:
            if self._ticket is None:
                self._ticket = await self._new_ticket(self._credentials.password, context)
            elif time.monotonic() - self._ticket.made > RENEW_AFTER:
                self._ticket = await self._renewed(self._ticket, context)
            return self._ticket

    async def _renewed(self, ticket: "_Ticket", context: ErrorContext) -> "_Ticket":
        """A ticket stands for the password as long as it lives; it may have ended while this machine slept."""
        try:
            return await self._new_ticket(ticket.cookie, context)
        except LoginFailed:
            return await self._new_ticket(self._credentials.password, context)

    async def _ticket_instead_of(self, refused: "_Ticket", context: ErrorContext) -> "_Ticket":
        async with self._login:
            if self._ticket is refused:
                self._ticket = await self._new_ticket(self._credentials.password, context)
            assert self._ticket  # noqa: S101  # there was one
            return self._ticket

    async def _new_ticket(self, password: str, context: ErrorContext) -> "_Ticket":
        given = {"username": self._credentials.user, "password": password}
        try:
            data = await self._send(_Request("POST", "/access/ticket", given, context, repeatable=False), {})
        except _Lost as lost:
            raise Unreachable(context, str(lost)) from lost
        return _ticket_in(data, context)

    async def _send(self, request: "_Request", headers: Mapping[str, str]) -> Any:
        method, path, context = request.method, request.path, request.context
        given = {name: _plain(value) for name, value in request.parameters.items() if value is not None}
        in_query = method in ("GET", "DELETE")
        try:
            url = URL(f"{self._name}{API}{_quoted(path)}{_query(given) if in_query else ''}", encoded=True)
            body = msgspec.json.encode(given) if given and not in_query else None
        except UnicodeEncodeError as error:
            raise WrongParameters(context, f"a parameter of {path} is not UTF-8 text") from error
        kinds = {"Content-Type": "application/json"} if body else {}
        if request.as_bytes:
            kinds["Accept"] = OCTETS
        try:
            # The API never redirects, and the target of a redirection must not get the credentials.
            async with self._session.request(
                method, url, data=body, headers={**headers, **kinds}, allow_redirects=False, proxy=self._proxy
            ) as response:
                return self._result(response, await _body(response, context), context)
        except aiohttp.ServerFingerprintMismatch as error:
            raise CertificateNotTrusted(
                context,
                "its certificate has another fingerprint than the one that is trusted",
                hint=_fingerprint(error.got),
            ) from error
        except aiohttp.ClientConnectorCertificateError as error:
            reason = _reason(error)
            raise CertificateNotTrusted(
                context, f"its certificate is not trusted: {reason}", hint=_instead(reason, self._trust.ca)
            ) from error
        except (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError) as error:
            raise Unreachable(context, f"the proxy {_describe_proxy(error)}", hint=PROXY_HINT) from error
        except aiohttp.ClientConnectorError as error:
            raise _Lost(_describe_os_error(error.os_error), before_sending=True) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            if self._name.startswith("http:") and isinstance(error, aiohttp.ServerDisconnectedError):
                why = f"{why}: perhaps this port speaks HTTPS alone, and the target is https:"
            raise _Lost(why, before_sending=False) from error

    def _result(self, response: aiohttp.ClientResponse, body: bytes, context: ErrorContext) -> Any:
        if response.status == HTTPStatus.OK and response.headers.get("Content-Type") == OCTETS:
            count, truncated = (response.headers.get(f"Guestwire-{name}") for name in ("Bytes-Read", "Truncated"))
            return {"content": body, "bytes-read": count, "truncated": truncated}
        answer = _decoded(body)
        if response.status == HTTPStatus.OK and isinstance(answer, dict) and "data" in answer:
            return answer["data"]
        message = answer.get("message") if isinstance(answer, dict) else None
        errors = answer.get("errors") if isinstance(answer, dict) else None
        words = str(message or response.reason or f"status {response.status}")
        if response.headers.get("Location", "").startswith("https:") and self._name.startswith("http:"):
            target = f"https{self._name.removeprefix('http')}"
            raise Unreachable(context, "this port speaks HTTPS", response.status, hint=f"name the host as {target}")
        if response.status == HTTPStatus.OK:
            raise CallFailed(
                context, "the answer is none of this API's", response.status, hint="check the address and its port"
            )
        raise failure(context, response.status, words, errors if isinstance(errors, dict) else None)


def _proxy_for(target: Https) -> URL | None:
    """The proxy that the environment names for a server; none for this machine itself.

    Raises:
        ConfigurationError: it is of a kind that can't be used.
    """
    variable = f"{target.scheme.upper()}_PROXY"
    proxy = getproxies_environment().get(target.scheme)
    host = target.host.strip("[]")
    is_here = host == "localhost" or host.startswith("127.") or host == "::1"
    if not proxy or is_here or proxy_bypass(host):
        return None
    try:
        url = URL(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        url = URL()
    if url.scheme != "http" or not url.host:
        raise ConfigurationError(f"{variable}: a proxy is http://HOST:PORT; NO_PROXY={host} goes without one")
    return url


def _describe_proxy(error: aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"refuses: {error.status} {error.message}"
    return f"can't be reached: {_describe_os_error(error.os_error)}"


def _describe_os_error(error: OSError) -> str:
    """The reason in the system's words; asyncio's begin with the name of its own function."""
    if isinstance(error, socket.gaierror):
        is_unknown = error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
        return "unknown host name" if is_unknown else str(error.strerror)
    return os.strerror(error.errno).lower() if error.errno else str(error)


class _Lost(Exception):
    """No answer; `before_sending`: the request was not sent."""

    def __init__(self, why: str, *, before_sending: bool) -> None:
        self.before_sending = before_sending
        super().__init__(why)


def _trusting(trust: Trust) -> ssl.SSLContext | aiohttp.Fingerprint | bool:
    """As aiohttp takes it; never its own context, which the command line leaves empty."""
    if not trust.verify:
        return False
    if trust.fingerprint:
        return aiohttp.Fingerprint(bytes.fromhex(trust.fingerprint.replace(":", "")))
    try:
        return ssl.create_default_context(cafile=trust.ca)
    except OSError as error:  # OpenSSL's errors are such, too
        why = "there is no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigurationError(f"{trust.ca}: {why}; it should hold the CA's certificate, as PEM") from error


def _reason(error: aiohttp.ClientConnectorCertificateError) -> str:
    """OpenSSL's words alone."""
    found = error.certificate_error
    return found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else str(found)


def _instead(reason: str, ca: object) -> str:
    """A hint for where trusting a CA does not help, or was tried; empty where it would."""
    if "expired" in reason:
        return "renew it on the host, or trust this very one by its fingerprint (--fingerprint, GUESTWIRE_FINGERPRINT)"
    if "mismatch" in reason:
        return "name the host as its certificate does, or trust it by its fingerprint (--fingerprint, GUESTWIRE_FINGERPRINT)"
    if ca:
        return f"{ca} is not the certificate of its CA: take it from the host again (--ca, GUESTWIRE_CA)"
    return ""


def _fingerprint(digest: bytes) -> str:
    shown = ":".join(f"{byte:02X}" for byte in digest)
    return f"a man in the middle may show it; if the host has a new certificate, its fingerprint is {shown}"


def _ticket_in(data: Any, context: ErrorContext) -> "_Ticket":
    if not isinstance(data, dict) or not {"ticket", "CSRFPreventionToken"} <= data.keys():
        raise CallFailed(context, "the answer to the login has no ticket")
    if data.get("NeedTFA"):
        raise LoginFailed(context, "this user logs in with a second factor", hint="give an API token instead")
    return _Ticket(str(data["ticket"]), str(data["CSRFPreventionToken"]), time.monotonic())


async def _body(response: aiohttp.ClientResponse, context: ErrorContext) -> bytes:
    blocks, size = [], 0
    while block := await response.content.readany():
        blocks.append(block)
        size += len(block)
        if size > LARGEST_ANSWER:
            raise CallFailed(context, f"the answer is longer than {LARGEST_ANSWER} bytes", response.status)
    return b"".join(blocks)


def _quoted(path: str) -> str:
    """With nothing in it that ends a line or a path; what is quoted already stays so."""
    return quote(path, safe="/%?&=:@!$'()*+,;~", errors="surrogateescape")


def _query(given: Mapping[str, Any]) -> str:
    """Parameters in a URL; one that is a list stands there once for each item."""
    pairs = [(name, item) for name, value in given.items() for item in (value if isinstance(value, list) else [value])]
    words = "&".join(f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in pairs)
    return f"?{words}" if words else ""


def _plain(value: Any) -> Any:
    """Booleans as Proxmox VE has them."""
    return int(value) if isinstance(value, bool) else value


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


async def fingerprint_of(target: Https) -> str:
    """The SHA-256 fingerprint of the certificate that a server shows, `AA:BB:…`; nothing is sent to it.

    Raises:
        OSError: it can't be reached.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(CONNECT_TIMEOUT):
        _, writer = await asyncio.open_connection(target.host.strip("[]"), target.port, ssl=context)
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return ":".join(f"{byte:02X}" for byte in hashlib.sha256(certificate).digest())
