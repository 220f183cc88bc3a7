"""Connections: how many there are at most, and what is left of one that has ended."""

import asyncio
import contextlib
import gc
import re
import resource
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import cast

import pytest
from calling import Client, Connection, connected, site
from persons import SECRET, authorization
from serving import Serving
from waiting import until

from guestwire.access.authentication import secret_hash
from guestwire.access.control import Access
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.dispatch.stranger_limiter import PER_ADDRESS
from guestwire.inventory import Inventory
from guestwire.server import Certificate, Gateway, Listener, listener
from guestwire.server.certificate_maker import ensure_certificate
from guestwire.server.connection_limits import ConnectionLimits
from guestwire.stores import MemoryStore, Token, User

REQUEST = b"GET /api2/json/version HTTP/1.1\r\n\r\n"


LOGGED_IN = REQUEST.replace(b"\r\n\r\n", f"\r\n{authorization('ann@pve')}\r\n\r\n".encode())


@contextlib.asynccontextmanager
async def listening(most: int = 100, tls: ssl.SSLContext | None = None, *proxies: str) -> AsyncIterator[int]:
    """The port of a server in this process, with one user, ann, and no VMs."""
    store = MemoryStore([User("ann@pve"), Token("ann@pve", "tok", secret_hash(SECRET))])
    inventory, writer = Inventory("pve1"), AuditWriter(store)
    gateway = Gateway(inventory, Access(store), AuditRecorder(writer))
    server = Listener(gateway, "127.0.0.1", 0, tls, most=most, proxies=map(ip_network, proxies))
    try:
        await server.bind()
        yield server.start()
    finally:
        await server.stop()
        await writer.close()
        await inventory.close()


async def is_answered(connection: Connection) -> bool:
    connection.send(REQUEST)
    return b" 401 No ticket\r\n" in await connection.reader.readline()


async def is_refused(port: int, address: str = "127.0.0.1") -> bool:
    async with connected(port, None, address) as connection:
        connection.send(REQUEST)
        return await connection.rest() == b""


async def test_a_network_has_a_part_of_the_connections_and_others_are_served(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(8) as port, connected(port, None) as first:
        assert await is_answered(first)
        async with connected(port, None) as second:
            assert await is_answered(second)
            for _ in range(PER_ADDRESS * 2):
                assert await is_refused(port)
            async with connected(port, None, "127.0.0.2") as other:
                assert await is_answered(other)

        async def another_is_answered() -> bool:
            async with connected(port, None) as another:
                return await is_answered(another)

        async with asyncio.timeout(10):
            while not await another_is_answered():
                await asyncio.sleep(0.01)

    refused = caplog.text.count("connection refused: 2 connections of its network are open")
    assert 0 < refused < PER_ADDRESS
    more = re.search(r"(\d+) more connections and requests without a login, from 127.0.0.1 \(\1\)", caplog.text)
    assert more
    assert int(more[1]) >= PER_ADDRESS * 2 - refused


async def test_a_trusted_proxy_has_as_many_connections_as_there_are() -> None:
    async with listening(4, None, "127.0.0.0/30") as port, contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            assert await is_answered(await stack.enter_async_context(connected(port, None)))


async def test_strangers_make_room_when_all_places_are_taken_and_who_has_logged_in_does_not() -> None:
    async with listening(4) as port, contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(connected(port, None, "127.0.0.2"))
        first.send(LOGGED_IN)
        assert (await first.answer()).status == 200
        silent = [await stack.enter_async_context(connected(port, None, f"127.0.0.{n}")) for n in (3, 4, 5)]
        for address in ("127.0.0.6", "127.0.0.7"):
            newcomer = await stack.enter_async_context(connected(port, None, address))
            assert await is_answered(newcomer)

        assert [await one.rest() for one in silent[:2]] == [b"", b""]
        for one in (silent[2], first):
            one.send(LOGGED_IN)
            assert (await one.answer()).status == 200


async def test_connections_that_begin_no_handshake_count_and_a_login_finds_a_place(folder: Path) -> None:
    ensure_certificate(folder, "pve1", "127.0.0.1")
    tls = Certificate.in_folder(folder).context()
    trusted = ssl.create_default_context(cafile=str(folder / "server.pem"))
    async with listening(8, tls) as port, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(port, None, f"127.0.0.{n // 2 + 2}")) for n in range(8)]
        assert await is_refused(port, "127.0.0.2")
        client = await stack.enter_async_context(connected(port, trusted))
        client.send(LOGGED_IN)

        assert (await client.answer()).status == 200
        assert await silent[0].rest() == b""


