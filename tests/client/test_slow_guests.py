"""The client over Proxmox VE's times, on a guest that reads and writes 200 KB a second."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from calling import site, vm
from serving import Serving
from slow_line import slow_line
from ways import options_for, over_https

from guestwire import Guest
from guestwire.client.errors import AgentUnavailable
from guestwire.client.processes import OutcomeUnknown
from guestwire.testing import FakeGuest, SandboxedAgent

pytestmark = [pytest.mark.agent, pytest.mark.slow]

COPIED_WITHIN = 120.0


@contextlib.asynccontextmanager
async def slow_guests() -> AsyncIterator[tuple[Serving, SandboxedAgent]]:
    async with Serving.of(site(vm(100, "slow"), vm(101, "fake")), strict=True) as server:
        behind = server.folder / "behind.qga"
        async with SandboxedAgent(behind, name="slow") as agent, slow_line(server.folder / "100.qga", behind):
            yield server, agent


@pytest.fixture(scope="module")
async def slow() -> AsyncIterator[tuple[Serving, SandboxedAgent]]:
    async with slow_guests() as slow:
        yield slow


def command(options: list[str], *words: str) -> None:
    line = [sys.executable, "-m", "guestwire", *options, *words]
    subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=COPIED_WITHIN)


@pytest.fixture(scope="module", autouse=True)
async def copies(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[asyncio.Task[list[bytes]]]:
    """A file, what of it came to a guest of its own, and what came back: copied while the other tests run, for it takes half a minute of waiting."""
    folder = tmp_path_factory.mktemp("copies")
    data = os.urandom(1_100_000)  # more than the MiB that Proxmox VE reads at once
    (folder / "here").write_bytes(data)
    async with slow_guests() as (server, agent):

        def there_and_back() -> list[bytes]:
            options = options_for(server)
            command(options, "wait", "slow")
            command(options, "cp", str(folder / "here"), "slow:/root/there")
            command(options, "cp", "slow:/root/there", str(folder / "back"))
            return [data, (agent.home / "there").read_bytes(), (folder / "back").read_bytes()]

        copying = asyncio.create_task(asyncio.to_thread(there_and_back))
        yield copying
        await asyncio.gather(copying, return_exceptions=True)


@pytest.fixture
async def guest(slow: tuple[Serving, SandboxedAgent]) -> AsyncIterator[Guest]:
    async with await over_https(slow[0]) as host:
        found = await host.guest(100)
        await found.wait_ready(60)
        yield found


async def test_a_program_runs_and_a_short_output_arrives(guest: Guest) -> None:
    ended = await guest.run(["sh", "-c", "sleep 6; seq 1000"])

    assert (ended.code, ended.output.splitlines()[-1]) == (0, "1000")


async def test_output_that_takes_longer_than_the_host_waits_is_said_to_be_lost(guest: Guest) -> None:
    with pytest.raises(OutcomeUnknown, match="its output was lost, for the host did not wait") as lost:
        await guest.run(["head", "-c", "1200000", "/dev/zero"])  # eight seconds, and the host waits for five
    assert "have it write its output to a file in the guest" in str(lost.value)


async def test_several_calls_at_once_have_three_workers(guest: Guest) -> None:
    names = await asyncio.gather(*(guest.get_host_name() for _ in range(12)))

    assert {name.host_name for name in names} == {"slow"}


async def test_a_suspend_that_ends_with_a_time_out_while_the_vm_runs_is_one(
    slow: tuple[Serving, SandboxedAgent],
) -> None:
    async with FakeGuest(slow[0].folder / "101.qga") as fake, await over_https(slow[0]) as host:
        fake.no_reply |= {"guest-suspend-hybrid"}
        found = await host.guest(101)
        await found.wait_ready(60)
        # Nothing here knows better than that this VM runs; what is said of one that sleeps: see test_hosts.py.
        with pytest.raises(Exception, match="got timeout"):
            await found.suspend_ram()
        assert "guest-suspend-ram" in fake.names()


async def test_a_silent_agent_is_not_running_after_three_seconds(slow: tuple[Serving, SandboxedAgent]) -> None:
    async with FakeGuest(slow[0].folder / "101.qga") as fake, await over_https(slow[0]) as host:
        found = await host.guest(101)
        await found.wait_ready(60)
        fake.pause()
        with pytest.raises(AgentUnavailable, match="QEMU guest agent is not running"):
            await found.get_host_name()


# What waits for the copies comes last


async def test_a_file_comes_and_goes_whole(copies: asyncio.Task[list[bytes]]) -> None:
    here, there, back = await copies

    assert here == there == back
