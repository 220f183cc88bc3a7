"""`/metrics`: guests are polled in the background, whoever asks sees the guests that they may, and a guest that hangs costs its own series."""

import asyncio
import contextlib
import gzip
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import Client, agent, site, vm
from freezes import FrozenGuest
from persons import authorization, person, settling
from prometheus_client.parser import text_string_to_metric_families as parse
from serving import Serving
from waiting import until

from guestwire.testing import FakeGuest, SandboxedAgent

pytestmark = [pytest.mark.slow, pytest.mark.agent]

POLLED = "[metrics]\nevery = 5\n"
PAGE = "/metrics"


WEB, DB, GONE, HANGS, FINE, ENDS, ODD = range(100, 107)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    """One for all tests, each of which has guests of its own: five seconds are the shortest pause between two polls."""
    vms = [vm(WEB, "web"), vm(DB, "db"), vm(GONE, "gone"), vm(HANGS, "hangs"), vm(FINE, "fine"), vm(ODD, "odd")]
    vms.append(vm(ENDS, "ends").replace("running = true\n", ""))  # it runs while its agent's socket is there

    def config(folder: Path, port: int) -> str:
        return f"{site(*vms)(folder, port)}\n{POLLED}"

    people = settling(person("ann@pve", (f"/vms/{WEB}", "Administrator")), person("bob@pve"))
    async with Serving.of(config, prepare=people) as server, contextlib.AsyncExitStack() as agents:
        for vmid in (WEB, DB):
            await agents.enter_async_context(SandboxedAgent(server.folder / f"{vmid}.qga", name=str(vmid)))
        yield server


@pytest.fixture(scope="module")
async def fakes(server: Serving) -> AsyncIterator[dict[int, FakeGuest]]:
    """Guests that are there from the beginning."""
    fakes = {vmid: FakeGuest(server.folder / f"{vmid}.qga") for vmid in (HANGS, FINE, ODD)}
    async with contextlib.AsyncExitStack() as agents:
        for fake in fakes.values():
            fake.replies["guest-get-users"] = [{"user": "ann", "login-time": 1.0}]
            await agents.enter_async_context(fake)
        fakes[ODD].replies["guest-get-fsinfo"] = [{"name": 1}]
        yield fakes


@pytest.fixture
def client(server: Serving, fakes: dict[int, FakeGuest]) -> Client:  # noqa: ARG001  # so that all are polled meanwhile
    return Client(server)


async def series(client: Client, name: str) -> dict[str, float]:
    """The values of one metric by the guests' names."""
    answer = await client.get(PAGE)
    assert answer.status == 200, answer.reason
    found = [sample for family in parse(answer.body.decode()) for sample in family.samples]
    return {sample.labels["name"]: sample.value for sample in found if sample.name == f"guestwire_guest_{name}"}


@pytest.fixture(scope="module", autouse=True)
async def ends(server: Serving) -> AsyncIterator[asyncio.Task[None]]:
    """A guest is stopped while it is frozen, and is waited for until it has no series: while the other tests wait for theirs."""

    async def freeze_and_stop() -> None:
        client = Client(server)
        async with FakeGuest(server.folder / f"{ENDS}.qga") as fake, asyncio.timeout(30):
            FrozenGuest(fake, 2, 2)
            await client.post(agent("fsfreeze-freeze", ENDS))
            while (await series(client, "frozen")).get("ends") != 1:
                await asyncio.sleep(0.2)
        async with asyncio.timeout(30):
            while "ends" in await series(client, "frozen"):
                await asyncio.sleep(0.2)

    ending = asyncio.create_task(freeze_and_stop())
    yield ending
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)


async def test_real_guests_are_polled_and_each_caller_sees_its_own(server: Serving, client: Client) -> None:
    async with asyncio.timeout(30):
        while (await series(client, "agent_up")).get("db") != 1 or "web" not in await series(client, "users"):
            await asyncio.sleep(0.2)
    up = await series(client, "agent_up")
    offset = await series(client, "time_offset_seconds")
    client.authorization = authorization("ann@pve")
    of_ann = await series(client, "agent_up")
    client.authorization = authorization("bob@pve")
    of_bob = await series(client, "agent_up")
    client.authorization = "Authorization: Bearer " + server.token
    packed = await client.get(PAGE, ["Accept-Encoding: gzip", "Accept: application/openmetrics-text"])
    client.authorization = "Authorization: Bearer root@pam!admin=00000000-0000-0000-0000-000000000000"
    refused = await client.get(PAGE)
    client.authorization = "X: y"
    nobody = await client.get(PAGE)

    assert (up["web"], up["db"]) == (1, 1)
    assert up.get("gone", 0) == 0
    assert abs(offset["web"]) < 5
    assert (of_ann, of_bob) == ({"web": 1}, {})
    assert gzip.decompress(packed.body).endswith(b"# EOF\n")
    assert packed.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert (refused.status, nobody.status) == (401, 401)


async def test_a_guest_whose_answer_to_one_command_is_odd_is_up_and_says_the_rest(client: Client) -> None:
    async with asyncio.timeout(30):
        while "odd" not in await series(client, "users"):
            await asyncio.sleep(0.2)

    assert ((await series(client, "agent_up"))["odd"], (await series(client, "users"))["odd"]) == (1, 1)


async def test_a_hanging_guest_costs_its_own_series_and_a_frozen_one_is_left_alone(
    client: Client, fakes: dict[int, FakeGuest]
) -> None:
    hangs, fine = fakes[HANGS], fakes[FINE]
    async with asyncio.timeout(30):
        while not {"hangs", "fine"} <= (await series(client, "users")).keys():
            await asyncio.sleep(0.2)
        hangs.pause()
        while (await series(client, "agent_up")).get("hangs") != 0:
            await asyncio.sleep(0.2)
    users = await series(client, "users")
    assert (users.get("hangs"), users["fine"]) == (None, 1)

    FrozenGuest(fine, 2, 2)
    await client.post(agent("fsfreeze-freeze", FINE))
    async with asyncio.timeout(30):
        while (await series(client, "frozen")).get("fine") != 1:
            await asyncio.sleep(0.2)
    asked = len(fine.received)
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 6, 10)
    assert len(fine.received) == asked
    await client.post(agent("fsfreeze-thaw", FINE))


async def test_a_guest_that_was_stopped_while_it_was_frozen_has_no_series(ends: asyncio.Task[None]) -> None:
    await ends


async def test_without_a_table_in_the_configuration_there_is_no_page() -> None:
    async with Serving.of(site(vm(100, "web"))) as server:
        answer = await Client(server).get(PAGE)

    assert answer.status == 404
    assert b"[metrics]" in answer.body
