"""The real command `guestwire mcp --http`, and the SDK's client for it."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from assistants import Assistant
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from serving import free_port

ENDS_WITHIN = 15


@dataclass
class Listening:
    """The command `guestwire mcp --http`, that listens."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def bearer(self) -> str:
        return (self.folder / "bearer").read_text().strip()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def headers(self, token: str = "") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.bearer}"} | ({"X-PVE-Token": token} if token else {})

    @asynccontextmanager
    async def client(self, token: str = "", **client: Any) -> AsyncIterator[Assistant]:
        """The SDK's client, of somebody with this token."""
        async with (
            httpx2.AsyncClient(headers=self.headers(token), timeout=60) as http,
            Client(streamable_http_client(self.url, http_client=http), **client) as connected,
        ):
            yield Assistant(connected, self.folder / "records.jsonl")

    async def post(self, headers: dict[str, str], content: bytes = b"{}") -> httpx2.Response:
        given = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"} | headers
        async with httpx2.AsyncClient(timeout=60) as http:
            return await http.post(self.url, headers=given, content=content)


@asynccontextmanager
async def listening(options: list[str], *more: str) -> AsyncIterator[Listening]:
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        folder, port = Path(name), free_port()
        words = ["--http", str(port), "--bearer-file", f"{folder}/bearer", "--records", f"{folder}/records.jsonl"]
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "guestwire", *options, "mcp", *words, *more, stdout=log, stderr=log
            )
        server = Listening(folder, port, process)
        try:
            await accepts(server)
            yield server
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(ENDS_WITHIN):
                await process.wait()


async def accepts(server: Listening) -> None:
    async with asyncio.timeout(20):
        while True:
            assert server.process.returncode is None, server.log
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
