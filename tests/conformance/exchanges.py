"""Sends a case's request byte for byte as it was recorded, and reads the answer."""

import asyncio
import gzip
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cases import Case

WITH_BODY = ("POST", "PUT")

CONTINUE = 100
MAX_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` is None when the connection was closed without an answer."""

    status: int | None
    reason: str = ""
    body: bytes = b""

    @property
    def content(self) -> Any:
        """The body as JSON, or as text when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return self.body.decode("utf-8", "replace")


async def exchange(port: int, tls: ssl.SSLContext, data: bytes) -> Answer:
    """One connection, one request, one answer."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=MAX_HEAD)
        try:
            writer.write(data)
            return await _answer(reader)
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def _answer(reader: asyncio.StreamReader) -> Answer:
    try:
        status, reason, headers = _head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError:
        return Answer(None)
    if status == CONTINUE:
        return await _answer(reader)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(status, reason, gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body)


def _head(data: bytes) -> tuple[int, str, dict[str, str]]:
    line, *lines = data.decode("latin-1").rstrip().split("\r\n")
    found = re.fullmatch(r"HTTP/1\.[01] (\d+) ?(.*)", line)
    assert found, line
    pairs = (line.split(": ", 1) for line in lines)
    return int(found[1]), found[2], {name.lower(): value for name, value in pairs}


def request(case: Case, headers: list[tuple[str, str]], live: dict[str, str]) -> bytes:
    """The bytes of a case's request, with `headers` beside its own; `live` has the values of `{pid}`, `{ticket}` and their like."""
    body = _filled(case.body or "", {name: quote(value) for name, value in live.items()}).encode()
    body = body.replace(rb"\xe9", b"\xe9")
    headers = [*headers, *((name, _filled(value, live)) for name, value in case.headers)]
    if case.has_host:
        headers.insert(0, ("Host", "pve1"))
    if case.method in WITH_BODY or body:
        headers.append(("Content-Length", str(len(body))))
    if any(name == "Transfer-Encoding" for name, _ in headers):
        headers = [header for header in headers if header[0] != "Content-Length"]
    target = _filled(case.target, live)
    lines = [f"{case.method} {target} {case.version}", *(f"{name}: {value}" for name, value in headers)]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def _filled(text: str, live: Mapping[str, str]) -> str:
    for name, value in live.items():
        text = text.replace(f"{{{name}}}", value)
    return text
