"""`/metrics`: guests are polled in the background, whoever asks sees the guests that they may, and a guest that hangs costs its own series."""

import asyncio
import gzip
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def polled(*vms: Any) -> Callable[[Path, int], str]:
    def config(folder: Path, port: int) -> str:
        return f"{site(*vms)(folder, port)}\n{POLLED}"

    return config


async def series(client: Client, name: str) -> dict[str, float]:
    """The values of one metric by the guests' names."""
    answer = await client.get(PAGE)
    assert answer.status == 200, answer.reason
    found = [sample for family in parse(answer.body.decode()) for sample in family.samples]
    return {sample.labels["name"]: sample.value for sample in found if sample.name == f"guestwire_guest_{name}"}


async def test_real_guests_are_polled_and_each_caller_sees_its_own() -> None:
    people = settling(person("ann@pve", ("/vms/100", "Administrator")), person("bob@pve"))
    config = polled(vm(100, "web"), vm(101, "db"), vm(102, "gone"))
    async with Serving.of(config, prepare=people) as server:
        web, db = (SandboxedAgent(server.folder / f"{vmid}.qga", name=str(vmid)) for vmid in (100, 101))
        async with web, db:
            client = Client(server)
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


async def test_a_hanging_guest_costs_its_own_series_and_a_frozen_one_is_left_alone() -> None:
    async with Serving.of(polled(vm(100, "web"), vm(101, "db"))) as server:
        hangs, fine = (FakeGuest(server.folder / f"{vmid}.qga") for vmid in (100, 101))
        async with hangs, fine:
            for fake in (hangs, fine):
                fake.replies["guest-get-users"] = [{"user": "ann", "login-time": 1.0}]
            client = Client(server)
            async with asyncio.timeout(30):
                while len(await series(client, "users")) < 2:
                    await asyncio.sleep(0.2)
                hangs.pause()
                while (await series(client, "agent_up")).get("web") != 0:
                    await asyncio.sleep(0.2)
            assert await series(client, "users") == {"db": 1}

            FrozenGuest(fine, 2, 2)
            await client.post(re.sub("100", "101", agent("fsfreeze-freeze")))
            async with asyncio.timeout(30):
                while (await series(client, "frozen")).get("db") != 1:
                    await asyncio.sleep(0.2)
            asked = len(fine.received)
            began = time.monotonic()
            await until(lambda: time.monotonic() - began > 6, 10)
            assert len(fine.received) == asked
            await client.post(re.sub("100", "101", agent("fsfreeze-thaw")))


async def test_a_guest_that_was_stopped_while_it_was_frozen_has_no_series() -> None:
    web = vm(100, "web").replace("running = true\n", "")  # it runs while its agent's socket is there
    async with Serving.of(polled(web)) as server:
        client = Client(server)
        async with FakeGuest(server.folder / "100.qga") as fake, asyncio.timeout(30):
            FrozenGuest(fake, 2, 2)
            await client.post(agent("fsfreeze-freeze"))
            while await series(client, "frozen") != {"web": 1}:
                await asyncio.sleep(0.2)
        async with asyncio.timeout(30):
            while await series(client, "frozen"):
                await asyncio.sleep(0.2)


async def test_a_guest_whose_answer_to_one_command_is_odd_is_up_and_says_the_rest() -> None:
    async with Serving.of(polled(vm(100, "web"))) as server, FakeGuest(server.folder / "100.qga") as web:
        web.replies["guest-get-fsinfo"] = [{"name": 1}]
        web.replies["guest-get-users"] = [{"user": "ann", "login-time": 1.0}]
        client = Client(server)
        async with asyncio.timeout(30):
            while not await series(client, "users"):
                await asyncio.sleep(0.2)

        assert (await series(client, "agent_up"), await series(client, "users")) == ({"web": 1}, {"web": 1})


async def test_without_a_table_in_the_configuration_there_is_no_page() -> None:
    async with Serving.of(site(vm(100, "web"))) as server:
        answer = await Client(server).get(PAGE)

    assert answer.status == 404
    assert b"[metrics]" in answer.body
