"""Agents that do what they never should, behind one server, all at the same time: each harms its own calls and nothing else."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from calling import Answer, Client, agent, site, vm
from serving import Serving

from guestwire.testing import FakeGuest, Fault, SandboxedAgent, faults
from guestwire.testing.fake import honest

pytestmark = pytest.mark.slow

MIB = 1024 * 1024

FAULTS: dict[str, Fault] = {
    "is silent": faults.silent(),
    "hangs in a command": faults.hangs(),
    "answers garbage to everything": faults.garbage(),
    "answers garbage to commands": faults.says(b"hello, this is not JSON\n"),
    "answers bytes that are no text": faults.says(b"\x00\x80\xfe\n"),
    "answers with a list": faults.says(b"[1, 2]\n"),
    "answers with empty lines": faults.floods(b"\n", 1000),
    "floods with short lines": faults.floods(b"{}\n" * 1000, 300),
    "floods with stray replies": faults.floods(b'{"return": {}}\n' * 1000, 300),
    "nests deeply": faults.nests(100_000),
    "nests just over the limit": faults.nests(33),
    "sends wrong ids": faults.wrong_ids(),
    "sends ids of the future": faults.wrong_ids(shift=1000),
    "sends half a line": faults.half_line(),
    "sends 100 MB without a newline": faults.floods(b"x" * MIB, 100),
    "sends an endless text": faults.floods(b'{"return": "' + b"x" * MIB, 100),
    "sends bytes 0xFF": faults.floods(b"\xff" * MIB, 100),
    "closes at the first byte": faults.closes_at(0),
    "closes in mid-line": faults.closes_at(10),
}

MESSAGES = re.compile(r"QEMU guest agent is not running|VM \d+ qga command 'guest-get-host-name' failed - .+")
"""What Proxmox VE says of an agent that is the reason."""

IN_TIME = 60.0
BACK_WITHIN = 60.0
"""Seconds that a busy machine may need; the command's time-out is 5."""


@dataclass
class Call:
    """A call; no answer when it was not there in time."""

    answer: Answer | None

    @property
    def reason(self) -> str:
        return f"{self.answer.status} {self.answer.reason}" if self.answer else "no answer in time"


@dataclass
class Story:
    """One faulty VM, which came back in the end: the first call while it was faulty, and the ones after it."""

    first: Call
    others: list[Call]


@dataclass
class Neighbour:
    """An honest VM beside them."""

    calls: list[Call] = field(default_factory=list)


@dataclass
class Told:
    """All of it."""

    stories: dict[str, Story]
    neighbour: Neighbour
    memory: int
    log: str


async def timed(call: Awaitable[Answer]) -> Call:
    try:
        async with asyncio.timeout(IN_TIME):
            return Call(await call)
    except TimeoutError:
        return Call(None)


async def story(client: Client, vmid: int, begin: Callable[[], None], end: Callable[[], None]) -> Story:
    """Honest, then faulty, then honest again."""

    def ask() -> Awaitable[Answer]:
        return client.get(agent("get-host-name", vmid))

    assert (await ask()).status == 200
    begin()
    first = await timed(ask())
    others = [await timed(ask()) for _ in range(6)]
    end()
    async with asyncio.timeout(BACK_WITHIN):
        while (await ask()).status != 200:
            await asyncio.sleep(0.02)
    return Story(first, others)


async def faulty(client: Client, folder: Path, vmid: int, fault: Fault) -> Story:
    async with FakeGuest(folder / f"{vmid}.qga") as guest:
        return await story(
            client, vmid, lambda: setattr(guest, "fault", fault), lambda: setattr(guest, "fault", honest)
        )


async def neighbours(client: Client, folder: Path, vmid: int, neighbour: Neighbour) -> None:
    async with FakeGuest(folder / f"{vmid}.qga", replies={"guest-get-host-name": {"host-name": "honest"}}):
        while True:
            neighbour.calls.append(await timed(client.get(agent("get-host-name", vmid))))
            await asyncio.sleep(0.02)


