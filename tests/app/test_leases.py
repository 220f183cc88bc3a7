"""Freezes end by themselves: with their lease, with their caller's connection, and after the server was killed."""

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from calling import Client, agent, guestwire, site, vm
from freezes import FrozenGuest
from persons import authorization, person, settling
from serving import Serving
from waiting import until

from devtools.guests import Machine
from guestwire.client import connect
from guestwire.client.errors import FreezeLost, WrongParameters
from guestwire.client.freezing import end_freeze, freeze_for
from guestwire.testing import FakeGuest

pytestmark = pytest.mark.slow

OWN = "/api2/json/nodes/pve1/qemu/100/guestwire/fsfreeze-freeze"
LIST = "/api2/json/nodes/pve1/guestwire/frozen"
LONG = 3600
ARMED = "fe0"


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100, "web"), vm(101)), killed=True) as server:
        yield server


@pytest.fixture
async def fake(server: Serving) -> AsyncIterator[FakeGuest]:
    async with FakeGuest(server.folder / "100.qga") as guest:
        yield guest


@pytest.fixture
def client(server: Serving) -> Client:
    return Client(server)


async def listed(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(LIST)).data
    return found


async def test_a_freeze_ends_with_its_lease(server: Serving, client: Client, fake: FakeGuest) -> None:
    guest = FrozenGuest(fake, 3, 3)
    answer = await client.post(OWN, **{"guestwire-lease": 1})
    (found,) = await listed(client)
    await until(lambda: not guest.is_frozen, 10)

    assert (answer.data["frozen"], answer.data["watchdog"]) == (3, False)
    assert "guest-exec" in answer.data["problem"]
    assert (found["vmid"], found["name"], found["by"], found["count"]) == (100, "web", "root@pam!admin", 3)
    assert found["until"] - found["since"] <= 1
    await until(lambda: "VM 100: 3 file systems are thawed" in server.log)
    assert await listed(client) == []
    assert "WARNING guestwire.freezes" not in server.log


@pytest.mark.parametrize("is_own", [True, False])
async def test_who_froze_a_guest_and_reboots_it_is_through_with_the_freeze(is_own: bool) -> None:
    power = vm(100, "web") + 'power = { reboot = ["true"] }\n'
    people = settling(person("ann@pve", ("/", "Administrator")))
    async with Serving.of(site(power), prepare=people) as server, FakeGuest(server.folder / "100.qga") as fake:
        guest, client = FrozenGuest(fake, 3, 3), Client(server)
        await client.post(OWN, **{"guestwire-lease": LONG})
        other = Client(server)
        other.authorization = authorization("ann@pve")
        upid = (await (client if is_own else other).post("/api2/json/nodes/pve1/qemu/100/status/reboot")).data
        task = f"/api2/json/nodes/pve1/tasks/{upid}"
        async with asyncio.timeout(20):
            while (ended := (await client.get(f"{task}/status")).data)["status"] == "running":
                await asyncio.sleep(0.05)
        said = [line["t"] for line in (await client.get(f"{task}/log")).data]

        assert ended["exitstatus"] == "OK"
        assert guest.is_frozen is not is_own
        assert bool(await listed(client)) is not is_own
        assert ("its file systems are thawed: the one who froze them asks for this" in said) is is_own


async def test_only_what_is_mounted_there_is_frozen(client: Client, fake: FakeGuest) -> None:
    guest = FrozenGuest(fake, 0, 2)

    def freeze(arguments: dict[str, Any]) -> int:
        guest.is_frozen = True
        return len(arguments["mountpoints"])

    fake.replies["guest-fsfreeze-freeze-list"] = freeze
    answer = await client.post(OWN, mountpoints=["/srv", "/var"])
    (found,) = await listed(client)
    thawed = await client.post(agent("fsfreeze-thaw"))

    assert answer.data == {"frozen": 2, "watchdog": False}
    assert (found["count"], found.get("until")) == (2, None)
    assert thawed.data == {"result": 2}
    assert await listed(client) == []


