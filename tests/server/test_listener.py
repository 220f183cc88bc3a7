"""Connections: how many there are at most, and what is left of one that has ended."""

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncIterator
from typing import cast

import pytest
from calling import Connection, connected
from waiting import until

from guestwire.access.control import Access
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.inventory import Inventory
from guestwire.server import Gateway, Listener, listener
from guestwire.stores import MemoryStore

REQUEST = b"GET /api2/json/version HTTP/1.1\r\n\r\n"


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """The port of a server in this process, without TLS, users and VMs."""
    store = MemoryStore([])
    inventory, writer = Inventory("pve1"), AuditWriter(store)
    server = Listener(Gateway(inventory, Access(store), AuditRecorder(writer)), "127.0.0.1", 0, None)
    try:
        yield await server.start()
    finally:
        await server.stop()
        await writer.close()
        await inventory.close()


async def is_answered(connection: Connection) -> bool:
    connection.send(REQUEST)
    return b" 401 No ticket\r\n" in await connection.reader.readline()


async def test_connections_over_the_limit_end_at_once_until_others_have_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 2)
    async with listening() as port, connected(port, None) as first:
        assert await is_answered(first)
        async with connected(port, None) as second:
            assert await is_answered(second)
            for _ in range(3):
                async with connected(port, None) as third:
                    assert await third.rest() == b""

        async def another_is_answered() -> bool:
            async with connected(port, None) as another:
                return await is_answered(another)

        async with asyncio.timeout(10):
            while not await another_is_answered():
                await asyncio.sleep(0.01)

    assert caplog.text.count("2 connections are open: no more are taken") == 1


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
