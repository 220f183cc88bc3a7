"""`python -m bench.strangers [SECONDS]`: what strangers without a login do to a server, and what others notice of it.

A server with one guest is pinged over HTTPS by one who may, while strangers send forms of 95,000 keys, hold connections
that say nothing, begin no TLS handshake, or connect and leave. Prints the pings' latencies, and what the server took.
"""

import asyncio
import contextlib
import multiprocessing
import re
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from bench.timing import Samples
from guestwire.testing import FakeGuest

SECONDS: Final = 5.0
MANY: Final = "&".join(f"k{number}" for number in range(95_000)).encode()
CONFIG: Final = """\
[server]
listen = "127.0.0.1:{port}"
node = "pve1"
state_dir = "{folder}/state"
[[vm]]
vmid = 100
agent = "unix:{folder}/100.qga"
"""

Attack = Callable[[int, ssl.SSLContext], Awaitable[None]]


async def forms(port: int, tls: ssl.SSLContext) -> None:
    """Logins of 95,000 keys, one after the other."""
    head = "POST /api2/json/access/ticket HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n"
    for body in (MANY[: 512 * 1024], MANY[: 16 * 1024]):
        async with connection(port, tls) as (reader, writer):
            writer.write(head.format(len(body)).encode() + body)
            await reader.read(64 * 1024)


async def idle(port: int, tls: ssl.SSLContext) -> None:
    """Connections without a request, as many as there can be."""
    await _hold(port, tls)


async def bare(port: int, _tls: ssl.SSLContext) -> None:
    """Connections without a handshake."""
    await _hold(port, None)


async def leaving(port: int, _tls: ssl.SSLContext) -> None:
    """Connections that end at once."""
    for _ in range(100):
        async with connection(port, None):
            pass


async def _hold(port: int, tls: ssl.SSLContext | None) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            with contextlib.suppress(OSError):
                await stack.enter_async_context(connection(port, tls))
        await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def connection(
    port: int, tls: ssl.SSLContext | None, source: str = "127.0.0.2"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of another address than that of the one who may."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def attack_for_ever(name: str, port: int, certificate: str) -> None:
    """In a process of its own: eight strangers at once, so that they take no part of the pings' interpreter."""
    tls = ssl.create_default_context(cafile=certificate)

    async def again() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await ATTACKS[name](port, tls)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(again() for _ in range(8)))

    asyncio.run(all_of_them())


ATTACKS: Final[dict[str, Attack]] = {"forms": forms, "idle": idle, "bare": bare, "leaving": leaving}


async def ping(port: int, tls: ssl.SSLContext, token: str, seconds: float) -> tuple[Samples, int]:
    """Milliseconds of a new connection with one ping each; and how many were refused."""
    request = f"POST /api2/json/nodes/pve1/qemu/100/agent/ping HTTP/1.1\r\nAuthorization: PVEAPIToken={token}\r\n\r\n"
    values, refused, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        try:
            async with connection(port, tls, "127.0.0.1") as (reader, writer):
                writer.write(request.encode())
                refused += b" 200 OK" not in await reader.readline()
        except OSError:
            refused += 1
        values.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.01)
    return Samples(values), refused


def report(folder: Path, pid: int, name: str, samples: Samples, refused: int) -> str:
    """One line about an attack."""
    memory = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024
    log = (folder / "log").stat().st_size / 1024
    return (
        f"{name:8} connection and ping: p50 {samples.median:6.1f}, p99 {samples.p99:6.1f}, longest {samples.longest:6.1f} ms;"
        f" refused {refused}; server {memory:.0f} MiB, its log {log:.0f} KiB"
    )


async def run(seconds: float) -> None:
    """All attacks, one after the other, on one server."""
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        folder, port = Path(name), 18006
        (folder / "config.toml").write_text(CONFIG.format(port=port, folder=folder))
        with (folder / "log").open("wb") as log:
            server = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "guestwire", "serve", "--config", str(folder / "config.toml"), stderr=log
            )
        certificate = str(folder / "state" / "server.pem")
        try:
            async with FakeGuest(folder / "100.qga"):
                await asyncio.to_thread(wait_for, folder / "log")
                tls = ssl.create_default_context(cafile=certificate)
                token = (folder / "state" / "admin-token").read_text().strip()
                for attack in ("nothing", *ATTACKS, "nothing"):
                    attackers = multiprocessing.get_context("spawn").Process(
                        target=attack_for_ever, args=(attack, port, certificate)
                    )
                    if attack in ATTACKS:
                        attackers.start()
                        await asyncio.sleep(1)
                    print(report(folder, server.pid, attack, *await ping(port, tls, token, seconds)), flush=True)
                    if attack in ATTACKS:
                        attackers.kill()
                        attackers.join()
        finally:
            server.terminate()
            await server.wait()


def wait_for(log: Path) -> None:
    """Returns when the server serves."""
    for _ in range(400):
        if b" serves " in log.read_bytes():
            return
        time.sleep(0.05)
    raise TimeoutError(log.read_text())


if __name__ == "__main__":
    asyncio.run(run(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