async def test_a_freeze_ends_with_the_connection_of_its_caller(client: Client, fake: FakeGuest) -> None:
    guest = FrozenGuest(fake, 3, 3)
    async with client.connection() as connection:
        body = json.dumps({"guestwire-lease": LONG, "while-connected": True}).encode()
        connection.send(client.request("POST", OWN, body, ["Content-Type: application/json"]))
        assert (await connection.answer()).data["frozen"] == 3
        (found,) = await listed(client)
        assert (found["connected"], guest.is_frozen) == (True, True)
        connection.drop()

    await until(lambda: not guest.is_frozen, 10)


async def test_a_caller_whose_machine_dies_is_missed(server: Serving, client: Client, fake: FakeGuest) -> None:
    """Its connection is never closed: the kernel asks whether it is there."""
    FrozenGuest(fake, 3, 3)
    async with client.connection() as connection:
        body = json.dumps({"while-connected": True}).encode()
        connection.send(client.request("POST", OWN, body, ["Content-Type: application/json"]))
        assert (await connection.answer()).status == 200
        ports = [f"{port:04X}" for port in (server.port, connection.writer.get_extra_info("sockname")[1])]

        def ticks_until_it_asks() -> list[int]:
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            timers = [row[5] for row in rows if [row[1][-4:], row[2][-4:]] == ports]
            return [int(timer[3:], 16) for timer in timers if timer.startswith("02:")]

        await until(lambda: bool(ticks_until_it_asks()))  # before that it waits for the answer to be taken
        assert all(ticks <= 10 * 100 for ticks in ticks_until_it_asks())


async def test_a_caller_that_leaves_while_the_guest_freezes_leaves_it_thawed(client: Client, fake: FakeGuest) -> None:
    guest = FrozenGuest(fake, 3, 3)
    fake.delay["guest-fsfreeze-freeze"] = 1.0
    async with client.connection() as connection:
        body = json.dumps({"guestwire-lease": LONG, "while-connected": True}).encode()
        connection.send(client.request("POST", OWN, body, ["Content-Type: application/json"]))
        await until(lambda: "guest-fsfreeze-freeze" in fake.names())
        connection.drop()

    await until(lambda: "guest-fsfreeze-thaw" in fake.names(), 10)
    await until(lambda: not guest.is_frozen)  # the fake notes a command before it obeys


@pytest.mark.parametrize("terms", [{"guestwire-lease": 2}, {"guestwire-lease": LONG, "while-connected": True}])
async def test_a_killed_server_thaws_at_its_next_start_what_is_over(
    server: Serving, client: Client, fake: FakeGuest, terms: dict[str, Any]
) -> None:
    guest = FrozenGuest(fake, 3, 3)
    async with client.connection() as connection:
        body = json.dumps(terms).encode()
        connection.send(client.request("POST", OWN, body, ["Content-Type: application/json"]))
        assert (await connection.answer()).status == 200
        await server.restart()

    await until(lambda: not guest.is_frozen, 15)
    await until(lambda: "VM 100: 3 file systems are thawed" in server.log)
    assert await listed(client) == []


async def test_a_killed_server_leaves_frozen_what_has_time_left(
    server: Serving, client: Client, fake: FakeGuest
) -> None:
    guest = FrozenGuest(fake, 3, 3)
    await client.post(OWN, **{"guestwire-lease": LONG})
    (before,) = await listed(client)
    await server.restart()
    await until(lambda: "VM 100 is still frozen" in server.log, 15)

    assert guest.is_frozen
    assert await listed(client) == [before]


async def test_a_guest_that_does_not_answer_is_told_again(client: Client, fake: FakeGuest) -> None:
    guest = FrozenGuest(fake, 3, "the file systems stay frozen", "they stay so", 3)
    await client.post(OWN, **{"guestwire-lease": 1})

    await until(lambda: fake.names().count("guest-fsfreeze-thaw") == 3, 15)
    await until(lambda: not guest.is_frozen)
    assert await listed(client) == []


