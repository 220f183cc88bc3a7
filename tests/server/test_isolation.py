"""Clients that use one VM at once, over HTTPS: nobody ever sees another's answer."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from calling import Answer, Client, Connection, agent, site, vm
from serving import Serving
from waiting import until

from guestwire.agent.commands import PING
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import UnixChannel
from guestwire.testing import FakeGuest, SandboxedAgent

CLIENTS = 8


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100))) as server:
        yield server


@pytest.fixture
def client(server: Serving) -> Client:
    return Client(server)


def name(number: int) -> str:
    return f"client-{number}-" + "x" * (number * 7)


async def calls(client: Client, number: int, count: int, path: Callable[[str], str]) -> int:
    """Reads its own file again and again, over one connection."""
    request = client.request("GET", agent(f"file-read?file={path(name(number))}"))
    async with client.connection() as connection:
        for _ in range(count):
            connection.send(request)
            check(await connection.answer(), number)
    return count


def check(answer: Answer, number: int) -> None:
    assert answer.data == {"content": name(number), "bytes-read": len(name(number))}


async def test_thousands_of_calls_of_many_clients_each_get_their_own_answer(client: Client, server: Serving) -> None:
    async with FakeGuest(server.folder / "100.qga") as guest:
        guest.files |= {f"/{name(number)}": bytearray(name(number).encode()) for number in range(CLIENTS)}
        done = await asyncio.gather(*(calls(client, number, 300, lambda name: f"/{name}") for number in range(CLIENTS)))

    assert sum(done) == 300 * CLIENTS
    assert guest.names().count("guest-file-read") >= sum(done)
    assert not guest.open_handles


@pytest.mark.agent
async def test_the_same_with_a_real_agent(client: Client, server: Serving) -> None:
    async with SandboxedAgent(server.folder / "100.qga") as real:
        furnish(real.home)
        done = await asyncio.gather(
            *(calls(client, number, 60, lambda name: f"/root/{name}") for number in range(CLIENTS))
        )

        assert sum(done) == 60 * CLIENTS
        assert real.handles() == []


def furnish(home: Path) -> None:
    for number in range(CLIENTS):
        (home / name(number)).write_text(name(number))


class Restless:
    """A client that sends ahead, and sometimes leaves before its answers are there."""

    def __init__(self, client: Client, number: int, chance: random.Random) -> None:
        self.client = client
        self.number = number
        self.chance = chance
        self.answers = 0
        self.left = 0

    async def live(self, connections: int) -> None:
        for _ in range(connections):
            async with self.client.connection() as connection:
                await self.use(connection, self.chance.randrange(1, 12))

    async def use(self, connection: Connection, ahead: int) -> None:
        connection.send(self.client.request("GET", agent(f"file-read?file=/{name(self.number)}")) * ahead)
        stays_for = self.chance.randrange(ahead * 2)
        for _ in range(min(stays_for, ahead)):
            check(await connection.answer(), self.number)
            self.answers += 1
        if stays_for < ahead:
            self.left += 1
            connection.drop()


async def test_clients_that_leave_take_nobodys_answer_with_them(client: Client, server: Serving) -> None:
    chance = random.Random(5)
    async with FakeGuest(server.folder / "100.qga") as guest:
        guest.files |= {f"/{name(number)}": bytearray(name(number).encode()) for number in range(CLIENTS)}
        clients = [Restless(client, number, chance) for number in range(CLIENTS)]
        await asyncio.gather(*(one.live(20) for one in clients))

    assert all(one.answers and one.left for one in clients)


async def test_a_caller_that_leaves_at_the_moment_its_file_was_opened_leaves_no_handle_open(
    folder: Path,
) -> None:
    async with FakeGuest(folder / "100.qga", files={"/f": bytearray(b"abc")}) as guest:
        channel = UnixChannel(guest.path, "VM 100")
        typed = GuestAgent(channel, "VM 100", ExitStatusCache())
        await typed.execute(PING)
        call = asyncio.create_task(typed.files.read("/f", count=10))
        await until_sent(channel)
        while channel.link.in_flight:  # until the reply is there, and its caller has not been told yet
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

        with contextlib.suppress(TimeoutError):
            await until(lambda: not guest.open_handles, within=2)
        left = dict(guest.open_handles)
        await typed.close()
        await channel.close()
    assert guest.names()[1] == "guest-file-open"
    assert not left


async def until_sent(channel: UnixChannel) -> None:
    while not channel.link.in_flight:
        await asyncio.sleep(0)
