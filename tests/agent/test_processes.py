import asyncio
import gc
from contextlib import suppress

import pytest
from waiting import until

from guestwire.agent.guest import GuestAgent
from guestwire.agent.results import ProcessStatus
from guestwire.agent.systems import UNIX
from guestwire.errors import AgentError, CommandTimeout
from guestwire.testing import FakeGuest, SandboxedAgent

ENDED = {"exited": True, "exitcode": 0, "out-data": "b3V0"}


async def ended(agent: GuestAgent, pid: int) -> ProcessStatus:
    async with asyncio.timeout(10):
        while not (status := await agent.processes.status(pid)).exited:
            await asyncio.sleep(0.02)
    return status


@pytest.mark.agent
async def test_a_process_runs_in_a_real_guest_and_its_result_can_be_read_again(real_agent: GuestAgent) -> None:
    pid = await real_agent.processes.start(["/bin/sh", "-c", "cat; echo err >&2; exit 3"], b"in\xff\x00put")
    status = await ended(real_agent, pid)

    assert (status.exitcode, status.out_data, status.err_data) == (3, b"in\xff\x00put", b"err\n")
    assert await real_agent.processes.status(pid) == status


@pytest.mark.agent
async def test_a_signal_is_told(real_agent: GuestAgent) -> None:
    status = await ended(real_agent, await real_agent.processes.start(["/bin/sh", "-c", "kill -9 $$"]))

    assert (status.exitcode, status.signal) == (None, 9)


@pytest.mark.agent
async def test_sixteen_mebibytes_of_output_come_whole(real_agent: GuestAgent) -> None:
    pid = await real_agent.processes.start(["/bin/sh", "-c", "head -c 16777216 /dev/zero"])
    status = await ended(real_agent, pid)

    assert status.out_data == bytes(16 * 2**20)


@pytest.mark.agent
async def test_a_process_that_is_unknown_is_the_agents_error(real_agent: GuestAgent) -> None:
    with pytest.raises(AgentError):
        await real_agent.processes.status(999_999)


@pytest.mark.agent
async def test_a_program_that_is_waited_for_ends_with_its_caller(real_agent: GuestAgent, agent: SandboxedAgent) -> None:
    processes = real_agent.processes
    script = ["/bin/sh", "-c", "echo $$ >/root/pid; sleep 1000; echo on >/root/after"]
    running = asyncio.create_task(processes.run(script, interrupt=UNIX.interrupt))
    pid_file = agent.home / "pid"
    await until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    pid = int(pid_file.read_text())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    async with asyncio.timeout(10):
        while (await processes.run(["/bin/kill", "-0", str(pid)])).exitcode == 0:
            await asyncio.sleep(0.02)
    assert not (agent.home / "after").exists()


async def test_callers_at_the_same_time_share_the_only_answer(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.replies["guest-exec-status"] = ENDED
    guest.delay["guest-exec-status"] = 0.05
    results = await asyncio.gather(*(fake_agent.processes.status(7) for _ in range(5)))

    assert {result.out_data for result in results} == {b"out"}
    assert guest.names() == ["guest-exec-status"]


async def test_a_caller_that_goes_away_loses_the_result_for_nobody(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.replies["guest-exec-status"] = ENDED
    guest.delay["guest-exec-status"] = 0.1
    leaving = asyncio.create_task(fake_agent.processes.status(7))
    await until(lambda: bool(guest.names()))
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving

    assert (await fake_agent.processes.status(7)).out_data == b"out"
    assert guest.names() == ["guest-exec-status"]


async def test_an_error_whose_caller_went_away_is_not_logged(
    fake_agent: GuestAgent, guest: FakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest.replies["guest-exec-status"] = "no status at all"
    guest.delay["guest-exec-status"] = 0.1
    leaving = asyncio.create_task(fake_agent.processes.status(7))
    await until(lambda: bool(guest.names()))
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    await until(lambda: not fake_agent.processes._requests)
    gc.collect()  # which is when asyncio says that an error was never looked at

    assert caplog.text == ""


@pytest.mark.slow
async def test_a_result_that_comes_too_late_is_kept(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.replies["guest-exec-status"] = ENDED
    guest.delay["guest-exec-status"] = 5.2
    with pytest.raises(CommandTimeout):
        await fake_agent.processes.status(7)
    await until(lambda: fake_agent.processes._exit_statuses.get("VM 100", 7) is not None)
    guest.replies["guest-exec-status"] = {"exited": False}

    assert (await fake_agent.processes.status(7)).out_data == b"out"


async def test_a_running_process_is_asked_for_every_time(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.replies["guest-exec-status"] = {"exited": False}
    assert not (await fake_agent.processes.status(7)).exited
    assert not (await fake_agent.processes.status(7)).exited

    assert len(guest.names()) == 2


async def test_a_new_process_of_the_same_pid_hides_the_old_result(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.replies |= {"guest-exec-status": ENDED, "guest-exec": {"pid": 7}}
    await fake_agent.processes.status(7)
    await fake_agent.processes.start(["true"])
    guest.replies["guest-exec-status"] = {"exited": False}

    assert not (await fake_agent.processes.status(7)).exited
