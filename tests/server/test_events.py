"""What happens to guests is told: by the server as a stream, by the client over every way, on the command line."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from calling import Client, agent, site, vm
from freezes import FrozenGuest
from happenings import followed
from persons import authorization, person, settling
from serving import Serving, start
from waiting import until
from ways import options_for, over_https

from guestwire.contract.guest_events import Seen, compare
from guestwire.stores import Change, Put, Role
from guestwire.testing import FakeGuest

pytestmark = pytest.mark.slow

EVENTS = "/api2/json/nodes/pve1/guestwire/events"
LOOKER: list[Change] = [Put(Role("Looker", frozenset({"VM.Audit"})))]


def seen(vm: str) -> str:
    """It runs while its agent's socket is there."""
    return vm.replace("running = true\n", "")


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    people = settling(
        person("ann@pve", ("/vms/100", "Administrator")), person("looker@pve", ("/vms/100", "Looker")), LOOKER
    )
    async with Serving.of(site(*map(seen, (vm(100, "web"), vm(101, "db")))), prepare=people) as server:
        yield server


async def events(connection: Any) -> AsyncIterator[dict[str, Any]]:
    while line := await connection.reader.readline():
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


async def test_the_server_tells_whoever_may_see_it(server: Serving) -> None:
    client = Client(server)
    root, ann = client.request("GET", EVENTS), Client(server)
    ann.authorization = authorization("ann@pve")
    async with client.connection() as all_of_them, client.connection() as hers, asyncio.timeout(30):
        all_of_them.send(root)
        hers.send(ann.request("GET", EVENTS))
        head = await all_of_them.reader.readuntil(b"\r\n\r\n")
        for connection in (all_of_them, hers):
            await connection.reader.readuntil(b": guestwire\n\n")
        stream, hers_stream = events(all_of_them), events(hers)
        async with FakeGuest(server.folder / "101.qga"), FakeGuest(server.folder / "100.qga") as web:
            FrozenGuest(web, 2, 2)
            first = [(one["kind"], one["name"]) for one in [await anext(stream) for _ in range(4)]]
            of_ann = [await anext(hers_stream), await anext(hers_stream)]
            await client.post(agent("fsfreeze-freeze"))
            frozen = await anext(stream)
            await client.post(agent("fsfreeze-thaw"))
            thawed = await anext(stream)
            of_ann += [await anext(hers_stream), await anext(hers_stream)]
        stopped = {(one["kind"], one["name"]) for one in [await anext(stream), await anext(stream)]}

    assert b"text/event-stream" in head
    assert b"Content-Length" not in head
    assert set(first) == {(kind, name) for kind in ("guest-started", "agent-up") for name in ("web", "db")}
    assert [kind for kind, name in first if name == "web"] == ["guest-started", "agent-up"]
    assert (frozen["kind"], frozen["vmid"], frozen["words"]) == (
        "frozen",
        100,
        "its file systems are frozen, by root@pam!admin",
    )
    assert thawed["kind"] == "thawed"
    assert stopped == {("guest-stopped", "web"), ("guest-stopped", "db")}
    assert [one["kind"] for one in of_ann] == ["guest-started", "agent-up", "frozen", "thawed"]


async def test_the_end_of_the_server_ends_the_stream(server: Serving) -> None:
    client = Client(server)
    async with client.connection() as connection, asyncio.timeout(20):
        connection.send(client.request("GET", EVENTS))
        await connection.reader.readuntil(b": guestwire\n\n")
        await server.stop()
        assert await connection.reader.read() is not None


async def test_a_stream_needs_a_login(server: Serving) -> None:
    client = Client(server)
    client.authorization = "X: y"

    assert (await client.get(EVENTS)).status == 401


async def test_python_hears_of_it(server: Serving) -> None:
    async with await over_https(server) as host, followed(host) as happenings:
        async with FakeGuest(server.folder / "100.qga"):
            started = await happenings.wait_for("guest-started")
        await happenings.wait_for("guest-stopped")

    assert started.name == "web"


async def test_what_changes_inside_is_told_to_those_who_may_ask_the_agent(server: Serving) -> None:
    client = Client(server)
    client.authorization = authorization("looker@pve")
    async with client.connection() as looker, await over_https(server) as host, followed(host) as happenings:
        looker.send(client.request("GET", EVENTS))
        await looker.reader.readuntil(b": guestwire\n\n")
        async with FakeGuest(server.folder / "100.qga") as web:
            web.replies |= inside("old", "192.0.2.1", used=1)
            await happenings.wait_for("agent-up")
            await until(lambda: "guest-get-time" in {one["execute"] for one in web.received})
        await happenings.wait_for("guest-stopped")
        async with FakeGuest(server.folder / "100.qga") as web:
            web.replies |= inside("new\x1b[31m", "192.0.2.2", used=95)
            renamed = await happenings.wait_for("host-name-changed")
            moved = await happenings.wait_for("addresses-changed")
            filled = await happenings.wait_for("file-system-full")
        of_looker = []
        async for event in events(looker):
            of_looker.append(event["kind"])
            if of_looker.count("guest-stopped") == 2:
                break

    assert renamed.words == "its host name is new\x1b[31m, and was old"
    assert moved.words == "has the address 192.0.2.2; no more 192.0.2.1"
    assert filled.words == "nearly full: /srv"
    assert of_looker == ["guest-started", "agent-up", "guest-stopped"] * 2