def most_memory(pid: int) -> int:
    """Bytes that a process had at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture(scope="module")
async def told() -> AsyncIterator[Told]:
    vmids = {name: 100 + number for number, name in enumerate(FAULTS)}
    async with Serving.of(site(vm(999), *map(vm, vmids.values()))) as server:
        client, neighbour = Client(server), Neighbour()
        beside = asyncio.create_task(neighbours(client, server.folder, 999, neighbour))
        stories = await asyncio.gather(
            *(faulty(client, server.folder, vmid, FAULTS[name]) for name, vmid in vmids.items())
        )
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)
        yield Told(dict(zip(vmids, stories, strict=True)), neighbour, most_memory(server.process.pid), server.log)


@pytest.mark.parametrize("name", FAULTS)
async def test_its_calls_fail_in_time_with_proxmox_ves_words(told: Told, name: str) -> None:
    call = told.stories[name].first

    assert call.answer, call.reason
    assert call.answer.status == 500
    assert MESSAGES.fullmatch(call.answer.reason), call.reason
    assert call.answer.json == {"data": None, "message": call.answer.json["message"]}


@pytest.mark.parametrize("name", FAULTS)
async def test_after_the_first_call_the_others_fail_and_its_agent_came_back(told: Told, name: str) -> None:
    for call in told.stories[name].others:
        assert call.answer, call.reason
        assert call.answer.status == 500
        assert MESSAGES.fullmatch(call.answer.reason)


async def test_an_honest_vm_beside_them_notices_nothing(told: Told) -> None:
    calls = told.neighbour.calls

    assert len(calls) > 50
    assert {call.reason for call in calls} == {"200 OK"}
    assert all(call.answer and call.answer.data == {"result": {"host-name": "honest"}} for call in calls)


async def test_the_servers_memory_stays_bounded(told: Told) -> None:
    assert told.memory < 250 * MIB


async def test_the_log_holds_no_error_of_the_servers_own(told: Told) -> None:
    assert not any(word in told.log for word in ("Traceback", "unexpected error", "internal error"))


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    """Each test has a VM of its own, for what is known of one lasts longer than a test."""
    async with Serving.of(site(*map(vm, range(100, 105)))) as server:
        yield server


async def test_an_agent_that_closes_at_any_byte_breaks_one_call(server: Serving) -> None:
    client = Client(server)
    async with FakeGuest(server.folder / "100.qga") as guest:
        assert (await client.get(agent("get-host-name", 100))).status == 200
        for position in range(0, 50, 3):
            guest.fault = faults.closes_at(position)
            assert MESSAGES.fullmatch((await client.get(agent("get-host-name", 100))).reason)
            guest.fault = honest
            assert (await client.get(agent("get-host-name", 100))).data == {"result": {"host-name": "fake"}}


async def test_an_agent_that_answers_everything_twice_gives_nobody_a_wrong_answer(server: Serving) -> None:
    client, names = Client(server), iter(range(1000))
    async with FakeGuest(server.folder / "101.qga", fault=faults.twice()) as guest:
        guest.replies["guest-get-host-name"] = lambda _: {"host-name": str(next(names))}
        answers = [await client.get(agent("get-host-name", 101)) for _ in range(20)]

    given = [int(answer.data["result"]["host-name"]) for answer in answers if answer.status == 200]
    assert given == sorted(set(given))
    assert given[0] == 0
    assert all(MESSAGES.fullmatch(answer.reason) for answer in answers if answer.status != 200)


async def test_an_agent_that_never_answered_is_not_running(server: Serving) -> None:
    client = Client(server)
    async with FakeGuest(server.folder / "102.qga", fault=faults.silent()):
        calls = [await timed(client.get(agent("get-host-name", 102))) for _ in range(4)]

    assert {call.reason for call in calls} == {"500 QEMU guest agent is not running"}


async def test_an_agent_that_hangs_up_when_it_is_synced_is_not_running_and_left_alone(server: Serving) -> None:
    async with FakeGuest(server.folder / "103.qga", fault=faults.closes_on_sync()) as guest:
        call = await timed(Client(server).get(agent("get-host-name", 103)))

    assert len(guest.received) < 100
    assert call.reason == "500 QEMU guest agent is not running"


@pytest.mark.agent
async def test_a_real_agent_that_is_stopped_fails_at_once_after_its_first_call_and_comes_back(server: Serving) -> None:
    async with SandboxedAgent(server.folder / "104.qga", name="fake") as real:
        try:
            found = await story(Client(server), 104, real.pause, real.resume)
        finally:
            real.resume()

    assert found.first.reason == "500 VM 104 qga command 'guest-get-host-name' failed - got timeout"
    assert {call.reason for call in found.others} == {"500 QEMU guest agent is not running"}