async def test_a_vm_that_is_not_served_for_a_while_is_thawed_when_it_is_there_again(
    server: Serving, client: Client, fake: FakeGuest
) -> None:
    guest = FrozenGuest(fake, 3, 3)
    await client.post(OWN, **{"guestwire-lease": 2})
    config = server.folder / "guestwire.toml"
    before = config.read_text()
    config.write_text(before.replace("vmid = 100", "vmid = 109"))
    server.process.send_signal(signal.SIGHUP)
    await until(lambda: "VM 100 should be thawed" in server.log, 15)
    assert guest.is_frozen
    config.write_text(before)
    server.process.send_signal(signal.SIGHUP)

    await until(lambda: not guest.is_frozen, 15)
    trail = await guestwire("audit", "--state-dir", str(server.folder / "state"), "--json")
    assert trail.output.count("fsfreeze-thaw") == 1


async def test_a_freeze_that_is_thawed_in_time_ends_once(client: Client, fake: FakeGuest) -> None:
    FrozenGuest(fake, 3, 3, 5)
    await client.post(OWN, **{"guestwire-lease": 1})
    await client.post(agent("fsfreeze-thaw"))
    await client.post(OWN, **{"guestwire-lease": LONG})
    (found,) = await listed(client)

    assert found["until"] - found["since"] > 2
    assert fake.names().count("guest-fsfreeze-thaw") == 1


async def test_the_configuration_may_give_every_freeze_a_lease() -> None:
    async with (
        Serving.of(site(vm(100, "web"), server="freeze_lease = 1")) as server,
        FakeGuest(server.folder / "100.qga") as fake,
    ):
        guest = FrozenGuest(fake, 3, 3)
        answer = await Client(server).post(agent("fsfreeze-freeze"))
        await until(lambda: not guest.is_frozen, 10)

        assert answer.data == {"result": 3}


@pytest.mark.parametrize("lease", [0, -1, 86_401, "soon"])
async def test_a_lease_is_seconds_of_a_day_at_most(client: Client, fake: FakeGuest, lease: object) -> None:
    answer = await client.post(OWN, **{"guestwire-lease": lease})

    assert answer.status == 400
    assert "guest-fsfreeze-freeze" not in fake.names()


async def test_a_freeze_that_can_not_be_leaves_nothing_in_the_guest(folder: Path) -> None:
    async with FakeGuest(folder / "100.qga") as fake:
        FrozenGuest(fake, 3, 3)
        fake.replies["guest-exec"] = {"pid": 7}
        output = base64.b64encode(b"12 345\n").decode()
        fake.replies["guest-exec-status"] = {"exited": True, "exitcode": 0, "out-data": output}
        async with await connect(f"unix:{fake.path}") as host:
            guest = await host.guest(100)
            with pytest.raises(WrongParameters, match="no connection here that could end"):
                await guest.fsfreeze_with_lease(guestwire_lease=60, while_connected=True)
            await until(lambda: fake.names().count("guest-exec") == 2)

            assert "guest-fsfreeze-freeze" not in fake.names()


async def test_the_watchdog_of_a_freeze_is_ended_with_it(server: Serving, client: Client, fake: FakeGuest) -> None:
    guest = FrozenGuest(fake, 3, 3)
    commands: list[list[str]] = []

    def execute(arguments: dict[str, Any]) -> dict[str, int]:
        commands.append(arguments["arg"])
        return {"pid": len(commands)}

    fake.replies["guest-exec"] = execute
    output = base64.b64encode(b"12 345\n").decode()
    fake.replies["guest-exec-status"] = {"exited": True, "exitcode": 0, "out-data": output}
    answer = await client.post(OWN, **{"guestwire-lease": LONG})
    (found,) = await listed(client)
    await server.restart()
    await until(lambda: "VM 100 is still frozen" in server.log, 15)
    await client.post(agent("fsfreeze-thaw"))
    await until(lambda: len(commands) == 2)

    assert (answer.data["watchdog"], found["watchdog"], guest.is_frozen) == (True, True, False)
    assert commands[0][-1] == str(LONG + 1)
    assert commands[1][-2:] == ["12", "345"]


