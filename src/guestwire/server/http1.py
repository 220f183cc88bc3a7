"""Requests and responses of HTTP/1.1, and the strict reading of a request: its head, then what Proxmox VE's server makes of it.

Pure but for `parameters`, which waits for a body. What could mean one thing here and another to a proxy is refused: any line end but CR LF, folded lines, control characters, white
space before a colon, two lengths or one that is no plain number. Any Transfer-Encoding ends its connection, and `check_http` refuses it.

Source of path, format and parameters: the recorded cases `http/`, `path/`, `base`, `dup/`, `file-read/semicolon-sep`
and their like.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Protocol
from urllib.parse import unquote, unquote_plus

import msgspec

from guestwire.errors import InvalidParameters, RequestError

MAX_HEADERS: Final = 64
MAX_LINE: Final = 8190
MAX_HEAD: Final = 64 * 1024
"""Bytes of request line and headers together."""

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # the token of RFC 9110, section 5.6.2
_request_line: Final = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/([0-9])\.([0-9])")
# Possessive: without going back, work is linear.
_header: Final = re.compile(rf"({_TOKEN}):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)")
_beginning: Final = re.compile(rb"[^\x00-\x1f\x7f]*\r?")
_length: Final = re.compile(r"[0-9]{1,18}")


class Refusal(RequestError):
    """What is refused as plain HTTP, outside of the API's formats.

    Args:
        status: of the answer.
        reason: its phrase.
        body: text; the phrase unless it is given.
        location: where to go instead.
    """

    def __init__(self, status: int, reason: str, body: str | None = None, *, location: str = "") -> None:
        self.code = status
        self.location = location
        self.body = reason if body is None else body
        super().__init__(reason)


@dataclass(slots=True)
class Response:
    """An answer: `body` in one piece or in several, which have `length` bytes in all; `closes`: it is the last on its connection.

    A body that is made while it is sent has no length: it ends with the connection. `upgraded` takes the connection
    over, behind the answer's head.
    """

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes | Iterable[bytes] | AsyncGenerator[bytes, None] = field(default=b"", repr=False)
    length: int = -1
    closes: bool = False
    upgraded: "Callable[[Wire], Awaitable[None]] | None" = field(default=None, repr=False)

    def head(self, connection: str) -> bytes:
        """All before the body; `connection` is the header of that name, "" for none."""
        length = len(self.body) if isinstance(self.body, bytes) else self.length
        measure = "" if self.upgraded or isinstance(self.body, AsyncGenerator) else f"Content-Length: {length}\r\n"
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        ending = f"Connection: {connection}\r\n" if connection else ""
        return (
            f"HTTP/1.1 {self.status} {self.reason}\r\n{lines}{measure}Date: {_date(int(time.time()))}\r\n{ending}\r\n"
        ).encode("latin-1")


class Wire(Protocol):
    """A connection that speaks HTTP no more.

    Attributes:
        ending: set when the server stops.
    """

    ending: asyncio.Event

    async def read(self) -> bytes:
        """What comes next; waits for it."""
        ...

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        ...

    async def drain(self) -> None:
        """Waits until most of what was sent is taken."""
        ...


async def no_body() -> bytes:
    """The body of a request that has none."""
    return b""


@dataclass(slots=True)
class Request:
    """One request, as its connection hands it to the gateway.

    Attributes:
        method: as it was sent.
        target: as it was sent.
        headers: names in small letters; values of a name that comes twice are one list; bytes that are not UTF-8 are surrogates.
        send: sends the answer, once; it returns when the client has taken most of it.
        length: bytes of the body.
        read: gives the body; a client that waits for it is told to send it.
        address: the client's.
        keeps: the connection stays open after the answer.
        is_old: it is HTTP/1.0.
        is_known: its caller has shown a login; the gateway says so.
        hold: keeps the connection open for as long as the client wants, and gives what is done when it has ended.
    """

    method: str
    target: str
    headers: dict[str, str] = field(repr=False)
    send: Callable[[Response], Awaitable[None]]
    length: int = 0
    read: Callable[[], Awaitable[bytes]] = no_body
    address: str = ""
    keeps: bool = True
    is_old: bool = False
    is_known: bool = False
    hold: Callable[[], asyncio.Future[None]] | None = field(default=None, repr=False)


class Head(msgspec.Struct, frozen=True):
    """What a request begins with."""

    method: str
    target: str
    headers: dict[str, str]
    length: int
    keeps: bool
    is_old: bool


def check_beginning(data: bytearray) -> None:
    """Checks what has come of a head that is not complete.

    Raises:
        Refusal: nothing that may follow makes it a request.
    """
    if data.find(b"\r\n", 0, MAX_LINE + 2) < 0:
        if len(data) > MAX_LINE:
            raise Refusal(414, f"the URL is longer than {MAX_LINE} bytes")
        if not _beginning.fullmatch(data):
            raise Refusal(400, "bad request line")
    elif len(data) > MAX_HEAD:
        raise Refusal(431, f"the headers are longer than {MAX_HEAD} bytes")


def parse_head(head: bytes) -> Head:
    """Reads a head, without the empty line at its end.

    Raises:
        Refusal: 400, 414, 431 or 506.
    """
    if len(head) > MAX_LINE:  # else no line can be that long
        _check_lengths(head)
    line, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    if len(lines) > MAX_HEADERS:
        raise Refusal(431, f"more than {MAX_HEADERS} headers")
    found = _request_line.fullmatch(line)
    if not found:
        raise Refusal(400, "bad request line")
    method, target, major, minor = found.groups()
    if major != "1":
        raise Refusal(506, f"http protocol version {major}.{minor} not supported")
    headers = _headers(lines)
    is_old = minor == "0"
    length = headers.get("content-length", "0")
    if not _length.fullmatch(length):
        raise Refusal(400, "bad Content-Length")
    options = [option.strip(" \t") for option in headers.get("connection", "").lower().split(",")]
    keeps = "close" not in options and (not is_old or "keep-alive" in options) and "transfer-encoding" not in headers
    return Head(method, target, headers, int(length), keeps, is_old)


def _check_lengths(head: bytes) -> None:
    first, *others = map(len, head.split(b"\r\n"))
    if first > MAX_LINE:
        raise Refusal(414, f"the URL is longer than {MAX_LINE} bytes")
    if max(others, default=0) > MAX_LINE:
        raise Refusal(431, f"a header is longer than {MAX_LINE} bytes")


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        found = _header.fullmatch(line)
        if not found:
            raise Refusal(400, "bad header")
        name, value = found[1].lower(), found[2]
        bare = value.rstrip(" \t")
        if bare != value and name == "authorization":
            bare += "%20"  # Proxmox VE refuses credentials with white space at their end, and so this must not be lost
        headers[name] = f"{headers[name]}, {bare}" if name in headers else bare
    return headers


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))


# As Proxmox VE reads it

METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE"})
WITH_BODY: Final = frozenset({"POST", "PUT"})
MAX_BODY: Final = 512 * 1024

MAX_PARAMETERS: Final = 1000
"""Of a query or a form; they are counted before any is decoded."""

LOGIN_MAX_BODY: Final = 16 * 1024
LOGIN_MAX_PARAMETERS: Final = 64
"""The same for endpoints that need no login: their callers may be anyone."""

LONGEST_REMEMBERED: Final = 256
REMEMBERED: Final = 1024
"""Targets that need not be taken apart again, and their length."""

BODY_WITHIN: Final = 30.0
"""Seconds for a body to arrive."""

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"

CACHE_BUSTER: Final = "_dc"
"""A parameter that browsers add to get a fresh answer; it means nothing."""

KEEP_BYTES: Final = "surrogateescape"
"""Bytes that are not UTF-8 are kept so that the parameter's check can refuse them: nothing is changed in silence."""

