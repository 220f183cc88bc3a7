"""A guest's SSH host keys: read through its agent, written as OpenSSH wants them, and nothing else that a guest may say."""

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devtools.guests import Machine
from guestwire import Guest, connect
from guestwire.cli.host_keys import FILES, NoHostKeys, read_host_keys, write_known_hosts
from guestwire.testing import FakeGuest

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB"

LARGE = 64 * 1024 * 1024
"""Bytes; a guest may go on for ever."""


@pytest.fixture
async def faked(guest: FakeGuest) -> AsyncIterator[Guest]:
    async with await connect(f"unix:{guest.path}") as host:
        yield await host.guest("web")


@pytest.mark.guest
async def test_openssh_finds_the_keys_of_a_real_guest(debian: Machine, tmp_path: Path) -> None:
    async with await connect(f"unix:{debian.agent_socket}") as host:
        guest = await host.guest("debian")
        await write_known_hosts(guest, "web.guest", tmp_path / "new" / "known_hosts")

    path = tmp_path / "new" / "known_hosts"
    process = await asyncio.create_subprocess_exec(
        "ssh-keygen", "-F", "web.guest", "-f", str(path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    own = (await debian.shell("cat /etc/ssh/ssh_host_ed25519_key.pub")).split()[1]
    assert process.returncode == 0
    assert f"web.guest ssh-ed25519 {own}" in output.decode().splitlines()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["known_hosts"]


@pytest.mark.guest
async def test_a_real_guest_without_an_ssh_server_is_said_to_have_none(machine: Machine) -> None:
    async with await connect(f"unix:{machine.agent_socket}") as host:
        with pytest.raises(NoHostKeys, match="no SSH host keys in /etc/ssh; install an SSH server in the guest"):
            await read_host_keys(await host.guest("web"))


async def test_only_kind_and_key_of_a_line_are_taken(guest: FakeGuest, faked: Guest) -> None:
    guest.files[FILES[0]] = bytearray(f"{KEY} root@guest\nevil.example ssh-rsa AAAAB3\n".encode())
    guest.files[FILES[1]] = bytearray(b"@cert-authority * ssh-rsa AAAAB3Nz\n")

    assert await read_host_keys(faked) == [KEY]


async def test_a_file_without_end_is_read_to_a_bound(guest: FakeGuest, faked: Guest) -> None:
    guest.files[FILES[0]] = bytearray(LARGE)

    with pytest.raises(NoHostKeys):
        await read_host_keys(faked)
    asked_for = [one["arguments"]["count"] for one in guest.received if one["execute"] == "guest-file-read"]
    assert 0 < sum(asked_for) < LARGE / 2, "reads that were sent ahead, and no more"