async def test_a_burst_of_more_than_there_are_places_leaves_nothing_of_those_that_made_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They may have been accepted in the same turn of the loop as the one that took their place."""
    seen: list[listener._Connection] = []

    class Seen(listener._Connection):
        def connect(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
            super().connect(sock, tls)
            seen.append(self)

    monkeypatch.setattr(listener, "_Connection", Seen)
    async with listening(4) as port:
        sockets = [socket.socket() for _ in range(40)]
        for number, sock in enumerate(sockets):
            sock.bind((f"127.0.0.{number + 2}", 0))
            sock.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", port))
        await until(lambda: len(seen) == len(sockets))
        await until(lambda: sum(not one.closed.done() for one in seen) == 4)
        for sock in sockets:
            sock.close()
        await until(lambda: all(one.closed.done() for one in seen))


@pytest.mark.parametrize(
    ("request_line", "host", "status", "location"),
    [
        (b"GET /api2/json/version?a=b", b"pve1:8006", 301, "https://pve1:8006/api2/json/version?a=b"),
        (b"POST /", b"[2001:db8::1]:8006", 301, "https://[2001:db8::1]:8006/"),
        (b"GET /", b"", 400, None),
        (b"GET /", b"evil.example/@pve1", 400, None),
        (b"GET http://other.example/", b"pve1", 400, None),
    ],
)
async def test_plain_http_where_tls_is_expected_is_told_where_to_go(
    folder: Path, request_line: bytes, host: bytes, status: int, location: str | None
) -> None:
    ensure_certificate(folder, "pve1", "127.0.0.1")
    async with listening(8, Certificate.in_folder(folder).context()) as port, connected(port, None) as client:
        client.send(request_line + b" HTTP/1.1\r\nHost: " + host + b"\r\nAuthorization: x\r\n\r\n")
        answer = await client.answer()

        assert (answer.status, answer.headers.get("location")) == (status, location)
        assert answer.reason == ("Moved Permanently" if location else "this port speaks HTTPS")
        assert await client.rest() == b""


async def test_clients_that_leave_or_stay_silent_before_their_first_byte_leave_nothing(folder: Path) -> None:
    ensure_certificate(folder, "pve1", "127.0.0.1")
    trusted = ssl.create_default_context(cafile=str(folder / "server.pem"))
    async with listening(8, Certificate.in_folder(folder).context()) as port:
        for _ in range(20):
            async with connected(port, None) as client:
                client.drop()
        async with connected(port, None) as silent:  # it is still there when the server stops
            async with connected(port, trusted) as client:
                client.send(LOGGED_IN)
                assert (await client.answer()).status == 200
            assert not silent.reader.at_eof()


PROXIES = ConnectionLimits(10, [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "198.51.100.1", "192.0.2.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1, x", "10.0.0.1"),
        ("10.0.0.1", "x, 198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "2001:db9::1", "2001:db9::1"),
        ("2001:db8::1%eth0", " ::ffff:198.51.100.1", "198.51.100.1"),
    ],
)
def test_a_client_behind_trusted_proxies_is_whom_the_last_of_them_saw(peer: str, forwarded: str, client: str) -> None:
    assert PROXIES.client(peer, forwarded) == client


class Silent:
    """A connection."""

    is_idle = True

    def __init__(self, address: str) -> None:
        self.address = address

    def abort(self) -> None:
        """Its limits need no more."""


def test_an_ipv6_network_is_one_client_and_what_has_ended_is_forgotten() -> None:
    limits = ConnectionLimits(8)
    places = [Silent("2001:db8::1"), Silent("2001:db8::2")]
    for place in places:
        assert limits.refusal(place.address) == ""
        limits.add(place)

    assert limits.refusal("2001:db8::ffff") == "2 connections of its network are open"
    assert limits.refusal("2001:db8:0:1::1") == ""
    for place in places * 2:
        limits.remove(place)
    assert limits.refusal("2001:db8::ffff") == ""
    assert not limits._networks


@contextlib.contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """A process that can open nothing."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
async def test_a_server_without_descriptors_says_so_and_answers_when_it_has_some() -> None:
    async with Serving.of(site(server="tls = false")) as server:
        client = Client(server, tls=False)
        with without_descriptors(server.process.pid):
            answer = asyncio.create_task(client.get("/api2/json/version"))
            await until(lambda: "no connection can be accepted: Too many open files" in server.log)
            assert not answer.done()

        assert (await answer).status == 200


