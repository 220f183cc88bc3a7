"""A real guest: its agent over a real virtio-serial port, what QMP says of it, and what happens when it is reset or stopped."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from waiting import until, until_succeeds

from devtools.guests import GuestImage, Machine, build, default_cache
from guestwire.agent.commands import (
    FSFREEZE_FREEZE,
    FSFREEZE_STATUS,
    FSFREEZE_THAW,
    GET_FSINFO,
    GET_HOST_NAME,
    GET_OSINFO,
    INFO,
    PING,
    SHUTDOWN,
)
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import ChannelState, UnixChannel
from guestwire.channels.qmp import Monitor
from guestwire.errors import AgentNotRunning, CommandFailed, GuestError, GuestImageError
from guestwire.wire import Command

pytestmark = pytest.mark.guest

BOOTS_WITHIN = 60.0
MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def reached(machine: Machine) -> AsyncIterator[GuestAgent]:
    """The typed agent of a machine, over a channel of its own."""
    channel = UnixChannel(machine.agent_socket, f"VM {machine.vmid}")
    agent = GuestAgent(channel, f"VM {machine.vmid}", ExitStatusCache())
    try:
        await until_succeeds(lambda: agent.execute(PING), within=BOOTS_WITHIN)
        yield agent
    finally:
        await agent.close()
        await channel.close()


@contextlib.asynccontextmanager
async def watched(machine: Machine, agent: GuestAgent) -> AsyncIterator[Monitor]:
    """What QMP says of a machine; the agent's channel is told, too."""
    monitor = Monitor(machine.qmp_socket, f"VM {machine.vmid}", machine.agent_socket, agent.channel)
    try:
        yield monitor
    finally:
        await monitor.close()


@pytest.fixture
async def agent(booted: tuple[Machine, GuestImage]) -> AsyncIterator[GuestAgent]:
    async with reached(booted[0]) as agent:
        yield agent


@pytest.fixture
def real(booted: tuple[Machine, GuestImage]) -> Machine:
    return booted[0]


# Its agent


async def test_the_agent_answers_and_is_the_one_that_the_image_has(
    agent: GuestAgent, booted: tuple[Machine, GuestImage]
) -> None:
    info = await agent.execute(INFO)

    assert info.version.startswith(booted[1].agent_version)
    assert {"guest-exec", "guest-file-open", "guest-fsfreeze-freeze"} <= {one.name for one in info.supported_commands}
    assert (await agent.execute(GET_HOST_NAME)).host_name == (await booted[0].shell("hostname")).strip()
    assert (await agent.execute(GET_OSINFO)).kernel_release == (await booted[0].shell("uname -r")).strip()


async def test_the_data_disk_is_among_its_file_systems(agent: GuestAgent) -> None:
    assert {"/mnt/data": "ext4"}.items() <= {
        found.mountpoint: found.type for found in await agent.execute(GET_FSINFO)
    }.items()


async def test_what_is_written_is_in_the_guest_byte_for_byte(agent: GuestAgent, real: Machine) -> None:
    content = bytes(range(256)) * 1000
    await agent.files.write("/root/written", content)

    assert (await real.shell("md5sum < /root/written")).split()[0] == hashlib.md5(content).hexdigest()
    assert b"".join((await agent.files.read("/root/written", count=MIB)).pieces) == content


async def test_a_large_file_is_read_byte_for_byte(agent: GuestAgent, real: Machine) -> None:
    await real.shell("dd if=/dev/urandom of=/root/large bs=65536 count=64 2>/dev/null")

    contents = await agent.files.read("/root/large", count=16 * MIB)

    assert (contents.size, contents.truncated) == (4 * MIB, False)
    assert hashlib.md5(b"".join(contents.pieces)).hexdigest() == (await real.shell("md5sum < /root/large")).split()[0]
    await real.shell("rm /root/large")


async def test_no_handle_stays_open_in_the_guest(agent: GuestAgent, real: Machine) -> None:
    await real.shell("echo content > /root/watched")
    call = asyncio.create_task(agent.files.read("/root/watched", count=MIB))
    await agent.files.read("/root/watched", count=3)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    with pytest.raises(GuestError):
        await agent.files.read("/root", count=3)
    await agent.execute(PING)

    async with asyncio.timeout(10):
        while await open_files(real):
            await asyncio.sleep(0.1)


async def open_files(machine: Machine) -> str:
    """What the agent has open below /root, asked without it."""
    return await machine.shell("ls -l /proc/$(pidof qemu-ga)/fd | grep -o '/root.*' || true")


async def test_a_process_runs_in_the_guest(agent: GuestAgent) -> None:
    pid = await agent.processes.start(["sh", "-c", "cat; echo oops >&2; exit 3"], b"some input")
    async with asyncio.timeout(20):
        while not (status := await agent.processes.status(pid)).exited:
            await asyncio.sleep(0.05)

    assert (status.exitcode, status.out_data, status.err_data) == (3, b"some input", b"oops\n")
    assert await agent.processes.status(pid) == status


async def test_many_calls_at_once_get_their_own_answers(agent: GuestAgent) -> None:
    for name in ("a", "b", "c"):
        await agent.files.write(f"/root/{name}", name.encode() * 10)

    async def reads(name: str) -> set[bytes]:
        return {b"".join((await agent.files.read(f"/root/{name}", count=100)).pieces) for _ in range(30)}

    assert await asyncio.gather(*map(reads, "abc")) == [{b"a" * 10}, {b"b" * 10}, {b"c" * 10}]