_absolute = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_api = re.compile(r"/api2/([a-z]+)(/.*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for: `path` is decoded and stands below `/api2/{format}`; `query` is as sent."""

    format: str
    path: str
    query: str


def target(raw: str) -> Target:
    """Takes a request target apart.

    Raises:
        Refusal: 501 for a path that can't be one of the API, 404 for one elsewhere.
    """
    if len(raw) > LONGEST_REMEMBERED or "?" in raw:  # a query may hold a secret
        return _target(raw)
    return _remembered(raw)


@lru_cache(maxsize=REMEMBERED)
def _remembered(raw: str) -> Target:
    return _target(raw)


def _target(raw: str) -> Target:
    path, _, query = (raw if raw.startswith("/") else _absolute.sub("", raw, count=1)).partition("?")
    path = unquote(path.partition("#")[0])
    if found := _api.fullmatch(path):
        return Target(found[1], found[2] or "/", query)
    if path.startswith("/api2"):
        raise Refusal(501, "no such uri")
    raise Refusal(404, f"no such file '{path}'")


def check_http(request: Request) -> None:
    """What Proxmox VE refuses before it looks at anything else.

    Raises:
        Refusal: 501 or 506.
    """
    headers = request.headers
    if request.method not in METHODS:
        raise Refusal(501, f"method '{request.method}' not available", body="")
    if (encoding := headers.get("transfer-encoding")) is not None:
        known = encoding.lower() == "chunked"
        raise Refusal(
            501, "chunked transfer encoding not supported" if known else f"Unknown transfer encoding '{encoding}'"
        )
    if not request.length:
        return
    if request.method not in WITH_BODY:
        raise Refusal(501, f"Unexpected content for method '{request.method}'")
    if request.length > MAX_BODY:
        raise Refusal(501, "for data too large")
    if (kind := headers.get("content-type")) and _media_type(kind) not in (FORM, JSON):
        raise Refusal(506, f"upload 'Content-Type '{kind}' not implemented")


def check_login_size(request: Request) -> None:
    """Refuses a long body of a caller that needs no login, before any of it is read.

    Raises:
        Refusal: 501, as for every body that is too long.
    """
    if request.length > LOGIN_MAX_BODY:
        raise Refusal(501, "for data too large")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


async def parameters(request: Request, query: str, most: int = MAX_PARAMETERS) -> dict[str, Any]:
    """All parameters that a client gave, at most `most` in each part; the query wins over the body.

    Raises:
        InvalidParameters: the body is not what it says it is.
    """
    if not (request.length or query or "content-type" in request.headers):
        return {}
    given: dict[str, Any] = {}
    if request.method in WITH_BODY:
        given = await _parameters_in_body(request, most)
    if query:
        given |= decode_form(query, most)
    given.pop(CACHE_BUSTER, None)
    return given


async def _parameters_in_body(request: Request, most: int) -> dict[str, Any]:
    body = await _read_body(request) if request.length else b""
    if _media_type(request.headers.get("content-type", "")) == JSON:
        return decode_json(body, most)
    return decode_form(body.decode("utf-8", KEEP_BYTES), most)


async def _read_body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_WITHIN):
            return await request.read()
    except TimeoutError:
        raise InvalidParameters({"body": f"it did not arrive within {BODY_WITHIN:g} seconds"}) from None