async def test_nothing_is_left_of_a_connection_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[asyncio.Protocol]] = []

    class Seen(listener._Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            seen.append(weakref.ref(self))

    monkeypatch.setattr(listener, "_Connection", Seen)

    def all_are_gone() -> bool:
        gc.collect()
        return all(ref() is None for ref in seen)

    async with listening() as port:
        for ask in (False, True):
            async with connected(port, None) as connection:
                assert not ask or await is_answered(connection)
                await until(lambda: bool(seen))
        await until(all_are_gone)

    assert len(seen) == 2


async def test_all_that_is_sent_ahead_is_answered() -> None:
    """More than is kept: reading goes on when there is room again."""
    padded = REQUEST.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 8000 + b"\r\n\r\n")
    async with listening() as port, connected(port, None) as connection, asyncio.timeout(20):
        connection.send(padded * 400)
        for _ in range(400):
            assert b" 401 No ticket\r\n" in await connection.reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (REQUEST, 1),
        (REQUEST * 3, 3),
        (LOGGED_IN.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\na=b"), 1),
        (LOGGED_IN + REQUEST[:-2], 1),
        (REQUEST[:-2], 0),
    ],
)
async def test_a_client_that_closes_its_side_gets_its_answers(sent: bytes, answers: int) -> None:
    async with listening() as port, Serving.of(site(server="tls = false")) as server:
        for here in (port, server.port):
            for _ in range(20):
                async with connected(here, None) as connection:
                    connection.send(sent)
                    connection.writer.write_eof()
                    async with asyncio.timeout(10):
                        assert (await connection.reader.read()).count(b"HTTP/1.1 ") == answers


async def test_a_client_that_left_leaves_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def never_answers(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set_result("cancelled")
            raise

    monkeypatch.setattr(Gateway, "__call__", never_answers)
    async with listening() as port:
        async with connected(port, None) as connection:
            connection.send(REQUEST)
        async with asyncio.timeout(10):
            assert await ended == "cancelled"


async def test_a_client_that_takes_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep its place among the connections for ever."""
    monkeypatch.setattr(listener, "TAKEN_WITHIN", 0.05)
    lost = asyncio.Event()

    class Seen(listener._Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            cast("asyncio.Transport", transport).set_write_buffer_limits(1)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    monkeypatch.setattr(listener, "_Connection", Seen)
    async with listening() as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(0)
            async with asyncio.timeout(20):
                while not lost.is_set():
                    with contextlib.suppress(BlockingIOError, ConnectionError):
                        client.send(REQUEST * 1000)
                    await asyncio.sleep(0.001)