def inside(name: str, address: str, *, used: int) -> dict[str, Any]:
    """What an agent says of its guest."""
    addresses = [(address, "ipv4"), ("127.0.0.1", "ipv4"), ("fe80::1", "ipv6"), ("no address", "ipv4")]
    return {
        "guest-get-host-name": {"host-name": name},
        "guest-network-get-interfaces": [
            {
                "name": "eth0",
                "ip-addresses": [{"ip-address": one, "ip-address-type": kind, "prefix": 24} for one, kind in addresses],
            }
        ],
        "guest-get-fsinfo": [
            {"name": "vda", "mountpoint": "/srv", "type": "ext4", "disk": [], "used-bytes": used, "total-bytes": 100}
        ],
    }


async def test_a_host_that_is_lost_is_an_event_and_so_is_its_return(server: Serving) -> None:
    db = FakeGuest(server.folder / "101.qga")
    async with await over_https(server) as host, followed(host) as happenings, db:
        await happenings.wait_for("guest-started")
        server.process.kill()
        await server.process.wait()
        lost = await happenings.wait_for("host-lost")
        async with FakeGuest(server.folder / "100.qga"):
            server.process = await start(server.folder, {})
            back = await happenings.wait_for("host-back")
            meanwhile = await happenings.wait_for("guest-started")

    assert (lost.vmid, back.words, meanwhile.name) == (0, "answers again", "web")


async def test_the_command_writes_a_line_for_each(server: Serving) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guestwire", *options_for(server), "watch", "--json", "web",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    try:
        async with asyncio.timeout(30):
            said = await process.stderr.readline()
            async with FakeGuest(server.folder / "101.qga"), FakeGuest(server.folder / "100.qga"):
                line = json.loads(await process.stdout.readline())
            process.send_signal(signal.SIGINT)
            code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
            await process.wait()

    assert said.startswith(b"watching https://")
    assert (line["kind"], line["name"]) == ("guest-started", "web")
    assert code == 130


SEEN = Seen("web", "n", "running")
UP = SEEN._replace(agent="agent-up")
RUNS = SEEN._replace(run_state="running")


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        (None, SEEN, ["guest-added"]),
        (SEEN, None, ["guest-removed"]),
        (SEEN, SEEN, []),
        (SEEN, SEEN._replace(status="stopped"), ["guest-stopped"]),
        (SEEN._replace(status="stopped"), SEEN, ["guest-started"]),
        (SEEN, SEEN._replace(agent="agent-up"), []),
        (UP, SEEN, []),
        (UP, UP._replace(agent="agent-silent"), ["agent-silent"]),
        (UP, UP._replace(agent="agent-gone"), ["agent-gone"]),
        (UP._replace(agent="agent-silent"), UP, ["agent-up"]),
        (UP._replace(agent="agent-silent"), UP._replace(agent="agent-gone"), []),
        (UP, UP._replace(status="stopped", agent="agent-gone"), ["guest-stopped"]),
        (SEEN._replace(status="stopped", agent="agent-gone"), SEEN._replace(agent="agent-silent"), ["guest-started"]),
        (SEEN._replace(status="stopped", agent="agent-gone"), UP, ["guest-started", "agent-up"]),
        (SEEN._replace(resets=0), SEEN._replace(resets=1), ["guest-reset"]),
        (SEEN._replace(resets=None), SEEN._replace(resets=1), []),
        (SEEN._replace(start=7, resets=3), SEEN._replace(start=8, resets=0), ["guest-stopped", "guest-started"]),
        (SEEN._replace(start=7), SEEN._replace(status="stopped"), ["guest-stopped"]),
        (RUNS, RUNS._replace(run_state="paused"), ["guest-paused"]),
        (RUNS, RUNS._replace(run_state="suspended"), ["guest-suspended"]),
        (RUNS._replace(run_state="suspended"), RUNS, ["guest-resumed"]),
        (RUNS, RUNS._replace(run_state="inmigrate"), []),
        (RUNS, RUNS._replace(run_state=None), []),
        (SEEN, SEEN._replace(frozen_by="ann@pve"), ["frozen"]),
        (SEEN._replace(frozen_by="ann@pve"), SEEN, ["thawed"]),
        (SEEN, SEEN._replace(name="db", tags="x"), ["renamed", "retagged"]),
    ],
)
def test_two_looks_are_compared(old: Seen | None, new: Seen | None, kinds: list[str]) -> None:
    before, after = ({1: one} if one else {} for one in (old, new))

    found = list(compare(before, after))

    assert [event.kind for event in found] == kinds
    assert {event.vmid for event in found} <= {1}
    assert list(compare(before, after, only=[2])) == []
