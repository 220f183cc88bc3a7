"""A client that hides nothing: bytes as they are sent, and status, reason phrase, headers and bytes as they come back."""

import asyncio
import contextlib
import gzip
import json
import re
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from serving import Serving

NODE = "pve1"
LIMIT = 64 * 1024
ANSWERS_WITHIN = 30.0
CONTINUE = 100


def site(*vms: str, server: str = "") -> Callable[[Path, int], str]:
    """A configuration for `Serving.of`: its VMs, and more lines for `[server]`."""

    def config(folder: Path, port: int) -> str:
        head = f'[server]\nlisten = "127.0.0.1:{port}"\nnode = "{NODE}"\nstate_dir = "{folder}/state"\n{server}\n'
        return head + "".join(vms).replace("{folder}", str(folder))

    return config


def vm(vmid: int, name: str = "", *, running: str = "true") -> str:
    """A VM whose agent's socket is `VMID.qga` in the server's folder."""
    named = f'name = "{name}"\n' if name else ""
    return f'[[vm]]\nvmid = {vmid}\nagent = "unix:{{folder}}/{vmid}.qga"\nrunning = {running}\n{named}\n'


def agent(name: str = "", vmid: int = 100, form: str = "json") -> str:
    """The path of an endpoint below a VM's agent."""
    return f"/api2/{form}/nodes/{NODE}/qemu/{vmid}/agent/{name}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; names of headers in small letters."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        packed = self.headers.get("content-encoding") == "gzip"
        return json.loads(gzip.decompress(self.body) if packed else self.body)

    @property
    def data(self) -> Any:
        """The result of a call that succeeded."""
        assert self.status == 200, f"{self.status} {self.reason}"
        return self.json["data"]


class Connection:
    """One connection to a server, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Sends bytes, whatever they are."""
        self.writer.write(data)

    async def answer(self) -> Answer:
        """The next answer."""
        async with asyncio.timeout(ANSWERS_WITHIN):
            status, reason, headers = _head(await self.reader.readuntil(b"\r\n\r\n"))
            body = await self.reader.readexactly(0 if status == CONTINUE else int(headers["content-length"]))
        return Answer(status, reason, headers, body)

    async def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        async with asyncio.timeout(ANSWERS_WITHIN):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def drop(self) -> None:
        """Goes away without a word."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None, source: str | None = None) -> AsyncIterator[Connection]:
    """A connection, closed at the end; `source` is an address below 127, as another machine's."""
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=LIMIT, local_addr=local)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def _head(data: bytes) -> tuple[int, str, dict[str, str]]:
    line, *lines = data.decode("latin-1").rstrip().split("\r\n")
    found = re.fullmatch(r"HTTP/1\.[01] (\d{3}) ?([\x20-\x7e\xa0-\xff]*)", line)
    assert found, line
    pairs = (line.split(": ", 1) for line in lines)
    return int(found[1]), found[2], {name.lower(): value for name, value in pairs}


class Client:
    """Calls a server as its administrator."""

    def __init__(self, server: Serving, *, tls: bool = True) -> None:
        self.server = server
        self.tls = server.tls if tls else None
        self.authorization = f"Authorization: PVEAPIToken={server.token}"

    def connection(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        """A connection of its own."""
        return connected(self.server.port, self.tls)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Iterable[str] = (),
        version: str = "1.1",
    ) -> bytes:
        """A request's bytes."""
        length = [f"Content-Length: {len(body)}"] if body is not None else []
        lines = [f"{method} {path} HTTP/{version}", "Host: pve1", self.authorization, *length, *headers]
        return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + (body or b"")

    async def send(self, data: bytes) -> Answer:
        """A request's answer, on a connection of its own."""
        async with self.connection() as connection:
            connection.send(data)
            return await connection.answer()

    async def get(self, path: str, headers: Iterable[str] = (), **query: object) -> Answer:
        """GET, with a query."""
        return await self.send(self.request("GET", f"{path}?{urlencode(query)}" if query else path, None, headers))

    async def post(self, path: str, **parameters: object) -> Answer:
        """POST, with parameters as JSON."""
        body = json.dumps(parameters).encode()
        return await self.send(self.request("POST", path, body, ["Content-Type: application/json"]))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str


async def guestwire(*arguments: str) -> Ended:
    """Runs the command `guestwire` to its end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guestwire", *arguments, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(ANSWERS_WITHIN):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode or 0, output.decode(), errors.decode())


async def keeper_of(pid: int) -> int:
    """The process that takes out this one's ports when it is killed; any of its threads may have started it."""
    threads = await asyncio.to_thread(list, Path(f"/proc/{pid}/task").iterdir())
    (keeper,) = {int(child) for thread in threads for child in (thread / "children").read_text().split()}
    return keeper
