"""What systemd is told: READY=1, RELOADING=1, STOPPING=1, as sd_notify(3) has them."""

import asyncio
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from calling import Client, site, vm
from serving import Serving
from waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(params=["a path", "an abstract name"])
def address(request: pytest.FixtureRequest, folder: Path) -> str:
    """As systemd writes it into NOTIFY_SOCKET."""
    return str(folder / "notify") if request.param == "a path" else f"@guestwire-{secrets.token_hex(8)}"


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.settimeout(0)
        yield listener


@pytest.fixture
async def server(systemd: socket.socket, address: str) -> AsyncIterator[Serving]:
    assert systemd.fileno() >= 0
    async with Serving.of(site(vm(100)), {"NOTIFY_SOCKET": address}) as server:
        yield server


async def told(systemd: socket.socket) -> str:
    """The first line of the next message."""
    async with asyncio.timeout(10):
        message = await asyncio.get_running_loop().sock_recv(systemd, 4096)
    return message.decode().partition("\n")[0]


async def test_it_is_told_of_readiness_reload_and_end(systemd: socket.socket, server: Serving) -> None:
    assert await told(systemd) == "READY=1"

    server.signal(signal.SIGHUP)
    assert [await told(systemd), await told(systemd)] == ["RELOADING=1", "READY=1"]

    await server.stop()
    assert await told(systemd) == "STOPPING=1"
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)


async def test_it_is_ready_only_when_calls_are_answered(systemd: socket.socket, server: Serving) -> None:
    assert await told(systemd) == "READY=1"

    assert (await Client(server).get("/api2/json/version")).status == 200


@pytest.mark.parametrize("address", ["nobody-listens", "vsock:2:1", "x" * 200])
async def test_where_nobody_listens_the_service_goes_on_without(folder: Path, address: str) -> None:
    async with Serving.of(site(vm(100)), {"NOTIFY_SOCKET": str(folder / address)}) as server:
        server.signal(signal.SIGHUP)
        await until(lambda: "reloaded: 1 VM\n" in server.log)

        assert (await Client(server).get("/api2/json/version")).status == 200
