"""Answers in the formats of the API (`json`, `extjs`), with Proxmox VE's reason phrases.

Long texts are turned into JSON a slice at a time, and the loop runs between the slices: a large file delays nobody.
"""

import asyncio
import html
import re
import zlib
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from guestwire.contract import ByteText
from guestwire.contract.results import FileContent, Page
from guestwire.contract.text import SLICE
from guestwire.errors import GuestwireError, InvalidParameters, NotAuthenticated, NotImplementedHere
from guestwire.server.http1 import Refusal, Request, Response

FORMATS: Final = frozenset({"json", "extjs", "htmljs"})
"""`htmljs` is `extjs` for pages that upload files: the same text, in HTML."""

JSON_HEADERS: Final = {
    "Content-Type": "application/json;charset=UTF-8",
    "Cache-Control": "max-age=0",
    "Pragma": "no-cache",
    "Server": "guestwire",
}
PAGE_HEADERS: Final = JSON_HEADERS | {"Content-Type": "text/html;charset=UTF-8"}
TEXT_HEADERS: Final = {"Content-Type": "text/plain;charset=UTF-8", "Server": "guestwire"}
BARE_HEADERS: Final = {"Server": "guestwire"}

EVENT_HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "Server": "guestwire"}

QUIET_FOR: Final = 15
"""Moments without an event until a comment tells the client, and what is between, that it goes on."""

OCTETS: Final = "application/octet-stream"
"""The type of an answer that is a file's bytes as they are, and what a client accepts that wants it so."""

COMPRESS_OVER: Final = 1024
"""Bytes; shorter answers are never compressed."""

COMPRESS_ELSEWHERE_OVER: Final = 64 * 1024
"""Bytes; longer ones are compressed in a thread."""


@dataclass(slots=True)
class Body:
    """What goes out, in `parts`: bytes as they are, and the `ByteText`s that stand between them in JSON."""

    parts: list[bytes | ByteText]
    headers: dict[str, str] = field(default_factory=lambda: JSON_HEADERS)

    @property
    def is_long(self) -> bool:
        """Whether it takes more than one slice of work."""
        if len(self.parts) == 1 and isinstance(self.parts[0], bytes):
            return len(self.parts[0]) > SLICE
        return sum(part.size if isinstance(part, ByteText) else len(part) for part in self.parts) > SLICE

    async def size(self) -> int:
        """Bytes in all; the loop runs while they are counted."""
        size = 0
        for part in self.parts:
            for more in part.json_sizes() if isinstance(part, ByteText) else (len(part),):
                size += more
                await asyncio.sleep(0)
        return size

    def slices(self) -> Iterator[bytes]:
        """All of it, in pieces that take little time each."""
        for part in self.parts:
            if isinstance(part, ByteText):
                yield from part.json_slices()
            else:
                yield part


_PLACE: Final = "\ue000guestwire\ue001"
"""Marks where a long text goes; a result that holds this very text is encoded in one piece instead."""

_PLACE_JSON: Final = msgspec.json.encode(_PLACE)[1:-1]


def encode(answer: dict[str, Any]) -> Body:
    """The answer as JSON."""
    texts: list[ByteText] = []

    def set_aside(value: object) -> str:
        if not isinstance(value, ByteText):
            raise TypeError(f"{type(value)} is no part of an answer")
        texts.append(value)
        return _PLACE

    encoded = msgspec.json.encode(answer, enc_hook=set_aside)
    if not texts:
        return Body([encoded])
    pieces = encoded.split(_PLACE_JSON)
    if len(pieces) != len(texts) + 1:
        return Body([msgspec.json.encode(answer, enc_hook=str)])
    parts: list[bytes | ByteText] = [pieces[0]]
    for text, piece in zip(texts, pieces[1:], strict=True):
        parts += [text, piece]
    return Body(parts)


def success(form: str, result: object) -> Body:
    """A result in the format `form`."""
    answer: dict[str, Any] = {"data": result}
    if isinstance(result, Page):
        answer = {"data": result.data} | ({"total": result.total} if result.total else {})
    if form == "json":
        return encode(answer)
    return _for_pages(form, encode(answer | {"success": 1}))


