"""SIGHUP: the VMs of the file are read again, and no call in flight is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import Answer, Client, agent, site, vm
from serving import Serving
from waiting import until

from guestwire.testing import FakeGuest

pytestmark = pytest.mark.slow

VMS = "/api2/json/nodes/pve1/qemu"


BEGIN = (vm(100, "web"), vm(101))


@pytest.fixture(scope="module")
async def process() -> AsyncIterator[Serving]:
    async with Serving.of(site(*BEGIN)) as server:
        yield server


@pytest.fixture
async def server(process: Serving) -> Serving:
    """The process, with the VMs that a test begins with."""
    await reload(process, *BEGIN)
    return process


@pytest.fixture
async def guest(server: Serving) -> AsyncIterator[FakeGuest]:
    """VM 100's."""
    async with FakeGuest(server.folder / "100.qga") as guest:
        yield guest


async def reload(server: Serving, *vms: str, more: str = "") -> str:
    """Writes the file anew and reloads it; returns what was logged."""
    (server.folder / "guestwire.toml").write_text(site(*vms, server=more)(server.folder, server.port))
    return await said_after_a_signal(server)


async def said_after_a_signal(server: Serving) -> str:
    before = len(server.log)
    server.signal(signal.SIGHUP)
    await until(lambda: "reloaded: " in server.log[before:])
    said = server.log[before:].partition("reloaded: ")[2].splitlines(keepends=True)
    return "".join(line for line in said if " guestwire.requests " not in line)  # of calls before, written together


async def listed(client: Client) -> dict[int, str]:
    return {vm["vmid"]: vm.get("name") for vm in (await client.get(VMS)).data}


async def test_a_new_vm_is_served_one_that_was_removed_is_gone_and_a_new_name_shows(
    server: Serving, guest: FakeGuest
) -> None:
    client = Client(server)
    assert await listed(client) == {100: "web", 101: "VM 101"}

    said = await reload(server, vm(100, "db"), vm(102))

    assert said == "2 VMs\n"
    assert await listed(client) == {100: "db", 102: "VM 102"}
    assert (await client.post(agent("ping", 101))).reason.startswith("Configuration file 'nodes/pve1/qemu-server/101")
    async with FakeGuest(server.folder / "102.qga"):
        assert (await client.post(agent("ping", 102))).status == 200
    assert (await client.post(agent("ping"))).status == 200
    assert guest.names() == ["guest-ping"]


@pytest.mark.parametrize("vms", [(), (vm(100, "other"),), (vm(100, running="false"),)])
async def test_a_call_in_flight_ends_well_whatever_the_new_file_says_of_its_vm(
    server: Serving, guest: FakeGuest, vms: tuple[str, ...]
) -> None:
    guest.delay["guest-get-host-name"] = 0.5
    call = await begin(Client(server), guest)

    await reload(server, *vms)

    assert not call.done()
    assert (await call).data == {"result": {"host-name": "fake"}}


async def begin(client: Client, guest: FakeGuest) -> asyncio.Task[Answer]:
    """A call that has reached the guest."""
    call = asyncio.create_task(client.get(agent("get-host-name")))
    await until(lambda: "guest-get-host-name" in guest.names())
    return call


async def test_a_vm_that_moves_to_another_socket_is_reached_there(server: Serving, guest: FakeGuest) -> None:
    client = Client(server)
    await client.post(agent("ping"))
    async with FakeGuest(server.folder / "new.qga") as new:
        await reload(server, vm(100).replace("100.qga", "new.qga"))

        assert (await client.post(agent("ping"))).status == 200
        assert (len(guest.names()), new.names()) == (1, ["guest-ping"])


async def test_a_reload_keeps_the_channel_of_a_vm_that_stays(server: Serving, guest: FakeGuest) -> None:
    client = Client(server)
    await client.post(agent("ping"))
    await reload(server, vm(100, "web"), vm(101))
    await client.post(agent("ping"))

    assert [request["execute"] for request in guest.received].count("guest-sync-delimited") == 1
    assert guest.names() == ["guest-ping", "guest-ping"]


@pytest.mark.parametrize(
    ("broken", "says"),
    [("[[vm]\n", "guestwire.toml: "), (vm(100) + "vimd = 3\n", "line 11: unknown key 'vimd'"), (None, "No such file")],
    ids=["no TOML", "an unknown key", "no file"],
)
@pytest.mark.usefixtures("guest")
async def test_a_file_with_mistakes_changes_nothing_and_the_log_says_why(
    server: Serving, broken: str | None, says: str
) -> None:
    client, path = Client(server), server.folder / "guestwire.toml"
    spoil(path, broken, site(broken or "")(server.folder, server.port))

    said = await said_after_a_signal(server)

    assert says in said
    assert said.count("\n") == 1
    assert await listed(client) == {100: "web", 101: "VM 101"}
    assert (await client.post(agent("ping"))).status == 200


def spoil(path: Path, broken: str | None, text: str) -> None:
    if broken is None:
        path.unlink()
    else:
        path.write_text(text)


async def test_after_a_mistake_the_next_good_file_counts(server: Serving) -> None:
    (server.folder / "guestwire.toml").write_text("[[vm")
    await said_after_a_signal(server)

    await reload(server, vm(105))

    assert await listed(Client(server)) == {105: "VM 105"}


async def test_what_needs_a_restart_is_said(server: Serving) -> None:
    said = await reload(server, vm(100), more="tls = false")

    assert "changes under [server] need a restart" in said
    assert await listed(Client(server)) == {100: "VM 100"}


async def test_many_reloads_while_calls_run_lose_none(server: Serving, guest: FakeGuest) -> None:
    client, stop = Client(server), asyncio.Event()

    async def calls() -> int:
        done = 0
        while not stop.is_set():
            assert (await client.get(agent("get-host-name"))).data == {"result": {"host-name": "fake"}}
            done += 1
        return done

    callers = [asyncio.create_task(calls()) for _ in range(3)]
    for number in range(10):
        await reload(server, vm(100, f"name{number}"), *([vm(101)] if number % 2 else []))
    stop.set()

    assert sum(await asyncio.gather(*callers)) == guest.names().count("guest-get-host-name")