@pytest.mark.guest
async def test_a_real_guest_thaws_itself_when_nothing_else_does(machine: Machine) -> None:
    target = f"unix:{machine.agent_socket}"
    async with await connect(target) as host:
        frozen = await freeze_for(await host.guest("guest100"), 1)
    # The write waits until the guest is thawed, and nobody is connected to its agent.
    await machine.shell("echo x >/mnt/data/after", within=20)
    async with await connect(target) as host:
        guest = await host.guest("guest100")
        with pytest.raises(FreezeLost):
            await end_freeze(guest)
        assert await guest.fsfreeze_status() == "thawed"

    assert (frozen.frozen, frozen.watchdog, frozen.problem) == (1, True, None)


@pytest.mark.guest
async def test_what_a_freeze_leaves_in_a_real_guest_is_taken_away(machine: Machine) -> None:
    async with await connect(f"unix:{machine.agent_socket}") as host:
        guest = await host.guest("guest100")
        async with guest.freeze(lease=50) as count:
            await machine.shell("(echo x >/mnt/data/during &); sleep 1; ! test -e /mnt/data/during")
        gone = "! test -e /run/guestwire-watchdog && ! pgrep -f 'sleep 5[1]'"
        await machine.shell(f"for i in 1 2 3 4 5 6 7 8 9; do {gone} && exit 0; sleep 1; done; exit 1")
        async with guest.freeze(mountpoints=["/mnt/data"]) as single:
            pass

    assert (count, single) == (1, 1)


@pytest.mark.guest
async def test_a_thaw_by_another_process_ends_the_watchdog_too(machine: Machine) -> None:
    """Else it ended the next freeze, whose owner may not notice."""
    target = f"unix:{machine.agent_socket}"
    frozen = await guestwire("--host", target, "freeze", "--yes", "--lease", "50", "guest100")
    armed = await machine.shell("cat /run/guestwire-watchdog")
    thawed = await guestwire("--host", target, "thaw", "guest100")

    assert (frozen.code, thawed.code) == (0, 0)
    assert armed
    await machine.shell("! test -e /run/guestwire-watchdog && ! pgrep -f 'sleep 5[1]'")


async def test_a_freeze_of_fewer_than_were_named_is_none(client: Client, fake: FakeGuest) -> None:
    guest = FrozenGuest(fake, 1, 1)
    fake.replies["guest-fsfreeze-freeze-list"] = fake.replies["guest-fsfreeze-freeze"]
    answer = await client.post(OWN, mountpoints=["/srv", "/no/such"])

    assert answer.status == 500
    assert "of 2 mount points only 1 could be frozen; they are thawed again" in answer.reason
    assert (guest.is_frozen, await listed(client)) == (False, [])


async def test_a_freeze_of_nothing_is_a_mistake(client: Client, fake: FakeGuest) -> None:
    body = json.dumps({"mountpoints": []}).encode()
    async with client.connection() as connection:
        connection.send(client.request("POST", OWN, body, ["Content-Type: application/json"]))
        answer = await connection.answer()

    assert answer.status == 400
    assert b"leave it out to freeze all" in answer.body
    assert "guest-fsfreeze-freeze-list" not in fake.names()


async def test_a_freeze_of_fewer_that_can_not_be_undone_says_so(client: Client, fake: FakeGuest) -> None:
    FrozenGuest(fake, 1, "the file systems stay frozen", 1)
    fake.replies["guest-fsfreeze-freeze-list"] = fake.replies["guest-fsfreeze-freeze"]
    answer = await client.post(OWN, mountpoints=["/srv", "/no/such"])
    (found,) = await listed(client)

    assert answer.status == 500
    assert "only 1 could be frozen; they could not be thawed, and may still be frozen" in answer.reason
    assert found["count"] == 1
