"""Requests at random: `python -m bench.fuzz_server 1000000`, with `--tls` over sockets to `guestwire serve` in a process of its own.

Without it, requests go to the server's connections in this process, with nothing but memory between: ten times as many
in the same time. Behind both are a fake guest, a real agent in a sandbox, and VMs that don't answer.

Methods, paths, queries, headers, bodies and credentials come from one seed, right ones and mutated ones, whole and in
pieces, one at a time and several ahead. Each answer must be well-formed, with a status that is known, without a secret;
each request that is whole gets one; and a good one that is sent now and then on the same connection is answered rightly.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import logging
import os
import random
import re
import ssl
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from bench.https import NODE
from bench.service import Vm, holdings_of, serve
from guestwire.access.authentication import secret_hash
from guestwire.access.control import Access
from guestwire.access.engine import SUPERUSER
from guestwire.contract import Endpoint
from guestwire.contract.parameters import rules
from guestwire.contract.registry import ENDPOINTS
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.inventory import Inventory
from guestwire.inventory.config import VmConfig
from guestwire.server import Gateway
from guestwire.server.connection_limits import ConnectionLimits
from guestwire.server.listener import MAX_CONNECTIONS, _Connection
from guestwire.stores import MemoryStore, Token, User
from guestwire.testing import FakeGuest, SandboxedAgent

STATUSES: Final = frozenset({200, 400, 401, 403, 404, 409, 414, 426, 431, 500, 501, 503, 506})
UNEXPECTED: Final = ("internal error", "unexpected error", "Traceback")

FAKE, REAL, NO_SOCKET, NO_AGENT, STOPPED = 100, 101, 102, 103, 104

CONNECTIONS: Final = 16
REQUESTS_EACH: Final = 200
"""On one connection, unless an answer ends it."""

GOOD_EVERY: Final = 20

ADDRESS: Final = "192.0.2.1"

ANSWERED_WITHIN: Final = 60.0

TURNS: Final = 20
"""Of the loop, in which a server in this process has said what it will to a request that is none."""

PATIENCE: Final = 0.02
"""Seconds for the same over sockets."""

SECRET: Final = "5f0c7a52-b1d3-4c56-8f3e-70d3a1c9e4b2"
FEW_SECRET: Final = "0b6d9d0e-51a7-4c3f-9a57-5f3b6f6f0a11"
PASSWORD: Final = "correct-horse-battery-7319"

FEW_USER: Final = "few@pve"
TOKENID: Final = "fuzz"

METHODS: Final = ("GET", "POST", "PUT", "DELETE")
ODD_METHODS: Final = ("HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "FOO", "G\x00T", "", "A" * 9000)

ODD: Final = (
    "", " ", "0", "1", "-1", "99999999999999999999", "1e999", "nan", "true", "null", "..", ".", "/", "//", "%", "%00", "%zz", "%2e%2e%2f", "%ff", "a\nb", "\r\n",
    "é", "世界", "\u202e", "\ud800", "\x00", "\x7f", "'", '"', "`id`", "$HOME", "%s", "{0}", "{}", "*", "&", ";", "=", "#", "?", "x" * 300, "[]", "{}", "a=b",
    "root@pam", "few@pve", "few@pve!fuzz", "!", "@", "/vms", "/vms/100", "PVEAdmin", "NoAccess", "/etc/passwd", "/root/x", "/dev/full", "/small/x", "100", "pve",
)  # fmt: skip
KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "node": (NODE, NODE, NODE, NODE, "localhost", "other", ""),
    "vmid": ("100", "100", "100", "101", "102", "103", "104", "999", "0100", "1e2"),
    "command": ("true", "false", "cat", "id", "nosuch"),
    "file": ("/root/known", "/root/x", "/etc/passwd", "/dev/full", "/small/x", "/root", "relative", "/root/é"),
    "content": ("", "text", "aGVsbG8=", "é", "\x00", "x" * 70_000),
    "encode": ("0", "1", "true", "x"),
    "pid": ("1", "2", "99999", "-1", "2147483648"),
    "userid": ("ann@pve", "bob@pve", FEW_USER, "x@nosuch", "nobody"),
    "tokenid": ("one", "two", TOKENID),
    "username": ("labuser", "root", "nobody"),
    "roleid": ("Some", "PVEAuditor", "NoAccess"),
    "groupid": ("g1", "g2"),
    "poolid": ("p1", "p1/p2"),
    "realm": ("pve", "nosuch"),
    "password": (PASSWORD,),
    "path": ("/", "/vms/100", "/pool/p1", "/vms/100/..", "vms"),
    "roles": ("PVEAuditor", "Some", "Administrator"),
    "privs": ("VM.Audit", "VM.Audit,Sys.Audit", "Nosuch"),
    "users": ("ann@pve", "ann@pve,bob@pve"),
    "groups": ("g1", "g1,g2"),
    "tokens": ("ann@pve!one",),
    "vms": ("100", "101,102"),
}
TYPES: Final = (
    "application/json", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "",
    "APPLICATION/JSON", "application/json;", ";", "x" * 300,
)  # fmt: skip
HEADERS: Final = (
    "Accept: application/octet-stream", "Accept: */*", "Accept-Encoding: gzip", "Accept-Encoding: gzip;q=0", "Accept-Encoding: gzip;q=1.", "Connection: close",
    "Connection: keep-alive", "Connection: Upgrade", "Upgrade: websocket", "Host: other", "Host:", "Origin: https://x", "CSRFPreventionToken: x",
    "Cookie: a=b; PVEAuthCookie=", "X-Forwarded-For: 10.0.0.1", "User-Agent: " + "x" * 500, "Expect: nothing", "Range: bytes=0-1", "Content-Encoding: gzip",
    "X-é: y", "If-None-Match: *", "TE: trailers", "Accept-Encoding: " + "gzip;q=0," * 50,
)  # fmt: skip
BROKEN_HEADERS: Final = (
    "Content-Length: 5", "Content-Length: -1", "Content-Length: +1", "Content-Length: 99999999999999999999", "Content-Length: x", "Content-Length: 0x1",
    "Content-Length: 600000", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", " folded", ": x", "X : y", "X\x00: y", "X: a\x00b", "X: a\nb", "X", "",
    "X: " + "y" * 9000, "Expect: 100-continue",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Try:
    """What is sent: `answers` many are due, None where the bytes are no whole requests and any number may come.

    `is_plain`: each parameter has its own name, so that a password is known for one.
    """

    data: bytes
    answers: int | None
    is_plain: bool = False


class Requests:
    """Makes tries from one seed."""

    def __init__(self, seed: int, good: str, few: str) -> None:
        self.chance = random.Random(seed)
        self._good = good
        self._few = few
        self._endpoints = [*ENDPOINTS]
        self._is_plain = True

    def next(self) -> Try:
        """One try: mostly a whole request, else several ahead, or bytes that are none."""
        self._is_plain = True
        made = self._next()
        if made.answers == 1 and self._is_plain:
            return Try(made.data, 1, is_plain=True)
        # Where names and values may have grown together, a password is a part of anything, and no secret.
        return Try(made.data.replace(PASSWORD.encode(), b"x" * len(PASSWORD)), made.answers)

    def _next(self) -> Try:
        kind = self.chance.random()
        if kind < 0.85:
            return Try(self.request(), 1)
        if kind < 0.90:
            count = self.chance.randrange(2, 5)
            return Try(b"".join(self.request() for _ in range(count)), count)
        if kind < 0.96:
            return Try(self.request(more=[self.chance.choice(BROKEN_HEADERS)]), None)
        data = bytearray(self.request())
        for _ in range(self.chance.randrange(1, 5)):
            mutate(self.chance, data)
        return Try(bytes(data), None)

    def request(self, more: Sequence[str] = ()) -> bytes:
        """A whole request; what is in it may be refused, but it can be told where it ends."""
        chance = self.chance
        endpoint = chance.choice(self._endpoints)
        method = endpoint.method if chance.random() < 0.9 else chance.choice(METHODS)
        path = self._path(endpoint)
        given = self._parameters(endpoint)
        query, body, headers = "", b"", [*more]
        if method in ("POST", "PUT") and chance.random() < 0.85:
            kind, body = self._body(given)
            headers += [f"Content-Length: {len(body)}", *([f"Content-Type: {kind}"] if kind else [])]
        elif given:
            query = "?" + self._form(given)
        if chance.random() < 0.1:
            query += ("&" if query else "?") + self._form(self._parameters(endpoint))
        headers += self._credentials()
        headers += chance.sample(HEADERS, chance.choice((0, 0, 0, 1, 2, 5)))
        if chance.random() < 0.03:
            method = chance.choice(ODD_METHODS)
        chance.shuffle(headers)
        head = "\r\n".join([f"{method} {path}{query} HTTP/1.{chance.choice('1111110')}", *headers])
        return head.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body

    def _value(self, name: str) -> str:
        values = KNOWN.get(name, ODD) if self.chance.random() < 0.8 else ODD
        return self.chance.choice(values)

    def _path(self, endpoint: Endpoint) -> str:
        chance = self.chance
        form = "json" if chance.random() < 0.8 else chance.choice(("extjs", "htmljs", "xml", "", "JSON"))
        # A path with spaces and line ends in it is another request; those are quoted.
        filled = re.sub(
            r"\{(\w+)\}", lambda found: quote(self._value(found[1]), "", errors="surrogatepass"), endpoint.path
        )
        path = f"/api2/{form}{filled}"
        if chance.random() < 0.1:
            data = bytearray(path.encode())
            self._mutate(data)
            path = re.sub(r"[^!-~]", lambda found: quote(found[0], errors="surrogatepass"), data.decode("latin-1"))
        return path or "/"

    def _parameters(self, endpoint: Endpoint) -> dict[str, str]:
        chance, names = self.chance, [*rules(endpoint.parameters)]
        in_path = set(re.findall(r"\{(\w+)\}", endpoint.path))
        names = [name for name in names if name not in in_path or chance.random() < 0.05]
        chosen = names if chance.random() < 0.3 else chance.sample(names, chance.randrange(len(names) + 1))
        if chance.random() < 0.1:
            chosen = [*chosen, chance.choice(ODD), chance.choice([*KNOWN])]
        return {name: self._value(name) for name in chosen}

    def _form(self, given: dict[str, str]) -> str:
        form = urlencode(given, errors="surrogatepass")
        if self.chance.random() < 0.1:
            form += "&" + form
        if self.chance.random() < 0.05:
            data = bytearray(form.encode())
            self._mutate(data)
            form = re.sub(r"[^!-~]", "%", data.decode("latin-1"))
        return form

    def _body(self, given: dict[str, str]) -> tuple[str, bytes]:
        chance = self.chance
        kind = chance.choice(TYPES[:3]) if chance.random() < 0.9 else chance.choice(TYPES)
        if "json" in kind.lower():
            shaped: Any = {name: self._shape(value) for name, value in given.items()}
            body = json.dumps(shaped if chance.random() < 0.95 else self._shape("x")).encode()
        else:
            body = self._form(given).encode()
        if chance.random() < 0.08:
            data = bytearray(body)
            self._mutate(data)
            body = bytes(data)
        return kind, body

    def _shape(self, value: str) -> Any:
        """The text, or JSON of another shape."""
        chance = self.chance
        if chance.random() < 0.75:
            return value
        return chance.choice(
            (
                None,
                True,
                0,
                -1,
                100,
                2**70,
                1.5,
                float("inf"),
                [],
                [value],
                [value] * 100,
                {},
                {value: value},
                [[[]]],
                ["true", 1],
                [None],
            )
        )

    def _mutate(self, data: bytearray) -> None:
        self._is_plain = False
        mutate(self.chance, data)

    def _credentials(self) -> list[str]:
        kind = self.chance.random()
        if kind < 0.75:
            return [f"Authorization: PVEAPIToken={self._good}"]
        if kind < 0.90:
            return [f"Authorization: PVEAPIToken={self._few}"]
        if kind < 0.93:
            return []
        data = bytearray(f"PVEAPIToken={self._few}".encode())
        mutate(self.chance, data)
        text = re.sub(r"[\x00-\x1f\x7f]", "?", data.decode("latin-1"))
        return [f"{self.chance.choice(('Authorization', 'Cookie', 'authorization'))}: {text}"] * self.chance.choice(
            (1, 1, 2)
        )


def mutate(chance: random.Random, data: bytearray) -> None:
    """Changes a piece of `data`."""
    at = chance.randrange(len(data) + 1)
    match chance.randrange(5):
        case 0:
            del data[at : at + chance.randrange(1, 8)]
        case 1:
            data[at:at] = chance.randbytes(chance.randrange(1, 8))
        case 2:
            data[at : at + 1] = chance.choice(ODD).encode("utf-8", "surrogatepass")
        case 3:
            data[at:at] = data[at : at + chance.randrange(1, 64)]
        case _:
            data[at : at + 1] = bytes([chance.randrange(256)])


# Connections


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes


class NotHttp(Exception):
    """What came back is no answer."""


_status_line = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([ -~\xa0-\xff]*)")
_record = re.compile(r"^(?=DEBUG|INFO|WARNING|ERROR|\d{4}-\d\d-\d\d )", re.MULTILINE)
_header = re.compile(rb"([A-Za-z-]+): ([ -~]*)")


@dataclass(slots=True)
class Connection:
    """One connection: what comes from the server is in `reader`."""

    reader: asyncio.StreamReader
    send: Callable[[bytes], None]
    drop: Callable[[], None]
    settle: Callable[[], Any]

    async def answer(self) -> Answer | None:
        """The next answer; None when the server has ended the connection.

        Raises:
            NotHttp: it is none.
        """
        async with asyncio.timeout(ANSWERED_WITHIN):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    raise NotHttp(f"ends in mid-head: {end.partial!r}") from end
                return None
            except ConnectionError:
                return None
            line, *lines = head[:-4].split(b"\r\n")
            status, headers = _status_line.fullmatch(line), [_header.fullmatch(one) for one in lines]
            if not status or not all(headers):
                raise NotHttp(f"no head: {head!r}")
            if status[1] == b"100":
                return await self.answer()
            values = {found[1].decode().lower(): found[2].decode() for found in headers if found}
            if values.get("content-type") == "text/event-stream" and values.get("connection") == "close":
                return Answer(int(status[1]), values, b"", head)  # what follows has no end
            if len(values) != len(headers) or not values.get("content-length", "").isdecimal():
                raise NotHttp(f"headers: {head!r}")
            try:
                body = await self.reader.readexactly(int(values["content-length"]))
            except (asyncio.IncompleteReadError, ConnectionError) as end:
                raise NotHttp(f"ends in mid-body after {head!r}") from end
        return Answer(int(status[1]), values, body, head + body)

    def rest(self) -> bytes:
        """What has come that was not read."""
        return bytes(self.reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001  # nothing else tells without a wait


Connect = Callable[[], contextlib.AbstractAsyncContextManager[Connection]]


class _Memory(asyncio.Transport):
    """A transport that hands on what the server writes, in the same process."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": (ADDRESS, 1)})
        self.reader = asyncio.StreamReader()
        self._protocol = protocol
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self.reader.feed_data(bytes(data))

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.reader.feed_eof()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """What is sent has come already."""

    def resume_reading(self) -> None:
        """As above."""

    def receive(self, data: bytes) -> None:
        if not self._is_closing:
            self._protocol.data_received(data)


