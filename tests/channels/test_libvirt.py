"""Agents through libvirt: a real daemon, real QEMU, and real agents behind the domains' channels."""

import asyncio
import binascii
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from waiting import until_succeeds

from devtools.libvirt_host import LibvirtHost
from guestwire.agent import commands as qga
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.agent.results import ProcessStatus
from guestwire.channels import ChannelState
from guestwire.channels.libvirt import LIMITS, READ_ONLY, Libvirt, LibvirtChannel
from guestwire.errors import AgentError, AgentNotRunning, CommandFailed, GuestError
from guestwire.testing import SandboxedAgent, channel_checks
from guestwire.testing.channels import ChannelCheck
from guestwire.wire import Command

if TYPE_CHECKING:
    from devtools.guests import GuestImage

pytestmark = [pytest.mark.agent, pytest.mark.guest]


@pytest.fixture
async def libvirt(libvirt_host: LibvirtHost) -> AsyncIterator[Libvirt]:
    libvirt = Libvirt(libvirt_host.uri)
    yield libvirt
    libvirt.close()


@pytest.fixture
async def web(
    libvirt: Libvirt,
    libvirt_host: LibvirtHost,
    libvirt_web: SandboxedAgent,  # noqa: ARG001  # its domain
) -> AsyncIterator[LibvirtChannel]:
    channel = LibvirtChannel(libvirt, libvirt_host.uuid("web"), "VM 100")
    await until_succeeds(lambda: channel.execute(qga.PING.command))
    yield channel
    await channel.close()


@pytest.mark.parametrize("check", channel_checks(), ids=lambda check: check.__name__)
async def test_a_libvirt_channel_passes_the_checks(
    check: ChannelCheck, libvirt: Libvirt, libvirt_host: LibvirtHost, libvirt_web: SandboxedAgent
) -> None:
    await check(lambda: LibvirtChannel(libvirt, libvirt_host.uuid("web"), "VM 100"), libvirt_web)


# What libvirt does not carry


@pytest.fixture
async def typed(web: LibvirtChannel) -> AsyncIterator[GuestAgent]:
    agent = GuestAgent(web, "VM 100", ExitStatusCache())
    yield agent
    await agent.close()


async def finish(agent: GuestAgent, *command: str, input_data: bytes | None = None) -> ProcessStatus:
    pid = await agent.processes.start(command, input_data)
    async with asyncio.timeout(60):
        while not (status := await agent.processes.status(pid)).exited:
            await asyncio.sleep(0.01)
    assert await agent.processes.status(pid) == status  # once more
    return status


async def test_a_command_that_would_hang_libvirt_is_refused_before_it_is_sent(
    web: LibvirtChannel, libvirt_web: SandboxedAgent
) -> None:
    before = libvirt_web.bytes_read()

    for arguments in ({"handle": 1, "buf-b64": bytes(160_000)}, {"path": "x", "arg": ["y" * 100_000]}):
        with pytest.raises(GuestError, match=f"libvirt carries commands of {LIMITS.command} bytes at most"):
            await web.execute(Command("guest-file-write"), arguments)
    with pytest.raises(GuestError, match="reads of"):
        await web.execute(qga.FILE_READ.command, {"handle": 1, "count": 16 * 1024 * 1024})

    assert libvirt_web.bytes_read() == before
    assert await web.execute(qga.PING.command)


async def test_files_of_any_size_are_written_and_read(typed: GuestAgent, libvirt_web: SandboxedAgent) -> None:
    content = bytes(range(256)) * 3000

    await typed.files.write("/root/large", content)
    assert (libvirt_web.home / "large").read_bytes() == content
    found = await typed.files.read("/root/large", count=len(content) + 1)
    assert (b"".join(found.pieces), found.truncated) == (content, False)

    encoded = binascii.b2a_base64(content, newline=False).decode()
    await typed.files.write_encoded("/root/encoded", encoded)
    assert (libvirt_web.home / "encoded").read_bytes() == content
    with pytest.raises(AgentError, match="could not be decoded"):
        await typed.files.write_encoded("/root/encoded", "*" * len(encoded))


async def test_a_process_ends_as_it_does_without_libvirt(typed: GuestAgent) -> None:
    plain = await finish(typed, "sh", "-c", "cat; echo err >&2; umask; exit 3", input_data=b"in\n")
    killed = await finish(typed, "sh", "-c", "echo $$; kill -9 $$")

    assert (plain.exitcode, plain.signal, plain.out_data, plain.err_data) == (3, None, b"in\n0022\n", b"err\n")
    assert (killed.exitcode, killed.signal) == (None, 9)
    assert (await finish(typed, "true")) == ProcessStatus(exited=True, exitcode=0)
    await no_output_files_are_left(typed)


async def no_output_files_are_left(agent: GuestAgent) -> None:
    """The second shell removes them as its last work, after it gave what they held."""
    async with asyncio.timeout(5):
        while True:
            listed = await finish(agent, "sh", "-c", 'ls -d /tmp/guestwire-* | grep -v "guestwire-$$\\$"')
            if not listed.out_data:
                return


@pytest.mark.parametrize("mebibytes", [1, 5, 12, 20])
async def test_output_that_would_end_libvirts_agent_for_everybody_arrives(typed: GuestAgent, mebibytes: int) -> None:
    status = await finish(typed, "sh", "-c", f"head -c {mebibytes}M /dev/zero; echo err >&2")

    kept = min(mebibytes, 16) * 1024 * 1024
    assert (status.exitcode, status.out_data, status.err_data) == (0, bytes(kept), b"err\n")
    assert status.out_truncated == (True if mebibytes > 16 else None)
    await no_output_files_are_left(typed)
    assert await typed.execute(qga.PING) is not None


