"""Agents behind vsock: QEMU's, and the UNIX socket of Cloud Hypervisor and Firecracker."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from calling import Client, agent, guestwire, site
from forwarding import PORT, hybrid_vsock
from serving import Serving

from guestwire.addresses import (
    AgentAddress,
    HybridVsockAddress,
    UnixAddress,
    VsockAddress,
    is_agent_address,
    parse_agent_address,
)
from guestwire.agent.commands import PING
from guestwire.channels import open_channel
from guestwire.errors import AgentNotRunning
from guestwire.testing import FakeGuest, SandboxedAgent


@pytest.mark.parametrize(
    ("text", "address", "name"),
    [
        ("unix:/run/vm/web.qga", UnixAddress(Path("/run/vm/web.qga")), "web"),
        ("unix:/run/web.qga?qmp=/run/a?qmp=b", UnixAddress(Path("/run/web.qga"), Path("/run/a?qmp=b")), "web"),
        ("vsock:3:1024", VsockAddress(3, 1024), "vsock-3"),
        ("hybrid-vsock:/run/fc/web.vsock:1024", HybridVsockAddress(Path("/run/fc/web.vsock"), 1024), "web"),
        ("hybrid-vsock:/run/a:b:7", HybridVsockAddress(Path("/run/a:b"), 7), "a:b"),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: AgentAddress, name: str) -> None:
    assert parse_agent_address(text) == address
    assert (str(address), address.name) == (text, name)
    assert is_agent_address(text)


@pytest.mark.parametrize(
    "text",
    ["unix:", "unix:/a\0b", "unix:/a?qmp=", "unix:/a?qmp=/b\0", "unix:?qmp=/a", "vsock:", "vsock:0:1", "vsock:3", "vsock:3:x", "vsock:3:4294967295", "vsock:99999999999:1",
     "hybrid-vsock:/run/a", "hybrid-vsock::1", "hybrid-vsock:/run/a:", "https://pve1:8006", "pve1"],
)  # fmt: skip
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_agent_address(text) is None


@pytest.mark.agent
async def test_the_command_line_and_a_server_reach_an_agent_behind_a_hybrid_vsock(agent: SandboxedAgent) -> None:
    async with hybrid_vsock(agent.socket) as path:
        direct = await guestwire("--host", f"hybrid-vsock:{path}:{PORT}", "exec", path.stem, "--", "echo", "here")

        assert (direct.code, direct.output) == (0, "here\n")

        vm = f'[[vm]]\nvmid = 100\nagent = "hybrid-vsock:{path}:{PORT}"\n'
        async with Serving.of(site(vm)) as server:
            assert (await Client(server).post(AGENT_PING)).data == {"result": {}}


AGENT_PING = agent("ping")


@contextlib.asynccontextmanager
async def listening(path: Path, answer: bytes) -> AsyncIterator[None]:
    """A UNIX socket that says one thing to each, and hangs up."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(say, path)
    try:
        yield
    finally:
        server.close()


async def why_not(address: AgentAddress) -> str:
    channel = open_channel(address, "VM 100")
    try:
        with pytest.raises(AgentNotRunning) as caught:
            await channel.execute(PING.command)
        return caught.value.why
    finally:
        await channel.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "nobody listens on this port of the guest"),
        (b"SSH-2.0-OpenSSH_9.2" * 9, "this is no hybrid vsock: it answers b'SSH-2.0-OpenSSH_'"),
        (b"NO 1\n", "port refused: b'NO 1'"),
    ],
)
async def test_what_is_behind_a_hybrid_vsock_and_no_agent_is_said(tmp_path: Path, answer: bytes, why: str) -> None:
    async with listening(tmp_path / "v.sock", answer):
        assert why in await why_not(HybridVsockAddress(tmp_path / "v.sock", 7))


async def test_a_port_without_a_listener_is_said(guest: FakeGuest) -> None:
    async with hybrid_vsock(guest.path) as path:
        assert "nobody listens on this port" in await why_not(HybridVsockAddress(path, PORT + 1))


LOOPBACK = 1


def listens_on_vsock() -> bool:
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK, PORT))
            probe.listen()
            with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as other:
                other.settimeout(1)
                other.connect((LOOPBACK, PORT))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not listens_on_vsock(), reason="this kernel has no vsock that leads back to it")
async def test_an_agent_on_vsock_answers(guest: FakeGuest) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(guest.path)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((LOOPBACK, PORT))
    server = await asyncio.start_server(forward, sock=listener)
    channel = open_channel(VsockAddress(LOOPBACK, PORT), "VM 100")
    try:
        assert await channel.execute(PING.command) == b"{}"
    finally:
        await channel.close()
        server.close()


async def test_without_vsock_it_is_said_that_there_is_none() -> None:
    assert await why_not(VsockAddress(2**31, 1))


async def test_without_vsock_uvloop_says_so_too() -> None:
    def run() -> str:
        return uvloop.run(why_not(VsockAddress(2**31, 1)))

    assert await asyncio.to_thread(run)
