"""Connections of MCP over HTTP that say nothing, or too little, or are too many."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from calling import connected
from serving import free_port
from waiting import until

from guestwire.mcp import connections
from guestwire.mcp.connections import PER_ADDRESS, BoundedProtocol, most_connections

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(_scope: object, _receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"ok"})  # type: ignore[operator]


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A server whose patience is short, and whose keep-alive is not."""
    monkeypatch.setattr(connections, "REQUEST_WITHIN", 0.1)
    monkeypatch.setattr(BoundedProtocol, "most", 5 * PER_ADDRESS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=BoundedProtocol, log_level="error", timeout_keep_alive=600, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listener]))
        await until(lambda: server.started)
        yield int(listener.getsockname()[1])
        server.should_exit = True
        await serving


@pytest.mark.parametrize("said", [b"", b"G", REQUEST[:-2], REQUEST, REQUEST + REQUEST[:-2]])
async def test_a_connection_without_a_request_is_ended(port: int, said: bytes) -> None:
    async with connected(port, None) as connection:
        connection.send(said)
        rest = await connection.rest()

    assert rest.count(b"200 OK") == said.count(REQUEST)


async def test_a_connection_that_is_used_is_kept(port: int) -> None:
    async with connected(port, None) as connection:
        for _ in range(10):
            connection.send(REQUEST)
            assert (await connection.answer()).status == 200
            await asyncio.sleep(0.05)  # a client's own pace, longer than the server's patience in all


async def test_an_address_has_a_part_of_the_connections_and_others_are_served(port: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(connected(port, None))
        async with connected(port, None) as over:
            assert await over.rest() == b""
        async with connected(port, None, "127.0.0.2") as other:
            other.send(REQUEST)
            assert (await other.answer()).status == 200


def test_connections_are_as_many_as_there_are_descriptors_for() -> None:
    assert [most_connections(files) for files in (8, 1024, 1024 * 1024)] == [4, 796, 2000]


@pytest.mark.slow
async def test_more_connections_than_descriptors_keep_nobody_out_and_fill_no_log(folder: Path) -> None:
    words = ["-m", "guestwire", "--host", f"unix:{folder}/none.qga", "mcp", "--http", str(port := free_port())]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", 'ulimit -n 300 && exec "$@"', "sh", sys.executable, *words, "--bearer-file", str(folder / "bearer"),
            "--records", str(folder / "records"), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        await until(lambda: b"listening on" in (folder / "log").read_bytes(), 60)
        async with contextlib.AsyncExitStack() as stack:
            for number in range(600):
                await stack.enter_async_context(connected(port, None, f"127.0.0.{2 + number // 200}"))
            async with connected(port, None) as other:
                other.send(REQUEST)
                assert (await other.answer()).status
    finally:
        process.terminate()
        await process.wait()

    text = (folder / "log").read_text()
    assert "too many connections are open" in text
    assert text.count("\n") < 10, text
