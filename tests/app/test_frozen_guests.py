"""Who froze which guest is known to log, list, start and stop; what the server froze, it thaws when it is stopped."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from calling import Client, agent, guestwire, site, vm
from freezes import FrozenGuest
from persons import authorization, person, settling
from serving import Serving
from waiting import until

from guestwire.testing import FakeGuest

pytestmark = pytest.mark.slow

VMS = "/api2/json/nodes/pve1/qemu"
ANN = settling(person("ann@pve", ("/", "Administrator")))


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100, "web"), vm(101)), prepare=ANN, killed=True) as server:
        yield server


@pytest.fixture
async def fake(server: Serving) -> AsyncIterator[FakeGuest]:
    async with FakeGuest(server.folder / "100.qga") as guest:
        yield guest


@pytest.fixture
def client(server: Serving) -> Client:
    client = Client(server)
    client.authorization = authorization("ann@pve")
    return client


async def frozen(client: Client) -> dict[str, Any] | None:
    """What the list says of VM 100."""
    [found] = [vm for vm in (await client.get(VMS)).data if vm["vmid"] == 100]
    freeze: dict[str, Any] | None = found.get("frozen")
    return freeze


async def test_a_freeze_is_listed_and_logged_until_it_is_thawed(
    server: Serving, client: Client, fake: FakeGuest
) -> None:
    FrozenGuest(fake, 3, 3)
    assert await frozen(client) is None
    await client.post(agent("fsfreeze-freeze"))
    found = await frozen(client)
    await client.post(agent(), command="fsfreeze-thaw")

    assert found
    assert (found["by"], found["count"]) == ("ann@pve!tok", 3)
    assert await frozen(client) is None
    assert "VM 100: 3 file systems are frozen, by ann@pve!tok" in server.log
    assert "VM 100: 3 file systems are thawed after " in server.log
    assert "WARNING guestwire.freezes" not in server.log


@pytest.mark.parametrize("left", [0, 2])
async def test_a_thaw_of_fewer_than_were_frozen_is_a_warning(
    server: Serving, client: Client, fake: FakeGuest, left: int
) -> None:
    FrozenGuest(fake, 3, left)
    await client.post(agent("fsfreeze-freeze"))
    await client.post(agent("fsfreeze-thaw"))

    assert (
        "WARNING guestwire.freezes VM 100: the freeze was lost: 3 file systems were frozen by ann@pve!tok" in server.log
    )
    assert f"and only {left} were left to be thawed by ann@pve!tok" in server.log
    assert await frozen(client) is None


async def test_a_freeze_that_is_found_thawed_was_lost(server: Serving, client: Client, fake: FakeGuest) -> None:
    guest = FrozenGuest(fake, 3)
    await client.post(agent("fsfreeze-freeze"))
    await client.post(agent("fsfreeze-status"))
    assert await frozen(client)
    guest.is_frozen = False
    await client.post(agent("fsfreeze-status"))

    assert "VM 100: the freeze was lost: 3 file systems were frozen by ann@pve!tok" in server.log
    assert await frozen(client) is None


async def test_a_freeze_that_fails_is_none(client: Client, fake: FakeGuest) -> None:
    await client.post(agent("fsfreeze-freeze"))  # this agent does not know it
    assert await frozen(client) is None

    fake.replies["guest-fsfreeze-freeze"] = 0
    await client.post(agent("fsfreeze-freeze"))
    assert await frozen(client) is None


async def test_a_caller_that_leaves_while_the_guest_freezes_leaves_a_note(client: Client, fake: FakeGuest) -> None:
    FrozenGuest(fake, 3)
    fake.delay["guest-fsfreeze-freeze"] = 30.0
    async with client.connection() as connection:
        connection.send(client.request("POST", agent("fsfreeze-freeze")))
        await until(lambda: "guest-fsfreeze-freeze" in fake.names())
        connection.drop()

    found = await frozen(client)
    assert found
    assert "count" not in found


async def test_ls_shows_what_is_frozen(server: Serving, client: Client, fake: FakeGuest) -> None:
    FrozenGuest(fake, 3)
    options = ["--host", f"https://127.0.0.1:{server.port}", "--token-file", str(server.folder / "state/admin-token"), "--ca", str(server.folder / "state/server.pem"), "ls"]  # fmt: skip
    before = await guestwire(*options)
    await client.post(re.sub("agent/", "guestwire/", agent("fsfreeze-freeze")), **{"guestwire-lease": 3600})
    after = await guestwire(*options)
    listed = {guest["name"]: guest for guest in json.loads((await guestwire(*options, "--json")).output)}

    assert "FROZEN" not in before.output
    assert re.search(r"FROZEN SINCE +UNTIL +BY", after.output)
    assert listed["web"]["frozen_until"] - listed["web"]["frozen_since"] > 3500
    assert listed["web"]["frozen_by"] == "ann@pve!tok"
    assert listed["VM 101"]["frozen_by"] is None


async def test_sigterm_thaws_what_was_frozen_and_that_is_recorded(
    server: Serving, client: Client, fake: FakeGuest
) -> None:
    guest = FrozenGuest(fake, 3, 3)
    await client.post(agent("fsfreeze-freeze"))
    await server.stop()

    assert not guest.is_frozen
    assert "VM 100: 3 file systems are thawed" in server.log
    trail = await guestwire("audit", "--state-dir", str(server.folder / "state"), "--json")
    assert '"address": "server"' in trail.output
    assert "agent/fsfreeze-thaw" in trail.output


async def test_a_guest_that_does_not_thaw_is_named_at_the_end(server: Serving, client: Client, fake: FakeGuest) -> None:
    FrozenGuest(fake, 3, "the file systems stay frozen")
    await client.post(agent("fsfreeze-freeze"))
    await server.stop()

    assert "VM 100 stays frozen: 3 file systems were frozen by ann@pve!tok" in server.log
    assert "thaw it: guestwire thaw 100" in server.log


@pytest.mark.parametrize("is_frozen", [True, False])
async def test_a_killed_server_knows_at_its_next_start_who_froze_what(
    server: Serving, client: Client, fake: FakeGuest, *, is_frozen: bool
) -> None:
    guest = FrozenGuest(fake, 3)
    await client.post(agent("fsfreeze-freeze"))
    guest.is_frozen = is_frozen
    await server.restart()

    says = "VM 100 is still frozen: 3" if is_frozen else "VM 100 is not frozen any more: 3"
    await until(lambda: f"{says} file systems were frozen by ann@pve!tok" in server.log, 15)
    assert ((await frozen(client)) or {}).get("count") == (3 if is_frozen else None)
    await server.stop()

    assert guest.is_frozen == is_frozen
    assert ("VM 100 stays frozen" in server.log) == is_frozen
