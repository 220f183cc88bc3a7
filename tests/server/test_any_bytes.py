"""Whatever bytes a client sends, the server has an answer of its own for them, and the next connection works."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
from calling import Client, agent, connected, site, vm
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Serving

pytestmark = pytest.mark.slow

VERSION = "/api2/json/version"
SETTINGS = settings(max_examples=400, deadline=None)
UNEXPECTED = ("unexpected error", "internal error", "Traceback")
PATIENCE = 0.03
"""Seconds that a request is waited for which may never have an answer."""


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100), server="tls = false")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Serving) -> Client:
    return Client(server, tls=False)


async def check_the_next(client: Client) -> None:
    """The next connection works, and nothing unexpected is in the log."""
    assert (await client.get(VERSION)).status == 200
    assert unexpected(client.server.log) == []


def unexpected(log: str) -> list[str]:
    """Records that should not be there."""
    records = re.split(r"^(?=\d{4}-\d\d-\d\d )", log, flags=re.MULTILINE)
    return [record for record in records if any(word in record for word in UNEXPECTED)]


LINES = [
    b"GET /api2/json/version HTTP/1.1\r\n", b"POST /api2/json/nodes/pve1/qemu/100/agent/exec HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n",
    b"GET  HTTP/1.1\r\n", b"\r\n", b"\n", b"\r", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n",
    b"GET http://[x/ HTTP/1.1\r\n", b"GET //x/api2/json HTTP/1.1\r\n", b"GET /%zz%00%ff HTTP/1.1\r\n", b"GET /\xff\x00 HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00",
]  # fmt: skip
HEADERS = [
    b"Host: x\r\n", b"Host:\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: x\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Expect: 100-continue\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Connection: close\r\n", b"Content-Type: application/json\r\n", b"Content-Type: \xff\r\n",
    b"Content-Encoding: gzip\r\n", b": x\r\n", b" folded\r\n", b"X\x00: y\r\n", b"Authorization: \xff\r\n", b"Authorization: PVEAPIToken=\r\n", b"Cookie: a=b; =; \xff\r\n",
]  # fmt: skip
PIECES = (
    st.sampled_from(LINES)
    | st.sampled_from(HEADERS)
    | st.binary(max_size=20)
    | st.sampled_from([b"5\r\nhello\r\n", b"0\r\n\r\n", b"{}"])
)


@given(pieces=st.lists(PIECES, max_size=12), login=st.booleans())
@SETTINGS
async def test_any_bytes_as_a_request(client: Client, pieces: list[bytes], login: bool) -> None:
    if login:
        pieces = [*pieces[:1], f"{client.authorization}\r\n".encode(), *pieces[1:]]
    async with connected(client.server.port, None) as connection:
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.send(b"".join(pieces))
            async with asyncio.timeout(PATIENCE):
                await connection.reader.read(1)
    await check_the_next(client)


SAFE = st.characters(codec="latin-1", min_codepoint=33, exclude_characters="\x7f")
WORDS = st.text(SAFE, max_size=20) | st.sampled_from(
    ["%FF", "%00", "%0a", "\xe9", "[", "{0}", "%", "..", "\xed\xa0\x80"]
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "FOO"])
PATHS = st.one_of(
    st.lists(WORDS, max_size=5).map(lambda words: "/api2/json/" + "/".join(words)),
    st.sampled_from(["ping", "exec", "file-write", "file-read", "exec-status", "set-user-password", "", "none"]).map(
        agent
    ),
    WORDS.map(lambda word: f"/api2/{word}/version"),
    WORDS.map(lambda word: f"/api2/json/nodes/{word}/qemu/{word}/agent"),
    WORDS.map(lambda word: "/" + word),
)
NAMES = (
    st.sampled_from(
        ["command", "file", "content", "pid", "password", "username", "input-data", "count", "vmid", "node"]
    )
    | WORDS
)
QUERIES = st.lists(st.tuples(NAMES, WORDS), max_size=4).map(lambda pairs: "&".join("=".join(pair) for pair in pairs))
TYPES = st.sampled_from(
    ["application/json", "application/x-www-form-urlencoded", "application/json;charset=x", "text/plain", ""]
)
BODIES = st.one_of(
    st.none(),
    st.binary(max_size=50),
    QUERIES.map(lambda text: text.encode("latin-1")),
    st.sampled_from([b'{"command":["a"],"input-data":"\\ud800"}', b'{"pid":1e400}', b'{"pid":' + b"9" * 5000 + b"}", b"[" * 5000, b'{"a":{"b":[]}}', b"{\"\\u0000\":null}"]),
)  # fmt: skip


@given(method=METHODS, path=PATHS, query=QUERIES, kind=TYPES, body=BODIES)
@SETTINGS
async def test_any_request_of_the_administrator(
    client: Client, method: str, path: str, query: str, kind: str, body: bytes | None
) -> None:
    length = [f"Content-Length: {len(body)}"] if body is not None else []
    head = client.request(method, f"{path}?{query}", None, [f"Content-Type: {kind}", "Connection: close", *length])
    async with connected(client.server.port, None) as connection:
        connection.send(head.decode().encode("latin-1") + (body or b""))
        said = await connection.rest()

    assert said.startswith(b"HTTP/1.")
    assert int(said.split(b" ", 2)[1]) in {200, 400, 401, 403, 404, 414, 500, 501, 506}
    await check_the_next(client)


@pytest.mark.parametrize("size", [1, 100, 10_000, 1_000_000])
@pytest.mark.parametrize("byte", [b"\0", b"A", b"\n", b"\r\n", b"\xff", b" "])
async def test_many_bytes_of_one_kind(client: Client, byte: bytes, size: int) -> None:
    async with connected(client.server.port, None) as connection:
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.send(byte * size)
            async with asyncio.timeout(PATIENCE):
                await connection.reader.read(1)
    await check_the_next(client)


async def test_spaces_in_credentials_delay_nobody(client: Client) -> None:
    async with client.connection() as connection:
        connection.send(client.request("GET", VERSION))
        await connection.answer()
        connection.send(b"GET / HTTP/1.1\r\nFoo: \r\nAuthorization: x" + b" " * 50_000 + b"x\r\n\r\n")
        async with asyncio.timeout(30):  # looking for the end of the spaces once for each would take minutes
            await check_the_next(client)


@pytest.mark.parametrize("pause", [0, 0.0005, 0.002])
async def test_a_client_that_leaves_at_any_moment_is_nothing_unexpected(client: Client, pause: float) -> None:
    requests = [
        client.request("POST", agent("exec"), b"x=1", ["Expect: 100-continue"]),
        client.request("GET", VERSION) * 20,
        client.request("POST", agent("file-write"), b"x=1&" * 50_000),
        client.request("POST", agent("exec"), b"x", ["Transfer-Encoding: chunked"]),
    ]
    for request in requests * 20:
        async with client.connection() as connection:
            connection.send(request)
            await connection.writer.drain()
            await asyncio.sleep(pause)  # to leave at another moment, not to wait for anything
            connection.drop()
    await check_the_next(client)