_json = msgspec.json.Decoder()


def decode_json(body: bytes, most: int = MAX_PARAMETERS) -> dict[str, Any]:
    """A JSON object as at most `most` parameters; `null` stands for none.

    Raises:
        InvalidParameters: it is something else.
    """
    try:
        given = _json.decode(body)
    except UnicodeDecodeError as error:
        raise InvalidParameters({"body": "malformed JSON - not UTF-8 text"}) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidParameters({"body": f"malformed JSON - {error}"}) from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidParameters({"body": "a JSON object is needed"})
    if len(given) > most:
        raise too_many(most)
    return given


def too_many(most: int) -> InvalidParameters:
    """The refusal of more than `most` parameters: it names none of them, and so is short."""
    return InvalidParameters({"body": f"more than {most} parameters"})


_separator = re.compile(r"[&;]")


def decode_form(text: str, most: int = MAX_PARAMETERS) -> dict[str, Any]:
    """Parameters of a query or a form: a key that comes twice is a list, one without `=` is absent (None).

    Raises:
        InvalidParameters: they are more than `most`.
    """
    # Counted first, and cheaply: the caller may be anyone, and taking 95,000 of them apart holds everybody up.
    if text.count("&") + text.count(";") >= most:
        raise too_many(most)
    given: dict[str, Any] = {}
    for pair in _separator.split(text):
        key, equals, value = pair.partition("=")
        if not pair:
            continue
        name = unquote_plus(key if key.isascii() else key.encode("utf-8", KEEP_BYTES).decode("utf-8", "replace"))
        value_text = unquote_plus(value, errors=KEEP_BYTES) if equals else None
        before = given.get(name)
        if before is None or value_text is None:
            given[name] = value_text
        elif isinstance(before, list):
            before.append(value_text)
        else:
            given[name] = [before, value_text]
    return given
