"""SIGTERM and SIGINT: calls in flight come to their end, nobody new is let in, and the exit status is 0."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from calling import Answer, Client, agent, site, vm
from serving import Serving
from waiting import until

from guestwire.testing import FakeGuest

pytestmark = pytest.mark.slow


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100))) as server:
        yield server


@pytest.fixture
async def guest(server: Serving) -> AsyncIterator[FakeGuest]:
    async with FakeGuest(server.folder / "100.qga") as guest:
        yield guest


async def refuses(server: Serving) -> bool:
    """Whether nobody listens any more."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except ConnectionError:
        return True
    writer.transport.abort()
    return False


async def until_it_refuses(server: Serving) -> None:
    async with asyncio.timeout(5):
        while not await refuses(server):
            await asyncio.sleep(0.01)


async def until_it_has_ended(server: Serving) -> None:
    async with asyncio.timeout(10):
        assert await server.process.wait() == 0, server.log


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_in_flight_gets_its_answer_while_new_connections_are_refused(
    server: Serving, guest: FakeGuest, signum: signal.Signals
) -> None:
    guest.delay["guest-get-host-name"] = 1.0
    call = asyncio.create_task(Client(server).get(agent("get-host-name")))
    await until(lambda: "guest-get-host-name" in guest.names())

    server.signal(signum)
    await until_it_refuses(server)

    assert not call.done()
    assert (await call).data == {"result": {"host-name": "fake"}}
    await until_it_has_ended(server)


async def test_calls_that_wait_for_each_other_all_come_to_their_end(server: Serving, guest: FakeGuest) -> None:
    guest.delay["guest-get-host-name"] = 0.05
    client = Client(server)
    calls = [asyncio.create_task(client.get(agent("get-host-name"))) for _ in range(20)]
    await until(lambda: len(guest.names()) > 4)

    server.signal(signal.SIGTERM)

    answers = [answer for answer in await asyncio.gather(*calls, return_exceptions=True) if isinstance(answer, Answer)]
    assert {answer.status for answer in answers} == {200}
    assert len(answers) == guest.names().count("guest-get-host-name")
    await until_it_has_ended(server)


async def test_an_idle_connection_does_not_keep_it(server: Serving) -> None:
    async with Client(server).connection() as connection:
        connection.send(Client(server).request("GET", "/api2/json/version"))
        await connection.answer()

        server.signal(signal.SIGTERM)

        assert await connection.rest() == b""
        await until_it_has_ended(server)


async def test_a_connection_that_says_nothing_does_not_keep_it(server: Serving) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)

    await server.stop()

    writer.close()


async def test_nothing_unexpected_is_logged_at_the_end(server: Serving, guest: FakeGuest) -> None:
    await Client(server).post(agent("ping"))

    await server.stop()

    assert guest.names() == ["guest-ping"]
    assert "stopping: calls in flight come to their end" in server.log
    assert not any(word in server.log for word in ("Traceback", "ERROR", "WARNING"))