async def test_a_freeze_holds_writes_until_the_thaw(agent: GuestAgent, real: Machine) -> None:
    try:
        assert await agent.execute(FSFREEZE_FREEZE) >= 1
        assert await agent.execute(FSFREEZE_STATUS) == "frozen"
        await real.shell("(touch /mnt/data/waits &) ; sleep 0.5; ps -o stat,args | grep -q '^D.*touch'")
    finally:
        assert await agent.execute(FSFREEZE_THAW) >= 1

    assert await agent.execute(FSFREEZE_STATUS) == "thawed"
    await real.shell(
        "for n in 1 2 3 4 5 6 7 8 9; do [ -e /mnt/data/waits ] && break; sleep 0.2; done; rm /mnt/data/waits"
    )


# Its channel


async def test_one_client_after_the_other_is_served(machine: Machine) -> None:
    for _ in range(3):
        async with reached(machine) as agent:
            assert (await agent.execute(GET_HOST_NAME)).host_name


async def test_what_the_last_client_left_behind_spoils_nothing(machine: Machine) -> None:
    _, writer = await asyncio.open_unix_connection(machine.agent_socket)
    writer.write(b'{"execute": "guest-info"}\n{"execute": "guest-pi')
    await writer.drain()
    writer.close()

    async with reached(machine) as agent:
        assert (await agent.execute(GET_HOST_NAME)).host_name


async def test_a_stopped_agent_fails_calls_at_once_and_is_usable_when_it_goes_on(machine: Machine) -> None:
    async with reached(machine) as agent:
        await machine.pause_agent()
        try:
            with pytest.raises(CommandFailed, match="got timeout"):
                await agent.execute_raw(Command("guest-ping", timeout=0.5))
            await until(lambda: agent.channel.state is ChannelState.SILENT)
            with pytest.raises(AgentNotRunning):
                await agent.execute(PING)
        finally:
            await machine.resume_agent()

        await until_succeeds(lambda: agent.execute(PING))


async def test_a_killed_agent_that_is_started_again_is_usable(machine: Machine) -> None:
    async with reached(machine) as agent, watched(machine, agent) as monitor:
        assert await monitor.is_running()
        before = await machine.shell("pidof qemu-ga")
        await machine.shell("kill -9 $(pidof qemu-ga)")

        await until_succeeds(
            lambda: agent.execute(PING), within=4
        )  # less than the ping's time-out: QMP tells of the port
        assert await machine.shell("pidof qemu-ga") != before


# QMP


async def test_the_monitor_says_that_it_runs(machine: Machine) -> None:
    async with reached(machine) as agent, watched(machine, agent) as monitor:
        assert await monitor.is_running()


async def test_a_reset_ends_the_call_in_flight_and_the_agent_comes_back(machine: Machine) -> None:
    async with reached(machine) as agent, watched(machine, agent) as monitor:
        assert await monitor.is_running()
        await machine.shell("touch /root/before-the-reset")
        await machine.pause_agent()
        call = asyncio.create_task(agent.execute_raw(Command("guest-get-users", timeout=300)))
        await asyncio.sleep(0)  # it is sent
        await machine.reset()

        with pytest.raises(CommandFailed, match=r"reset|port closed"):
            async with asyncio.timeout(30):
                await call
        await until_succeeds(lambda: agent.execute(PING), within=BOOTS_WITHIN)
        assert await monitor.is_running()
        assert await machine.shell("ls /root/before-the-reset 2>/dev/null || echo gone") == "gone"


# The machine itself


async def test_the_shell_returns_what_a_command_wrote_and_fails_when_it_does(machine: Machine) -> None:
    assert await machine.shell("echo one; echo two >&2") == "one\ntwo"
    assert await machine.shell("true") == ""
    with pytest.raises(GuestImageError, match="ended with 3: why"):
        await machine.shell("echo why; exit 3")


async def test_the_shell_is_used_by_one_after_the_other(machine: Machine) -> None:
    assert await asyncio.gather(*(machine.shell(f"echo {number}") for number in range(5))) == list("01234")


async def test_a_machine_that_runs_is_not_started_twice(machine: Machine) -> None:
    with pytest.raises(GuestImageError, match="VM 100 runs already"):
        await machine.start()

    assert machine.running


async def test_a_machine_that_cannot_start_says_why(folder: Path) -> None:
    machine = Machine(GuestImage(folder / "no-kernel", folder / "no-initramfs", "none"), folder)

    with pytest.raises(GuestImageError, match=r"QEMU has ended: .*no-kernel"):
        await machine.start()
    assert not machine.running


def test_a_folder_whose_name_is_too_long_for_sockets_is_refused(image: GuestImage) -> None:
    with pytest.raises(GuestImageError, match="too long for sockets"):
        Machine(image, Path("/tmp") / ("x" * 100))


async def test_the_image_is_built_once(image: GuestImage) -> None:
    assert await asyncio.to_thread(build, default_cache()) == image


# Its end, which comes last


@pytest.mark.ends_guest
async def test_a_guest_that_shuts_down_says_nothing_and_is_known_to_be_stopped(at_its_end: Machine) -> None:
    machine = at_its_end
    async with reached(machine) as agent, watched(machine, agent) as monitor:
        assert await monitor.is_running()
        assert await agent.execute_raw(SHUTDOWN.command) is None
        await machine.wait_exit()

        assert not machine.running
        await until(lambda: agent.channel.state is ChannelState.GONE)
        async with asyncio.timeout(10):
            while await monitor.is_running():  # it hears of the end by itself
                await asyncio.sleep(0.02)
        with pytest.raises(AgentNotRunning):
            await agent.execute(PING)