async def as_events(stream: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
    """Server-sent events: each is named as its kind, and has its JSON; None is a moment in which nothing happened."""
    quiet = -1  # the first moment is when it is known how things are: who reads of it misses nothing from then on
    async with aclosing(stream):
        async for event in stream:
            if event is not None:
                quiet = 0
                yield f"event: {event.kind}\ndata: {msgspec.json.encode(event).decode()}\n\n".encode()
                continue
            quiet += 1
            if quiet == 0:
                yield b": guestwire\n\n"
            else:
                yield b"" if quiet % QUIET_FOR else b":\n\n"


def octets(content: FileContent[ByteText]) -> Body:
    """The content as it is; what JSON says beside it stands in headers."""
    beside = {"Guestwire-Bytes-Read": str(content.bytes_read), "Guestwire-Truncated": str(content.truncated)}
    return Body(list(content.content.pieces), JSON_HEADERS | {"Content-Type": OCTETS} | beside)


def failure(form: str, error: GuestwireError) -> tuple[int, str, Body]:
    """Status, reason phrase and body of an error in the format `form`."""
    message = str(error) if isinstance(error, NotImplementedHere) else f"{error}\n"
    answer: dict[str, Any] = {"data": None, "message": _as_text(message)}
    if isinstance(error, InvalidParameters):
        answer["errors"] = {_as_text(name): _as_text(why) for name, why in error.errors.items()}
    if form == "json":
        return error.status, reason_phrase(str(error)), encode(answer)
    status = error.status if error.status >= 500 else str(error.status)  # noqa: PLR2004  # Perl's number, and its text
    return 200, "OK", _for_pages(form, encode(answer | {"success": 0, "status": status}))


def _as_text(message: str) -> str:
    """The message without the bytes of a parameter that is no text: permissions are checked, and refused, before that is seen."""
    return message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _for_pages(form: str, body: Body) -> Body:
    if form != "htmljs":
        return body
    text = b"".join(body.slices()).decode()
    return Body([html.escape(text).replace("&#x27;", "&#39;").encode()], PAGE_HEADERS)


_gzip_accepted: Final = re.compile(r"\bgzip\b(?:\s*;\s*q=(?P<weight>[0-9]+(?:\.[0-9]*)?))?", re.IGNORECASE)

_TYPOGRAPHY: Final = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        **dict.fromkeys(map(chr, (*range(32), *range(127, 161), 173)), "?"),
    }
)
"""Quotes as typewriters have them, and no control characters."""


LONGEST_REASON: Final = 1000
"""Characters. Clients read a status line of 8 KiB at most and give up on a longer one; guests and other clients' parameters have a say in its text."""


def reason_phrase(text: str) -> str:
    """The first line of `text`, in Latin-1, as Proxmox VE sends it: a status line carries no more."""
    line = text.partition("\n")[0]
    short = line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."
    return short.translate(_TYPOGRAPHY).encode("latin-1", "replace").decode("latin-1")


def refusal(error: Refusal | NotAuthenticated) -> Response:
    """Plain HTTP: a text, after which the connection ends; or for a missing login nothing at all, not even a Content-Type."""
    reason = reason_phrase(str(error))
    if isinstance(error, NotAuthenticated):
        return Response(error.status, reason, BARE_HEADERS)
    headers = TEXT_HEADERS if error.body else BARE_HEADERS
    if error.location:
        headers = headers | {"Location": error.location}
    return Response(error.code, reason, headers, error.body.encode("utf-8", "backslashreplace"), closes=True)


async def response(request: Request, status: int, reason: str, body: Body) -> Response:
    """The answer to `request`; a long body goes out slice by slice."""
    packs = _takes_gzip(request.headers.get("accept-encoding", ""))
    if not body.is_long:
        data = b"".join(body.slices())
        return await _in_one(status, reason, data, body.headers, packs=packs and len(data) > COMPRESS_OVER)
    if packs:
        return _packed(status, reason, await asyncio.to_thread(_gzip, body.slices()), body.headers)
    return Response(status, reason, body.headers, body.slices(), await body.size())


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header names gzip, and not with the weight 0, which says no."""
    found = _gzip_accepted.search(accepted)
    return found is not None and not (found["weight"] and float(found["weight"]) == 0)


async def _in_one(status: int, reason: str, data: bytes, headers: dict[str, str], *, packs: bool) -> Response:
    if not packs:
        return Response(status, reason, headers, data)
    if len(data) > COMPRESS_ELSEWHERE_OVER:
        return _packed(status, reason, await asyncio.to_thread(_gzip, [data]), headers)
    return _packed(status, reason, _gzip([data]), headers)


def _packed(status: int, reason: str, data: bytes, headers: dict[str, str]) -> Response:
    return Response(status, reason, headers | {"Content-Encoding": "gzip"}, data)


def _gzip(pieces: Iterable[bytes]) -> bytes:
    packer = zlib.compressobj(level=1, wbits=31)
    return b"".join([*map(packer.compress, pieces), packer.flush()])