@contextlib.asynccontextmanager
async def in_memory(gateway: Gateway, limits: ConnectionLimits) -> AsyncIterator[Connection]:
    protocol = _Connection(gateway, limits, ADDRESS)
    transport = _Memory(protocol)
    protocol.connection_made(transport)

    async def settle() -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    try:
        yield Connection(transport.reader, transport.receive, transport.abort, settle)
    finally:
        transport.abort()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def over_tls(port: int, certificate: Path) -> AsyncIterator[Connection]:
    tls = ssl.create_default_context(cafile=certificate)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        yield Connection(reader, writer.write, writer.transport.abort, lambda: asyncio.sleep(PATIENCE))
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


# The fuzzer


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    good: int = 0
    finds: list[str] = field(default_factory=list)
    sizes: list[dict[str, float]] = field(default_factory=list)

    def find(self, text: str) -> None:
        """Something that should not be; it is printed at once, for a run may take long."""
        self.finds.append(text)
        print(f"---- {text}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {value:.0f}" for name, value in (self.sizes[-1] if self.sizes else {}).items())
        return f"{self.requests} requests, {self.good} good ones between; {sizes}; {len(self.finds)} finds"


class Fuzzer:
    """Plays tries on connections.

    Args:
        connect: opens a connection.
        good: a token that may do everything.
        few: one with few rights.
        seed: of all.
    """

    def __init__(self, connect: Connect, good: str, few: str, seed: int) -> None:
        self.outcome = Outcome()
        self._connect = connect
        # One for each connection: what is sent does not depend on which of them is quicker.
        self._requests = [Requests(seed * CONNECTIONS + number, good, few) for number in range(CONNECTIONS)]
        self._good = good
        self._secrets = [text.partition("=")[2].encode() for text in (good, few)] + [PASSWORD.encode()]

    async def play(self, count: int) -> None:
        """Sends at least so many requests, over several connections at once."""
        await asyncio.gather(*(self._play_some(requests, count // CONNECTIONS + 1) for requests in self._requests))

    async def _play_some(self, requests: Requests, count: int) -> None:
        while count > 0:
            async with self._connect() as connection:
                for number in range(min(count, REQUESTS_EACH)):
                    one = requests.next()
                    count -= one.answers or 1
                    if not await self._play_one(connection, one, requests.chance):
                        break
                    if number % GOOD_EVERY == 0 and not await self._play_good(connection):
                        break

    async def _play_one(self, connection: Connection, one: Try, chance: random.Random) -> bool:
        """True if the connection can be used again."""
        self.outcome.requests += one.answers or 1
        try:
            await self._send(connection, one.data, chance)
            if one.answers is None:
                await connection.settle()
                connection.drop()
                while answer := await connection.answer():
                    self._check(one, answer)
                    if answer.headers.get("connection") == "close":
                        break
                return False
            for _ in range(one.answers):
                answer = await connection.answer()
                if answer is None:
                    self._find(one, "the connection ended without an answer")
                    return False
                self._check(one, answer)
                if answer.headers.get("connection") == "close":
                    return False
        except (NotHttp, TimeoutError) as error:
            # A client that drops the connection gets what was on its way, or a part of it.
            if one.answers is not None or "mid-" not in str(error):
                self._find(one, repr(error))
            return False
        if rest := connection.rest():
            self._find(one, f"more than was asked for: {rest!r}")
            return False
        return not connection.reader.at_eof()

    @staticmethod
    async def _send(connection: Connection, data: bytes, chance: random.Random) -> None:
        while data:
            size = len(data) if chance.random() < 0.8 else chance.randrange(1, len(data) + 1)
            connection.send(data[:size])
            data = data[size:]
            if data:
                await asyncio.sleep(0)

    async def _play_good(self, connection: Connection) -> bool:
        """A ping, which is answered rightly whatever came before."""
        connection.send(
            f"POST /api2/json/nodes/{NODE}/qemu/{FAKE}/agent/ping HTTP/1.1\r\nAuthorization: PVEAPIToken={self._good}\r\n\r\n".encode()
        )
        answer = await connection.answer()
        if answer is None or (answer.status, answer.body) != (200, b'{"data":{"result":{}}}'):
            self.outcome.find(f"a good request got {answer}")
            return False
        self.outcome.good += 1
        return True

    def _check(self, one: Try, answer: Answer) -> None:
        self.outcome.statuses[answer.status] += 1
        if answer.status not in STATUSES:
            self._find(one, f"status: {answer.raw[:500]!r}")
        body = answer.body
        if answer.headers.get("content-encoding") == "gzip":
            try:
                body = gzip.decompress(body)
            except (OSError, EOFError, zlib.error) as error:
                self._find(one, f"gzip: {error}")
        if answer.headers.get("content-type", "").startswith("application/json"):
            try:
                decoded = json.loads(body)
            except ValueError as error:
                self._find(one, f"JSON: {error}: {body[:500]!r}")
            else:
                if not isinstance(decoded, dict) or not ("data" in decoded or "openapi" in decoded):
                    self._find(one, f"shape: {body[:500]!r}")
        whole = answer.raw + body
        secrets = self._secrets if one.is_plain else ()
        if any(word.encode() in whole for word in UNEXPECTED) or any(secret in whole for secret in secrets):
            self._find(one, f"words: {whole[:500]!r}")

    def _find(self, one: Try, why: str) -> None:
        self.outcome.find(f"{why}\n  sent {one.data[:1500]!r}")

    def check_log(self, log: str) -> None:
        """A log has no trace of an exception, and no secret."""
        words = [*UNEXPECTED, *(secret.decode() for secret in self._secrets)]
        for record in _record.split(log):
            if any(word in record for word in words):
                self.outcome.find(f"log: {record[:100]}\n…{record[-3000:]}")

    def measure(self, pid: int, *, tasks: int | None = None) -> None:
        """Notes what a process holds."""
        sizes = holdings_of(pid)
        self.outcome.sizes.append(sizes if tasks is None else sizes | {"tasks": tasks})

    def check_growth(self) -> None:
        """What is held does not grow with the number of requests, once the first tenth has filled all caches."""
        sizes = self.outcome.sizes
        first, last = sizes[len(sizes) // 10], sizes[-1]
        allowed = {
            "MB": first["MB"] * 1.3 + 20,
            "fds": first["fds"] + CONNECTIONS,
            "tasks": first.get("tasks", 0) + CONNECTIONS,
        }
        for name, value in last.items():
            if value > allowed[name]:
                self.outcome.find(f"{name} grew from {first[name]:.0f} to {value:.0f}")


class _Lines(logging.Handler):
    """What is logged in this process, as text, until it was looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def fake_guest(path: Path) -> FakeGuest:
    """With an answer to the commands that are asked most."""
    guest = FakeGuest(path, files={"/root/known": bytearray(b"known\n" * 20_000)}, no_reply=set())
    guest.replies = {
        "guest-get-osinfo": {"id": "debian", "pretty-name": "Debian"}, "guest-get-time": 1, "guest-get-vcpus": [], "guest-get-users": [],
        "guest-get-fsinfo": [], "guest-info": {"version": "10.0", "supported_commands": []}, "guest-fsfreeze-status": "thawed", "guest-fsfreeze-freeze": 1,
        "guest-fsfreeze-thaw": 1, "guest-set-user-password": {}, "guest-exec": {"pid": 1}, "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": "eA=="},
        "guest-shutdown": {}, "guest-suspend-ram": {}, "guest-suspend-disk": {}, "guest-network-get-interfaces": [{"name": "lo\u202e\x1b[31m"}],
    }  # fmt: skip
    return guest


async def fuzz_in_process(count: int, seed: int, *, real: bool = True, every: int = 10_000) -> Outcome:
    """Plays `count` requests on a server in this process; `real`: with a real agent, too."""
    lines = _Lines()
    root = logging.getLogger("guestwire")
    before = root.level
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-fuzz-")))
        guest = await stack.enter_async_context(fake_guest(folder / f"{FAKE}.qga"))
        if real:
            await stack.enter_async_context(SandboxedAgent(folder / f"{REAL}.qga"))
        root.addHandler(lines)
        stack.callback(root.removeHandler, lines)
        root.setLevel(logging.INFO)
        stack.callback(root.setLevel, before)
        good, few = f"{SUPERUSER}!{TOKENID}x={SECRET}", f"{FEW_USER}!{TOKENID}={FEW_SECRET}"
        store = MemoryStore(
            [
                User(SUPERUSER), Token(SUPERUSER, f"{TOKENID}x", secret_hash(SECRET), privsep=False),
                User(FEW_USER), Token(FEW_USER, TOKENID, secret_hash(FEW_SECRET), privsep=False),
            ], audit_rows=1000,
        )  # fmt: skip
        access = Access(store)
        await access.rotate_keys()
        writer = AuditWriter(store)
        stack.push_async_callback(writer.close)
        inventory = Inventory(NODE)
        stack.push_async_callback(inventory.close)
        await inventory.apply(
            [
                *(VmConfig(vmid, agent=f"unix:{folder}/{vmid}.qga", running=True) for vmid in (FAKE, REAL, NO_SOCKET)),
                VmConfig(NO_AGENT), VmConfig(STOPPED, agent=f"unix:{folder}/{STOPPED}.qga", running=False),
            ]
        )  # fmt: skip
        gateway, limits = Gateway(inventory, access, AuditRecorder(writer)), ConnectionLimits(MAX_CONNECTIONS, ())
        fuzzer = Fuzzer(lambda: in_memory(gateway, limits), good, few, seed)
        while fuzzer.outcome.requests < count:
            await fuzzer.play(min(every, count - fuzzer.outcome.requests))
            guest.received.clear()
            fuzzer.check_log("\n".join(lines.lines))
            lines.lines.clear()
            fuzzer.measure(os.getpid(), tasks=len(asyncio.all_tasks()))
            if count > every:
                print(fuzzer.outcome, file=sys.stderr, flush=True)
        fuzzer.check_growth()
        return fuzzer.outcome


async def fuzz_over_tls(count: int, seed: int, *, every: int = 2_000) -> Outcome:
    """The same on `guestwire serve` in a process of its own."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-fuzz-")))
        guest = await stack.enter_async_context(fake_guest(folder / f"{FAKE}.qga"))
        await stack.enter_async_context(SandboxedAgent(folder / f"{REAL}.qga"))
        vms = [Vm(vmid, folder / f"{vmid}.qga") for vmid in (FAKE, REAL, NO_SOCKET)]
        service = await stack.enter_async_context(serve(folder, vms))
        address = service.address

        def connect() -> contextlib.AbstractAsyncContextManager[Connection]:
            return over_tls(address.port, address.certificate)

        few = await _few_rights(connect, address.token)
        fuzzer = Fuzzer(connect, address.token, few, seed)
        while fuzzer.outcome.requests < count:
            await fuzzer.play(min(every, count - fuzzer.outcome.requests))
            guest.received.clear()
            fuzzer.measure(service.pid)
            print(fuzzer.outcome, file=sys.stderr, flush=True)
        fuzzer.check_growth()
        fuzzer.check_log(service.log.read_text())
        return fuzzer.outcome


async def _few_rights(connect: Connect, token: str) -> str:
    """A token of a user who may do nothing."""

    async def post(path: str) -> Any:
        connection.send(
            f"POST /api2/json/access/{path} HTTP/1.1\r\nAuthorization: PVEAPIToken={token}\r\n\r\n".encode()
        )
        answer = await connection.answer()
        assert answer, path
        assert answer.status == 200, answer
        return json.loads(answer.body)["data"]

    async with connect() as connection:
        await post(f"users?userid={FEW_USER}")
        made = await post(f"users/{FEW_USER}/token/{TOKENID}?privsep=0")
        return f"{FEW_USER}!{TOKENID}={made['value']}"


def main() -> int:
    """Plays, prints, and says whether nothing was found."""
    parser = argparse.ArgumentParser(description="Requests at random, to a server.")
    parser.add_argument("count", nargs="?", type=int, default=10_000)
    parser.add_argument("seed", nargs="?", type=int, default=1)
    parser.add_argument("--tls", action="store_true", help="over sockets, to `guestwire serve`")
    given = parser.parse_args()
    run = fuzz_over_tls if given.tls else fuzz_in_process
    outcome = asyncio.run(run(given.count, given.seed))
    print(outcome, dict(sorted(outcome.statuses.items())), sep="\n")
    return bool(outcome.finds)


if __name__ == "__main__":
    sys.exit(main())
