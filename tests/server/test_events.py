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
from persons import authorization, person, settling
from serving import Serving, start
from ways import options_for, over_https

from guestwire.contract.guest_events import Seen, compare
from guestwire.testing import FakeGuest

pytestmark = pytest.mark.slow

EVENTS = "/api2/json/nodes/pve1/guestwire/events"
ANN = settling(person("ann@pve", ("/vms/100", "Administrator")))


def seen(vm: str) -> str:
    """It runs while its agent's socket is there."""
    return vm.replace("running = true\n", "")


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(*map(seen, (vm(100, "web"), vm(101, "db")))), prepare=ANN) as server:
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
        await asyncio.sleep(1.5)  # both have looked once
        stream, hers_stream = events(all_of_them), events(hers)
        async with FakeGuest(server.folder / "101.qga"), FakeGuest(server.folder / "100.qga") as web:
            FrozenGuest(web, 2, 2)
            first = {(one["kind"], one["name"]) for one in [await anext(stream), await anext(stream)]}
            of_ann = [await anext(hers_stream)]
            await client.post(agent("fsfreeze-freeze"))
            frozen = await anext(stream)
            await client.post(agent("fsfreeze-thaw"))
            thawed = await anext(stream)
            of_ann += [await anext(hers_stream), await anext(hers_stream)]
        stopped = {(one["kind"], one["name"]) for one in [await anext(stream), await anext(stream)]}

    assert b"text/event-stream" in head
    assert b"Content-Length" not in head
    assert first == {("guest-started", "web"), ("guest-started", "db")}
    assert (frozen["kind"], frozen["vmid"], frozen["words"]) == (
        "frozen",
        100,
        "its file systems are frozen, by root@pam!admin",
    )
    assert thawed["kind"] == "thawed"
    assert stopped == {("guest-stopped", "web"), ("guest-stopped", "db")}
    assert [one["kind"] for one in of_ann] == ["guest-started", "frozen", "thawed"]


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
    async with await over_https(server) as host, asyncio.timeout(30):
        stream = host.events()
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1)
        async with FakeGuest(server.folder / "100.qga"):
            started = await waiting
        stopped = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # a generator is one

    assert (started.kind, started.name, stopped.kind) == ("guest-started", "web", "guest-stopped")


async def test_a_host_that_is_lost_is_an_event_and_so_is_its_return(server: Serving) -> None:
    async with await over_https(server) as host, asyncio.timeout(60):
        stream = host.events()
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1)
        server.process.kill()
        await server.process.wait()
        lost = await waiting
        server.process = await start(server.folder, {})
        back = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    assert (lost.kind, back.kind) == ("host-lost", "host-back")


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
            await asyncio.sleep(1)
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


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        (None, SEEN, ["guest-added"]),
        (SEEN, None, ["guest-removed"]),
        (SEEN, SEEN, []),
        (SEEN, SEEN._replace(status="stopped"), ["guest-stopped"]),
        (SEEN._replace(status="stopped"), SEEN, ["guest-started"]),
        (SEEN, SEEN._replace(silent_since=1.0), ["agent-silent"]),
        (SEEN._replace(silent_since=1.0), SEEN, ["agent-up"]),
        (SEEN._replace(silent_since=1.0), SEEN._replace(silent_since=2.0), []),
        (SEEN, SEEN._replace(status="stopped", silent_since=1.0), ["guest-stopped"]),
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
