"""A real agent in a sandbox: it is a real one, it comes back, and it can't touch the host."""

import asyncio
import os
from pathlib import Path

import pytest
from waiting import until, until_succeeds

from guestwire.agent.commands import GET_HOST_NAME, INFO, PING
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import ChannelState, UnixChannel
from guestwire.errors import AgentError
from guestwire.testing import SandboxedAgent, missing_programs
from guestwire.testing.sandbox import HARMFUL
from guestwire.wire import Command

pytestmark = pytest.mark.agent


async def run(agent: GuestAgent, script: str) -> str:
    """The output of a shell script in the sandbox."""
    pid = await agent.processes.start(["sh", "-c", script])
    async with asyncio.timeout(10):
        while not (status := await agent.processes.status(pid)).exited:
            await asyncio.sleep(0.02)
    return (status.out_data or b"").decode().strip()


def test_this_host_has_what_it_needs() -> None:
    assert missing_programs() == []


async def test_it_has_the_name_that_it_was_given(real_agent: GuestAgent) -> None:
    assert (await real_agent.execute(GET_HOST_NAME)).host_name == "guest100"


@pytest.mark.parametrize("name", HARMFUL)
async def test_what_could_harm_the_host_is_disabled(real_agent: GuestAgent, name: str) -> None:
    with pytest.raises(AgentError, match=r"disabled|not been found"):
        await real_agent.execute_raw(Command(name))


async def test_commands_can_be_disabled(folder: Path) -> None:
    async with SandboxedAgent(folder / "qga", blocked=["guest-exec"]) as agent:
        channel = UnixChannel(agent.socket, "VM 100")
        typed = GuestAgent(channel, "VM 100", ExitStatusCache())
        enabled = {command.name: command.enabled for command in (await typed.execute(INFO)).supported_commands}
        await typed.close()
        await channel.close()

    assert (enabled["guest-exec"], enabled["guest-file-open"]) == (False, True)


async def test_its_programs_run_in_it_and_see_nothing_of_the_host(real_agent: GuestAgent) -> None:
    assert await run(real_agent, "id -u; hostname") == "0\nguest100"
    assert await run(real_agent, "ls /home /mnt /srv 2>/dev/null | wc -l") == "0"
    assert await run(real_agent, "grep -c : /proc/net/dev") == "1"
    assert await run(real_agent, "touch /usr/x 2>/dev/null || echo refused") == "refused"


async def test_its_home_can_be_looked_into_from_outside(real_agent: GuestAgent, agent: SandboxedAgent) -> None:
    await real_agent.files.write("/root/from-inside", b"abc")
    (agent.home / "from-outside").write_bytes(b"def")

    assert (agent.home / "from-inside").read_bytes() == b"abc"
    assert (await real_agent.files.read("/root/from-outside", count=10)).pieces == [b"def"]


async def test_its_open_files_can_be_seen(real_agent: GuestAgent, agent: SandboxedAgent) -> None:
    (agent.home / "seen").write_bytes(b"abc")
    handle = await real_agent.execute_raw(Command("guest-file-open"), {"path": "/root/seen"})
    assert agent.handles() == ["/root/seen"]

    await real_agent.execute_raw(Command("guest-file-close"), {"handle": handle})
    assert agent.handles() == []


async def test_it_can_be_paused_and_goes_on(real_agent: GuestAgent, agent: SandboxedAgent) -> None:
    await real_agent.execute(PING)
    agent.pause()
    try:
        call = asyncio.create_task(real_agent.execute(PING))
        await asyncio.sleep(0.1)  # a paused one says nothing, however long one waits
        assert not call.done()
    finally:
        agent.resume()

    await call


async def test_it_comes_up_again_when_it_was_killed(real_agent: GuestAgent, agent: SandboxedAgent) -> None:
    await real_agent.execute(PING)
    await agent.kill()
    await until(lambda: real_agent.channel.state is not ChannelState.UP)

    await until_succeeds(lambda: real_agent.execute(PING), within=10)


async def test_it_leaves_nothing_behind(folder: Path) -> None:
    async with SandboxedAgent(folder / "qga") as agent:
        home, processes = agent.home, agent._pids()
        assert len(processes) == 1

    assert not home.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)