async def test_a_process_of_another_client_is_not_asked_for(typed: GuestAgent, web: LibvirtChannel) -> None:
    """Nothing says how much it has written: its answer might end libvirt's agent."""
    command = {"path": "head", "arg": ["-c", "12M", "/dev/zero"], "capture-output": True}
    pid = msgspec.json.decode(await web.execute(qga.EXEC.command, command))["pid"]

    with pytest.raises(AgentError, match=f"PID {pid} does not exist, or was not started by guestwire"):
        await typed.processes.status(pid)


async def test_one_that_an_earlier_guestwire_started_is_found(typed: GuestAgent, web: LibvirtChannel) -> None:
    pid = await typed.processes.start(["sh", "-c", "echo late"])
    later = GuestAgent(web, "VM 100", ExitStatusCache())

    await until_succeeds(lambda: later.processes.status(pid))
    while not (status := await later.processes.status(pid)).exited:
        await asyncio.sleep(0.01)

    assert status.out_data == b"late\n"


@pytest.mark.parametrize(
    ("program", "why"), [("no-such", "No such file or directory"), ("/etc/passwd", "Permission denied")]
)
async def test_a_program_that_can_not_be_started_is_an_error_as_the_agents_own(
    typed: GuestAgent, program: str, why: str
) -> None:
    with pytest.raises(AgentError, match=rf"Failed to execute child process “{program}” \({why}\)"):
        await finish(typed, program)


async def test_a_freeze_by_libvirts_own_call_is_what_the_agents_is(
    libvirt: Libvirt, libvirt_host: LibvirtHost, image: "GuestImage", folder: Path
) -> None:
    disk = folder / "data"
    with disk.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    made = await asyncio.create_subprocess_exec("mkfs.ext4", "-q", "-F", str(disk), env=os.environ | {"PATH": path})
    assert await made.wait() == 0
    listed = Command("guest-fsfreeze-freeze-list", timeout=60)
    async with libvirt_host.domain("frozen", image, disk=disk) as domain:
        channel = LibvirtChannel(libvirt, libvirt_host.uuid("frozen"), "VM 100")
        agent = GuestAgent(channel, "VM 100", ExitStatusCache())
        try:
            await until_succeeds(lambda: channel.execute(qga.PING.command), within=60)
            for freeze in (
                agent.execute(qga.FSFREEZE_FREEZE),
                agent.execute_raw(listed, {"mountpoints": ["/mnt/data"]}),
                asyncio.to_thread(domain.fsFreeze),
            ):
                assert await freeze == 1
                assert await agent.execute(qga.FSFREEZE_STATUS) == "frozen"
                with pytest.raises(AgentError, match="has been disabled: the agent is in frozen state"):
                    await agent.execute(qga.FSFREEZE_FREEZE)
                assert await agent.execute(qga.FSFREEZE_THAW) == 1
                assert await agent.execute(qga.FSFREEZE_STATUS) == "thawed"
            assert await agent.execute_raw(listed, {"mountpoints": []}) == 0
            assert await agent.execute(qga.FSFREEZE_THAW) == 0
        finally:
            await agent.close()
            await channel.close()


# What happens to libvirt


@pytest.mark.usefixtures("libvirt_web")
async def test_a_read_only_connection_says_so(libvirt_host: LibvirtHost) -> None:
    libvirt = Libvirt(libvirt_host.read_only_uri)
    channel = LibvirtChannel(libvirt, libvirt_host.uuid("web"), "VM 100")

    with pytest.raises(GuestError) as caught:
        await channel.execute(qga.PING.command)

    assert READ_ONLY in str(caught.value)
    await channel.close()
    libvirt.close()


async def test_a_stopped_domain_and_one_that_is_not_there_have_no_agent(
    libvirt: Libvirt, libvirt_host: LibvirtHost
) -> None:
    channel = LibvirtChannel(libvirt, libvirt_host.uuid("nobody"), "VM 100")

    with pytest.raises(AgentNotRunning) as caught:
        await channel.execute(qga.PING.command)

    assert "no domain with matching uuid" in caught.value.why
    assert channel.state is ChannelState.GONE
    await channel.close()


async def test_without_the_binding_the_error_says_both_ways() -> None:
    code = "import sys; sys.modules['libvirt'] = None\nfrom guestwire.channels.libvirt import binding\nbinding()"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)

    assert "pip install 'guestwire[libvirt]'" in done.stderr
    assert "python3-libvirt" in done.stderr


async def test_the_end_of_a_guest_ends_a_shutdown_well(web: LibvirtChannel, libvirt_web: SandboxedAgent) -> None:
    call = asyncio.ensure_future(web.execute(Command("guest-shutdown-nothing", answers=False, timeout=60)))
    with pytest.raises(AgentError):
        await call  # an agent that refuses says so

    libvirt_web.pause()
    try:
        call = asyncio.ensure_future(web.execute(Command("guest-suspend-ram", answers=False, timeout=0.3)))
        with pytest.raises(CommandFailed):
            await call  # nothing was sent: libvirt's own sync had no answer
    finally:
        libvirt_web.resume()
