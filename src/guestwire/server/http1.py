"""Requests and responses of HTTP/1.1, and the strict reading of what a request begins with. Pure: no I/O here.

What could mean one thing here and another to a proxy is refused: any line end but CR LF, folded lines, control characters, white
space before a colon, two lengths or one that is no plain number. Any Transfer-Encoding ends its connection, and the gateway refuses it.
"""

import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import msgspec

from guestwire.errors import RequestError

MAX_HEADERS: Final = 64
MAX_LINE: Final = 8190
MAX_HEAD: Final = 64 * 1024
"""Bytes of request line and headers together."""

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # the token of RFC 9110, section 5.6.2
_request_line: Final = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/1\.([01])")
# Possessive: without going back, work is linear.
_header: Final = re.compile(rf"({_TOKEN}):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)")
_beginning: Final = re.compile(rb"[^\x00-\x1f\x7f]*\r?")
_length: Final = re.compile(r"[0-9]{1,18}")


class Refusal(RequestError):
    """What is refused as plain HTTP, outside of the API's formats: status, reason phrase, and the same as text unless `body` is given."""

    def __init__(self, status: int, reason: str, body: str | None = None) -> None:
        self.code = status
        self.body = reason if body is None else body
        super().__init__(reason)


@dataclass(slots=True)
class Response:
    """An answer: `body` in one piece or in several, which have `length` bytes in all; `closes`: it is the last on its connection."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes | Iterable[bytes] = field(default=b"", repr=False)
    length: int = -1
    closes: bool = False

    def head(self, connection: str) -> bytes:
        """All before the body; `connection` is the header of that name, "" for none."""
        length = len(self.body) if isinstance(self.body, bytes) else self.length
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        ending = f"Connection: {connection}\r\n" if connection else ""
        return (
            f"HTTP/1.1 {self.status} {self.reason}\r\n{lines}Content-Length: {length}\r\n"
            f"Date: {_date(int(time.time()))}\r\n{ending}\r\n"
        ).encode("ascii")


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
        Refusal: 400, 414 or 431.
    """
    if len(head) > MAX_LINE:  # else no line can be that long
        _check_lengths(head)
    line, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    if len(lines) > MAX_HEADERS:
        raise Refusal(431, f"more than {MAX_HEADERS} headers")
    found = _request_line.fullmatch(line)
    if not found:
        raise Refusal(400, "bad request line")
    headers = _headers(lines)
    is_old = found[3] == "0"
    length = headers.get("content-length", "0")
    if not _length.fullmatch(length):
        raise Refusal(400, "bad Content-Length")
    options = [option.strip(" \t") for option in headers.get("connection", "").lower().split(",")]
    keeps = "close" not in options and (not is_old or "keep-alive" in options) and "transfer-encoding" not in headers
    return Head(found[1], found[2], headers, int(length), keeps, is_old)


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
