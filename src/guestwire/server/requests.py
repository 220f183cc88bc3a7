"""A request as Proxmox VE's server reads it: path, format, parameters.

Source: the recorded cases `http/`, `path/`, `base`, `dup/`, `file-read/semicolon-sep` and their like.
"""

import asyncio
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

import msgspec

from guestwire.errors import InvalidParameters
from guestwire.server.http1 import Refusal, Request

METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE"})
WITH_BODY: Final = frozenset({"POST", "PUT"})
MAX_BODY: Final = 512 * 1024

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


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


async def parameters(request: Request, query: str) -> dict[str, Any]:
    """All parameters that a client gave; the query wins over the body.

    Raises:
        InvalidParameters: the body is not what it says it is.
    """
    if not (request.length or query or "content-type" in request.headers):
        return {}
    given: dict[str, Any] = {}
    if request.method in WITH_BODY:
        given = await _body(request)
    if query:
        given |= decode_form(query)
    given.pop(CACHE_BUSTER, None)
    return given


async def _body(request: Request) -> dict[str, Any]:
    body = await _read(request) if request.length else b""
    if _media_type(request.headers.get("content-type", "")) == JSON:
        return decode_json(body)
    return decode_form(body.decode("utf-8", KEEP_BYTES))


async def _read(request: Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_WITHIN):
            return await request.read()
    except TimeoutError:
        raise InvalidParameters({"body": f"it did not arrive within {BODY_WITHIN:g} seconds"}) from None


_json = msgspec.json.Decoder()


def decode_json(body: bytes) -> dict[str, Any]:
    """A JSON object as parameters; `null` stands for none.

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
    return given


_separator = re.compile(r"[&;]")


def decode_form(text: str) -> dict[str, Any]:
    """Parameters of a query or a form: a key that comes twice is a list, one without `=` is absent (None)."""
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
