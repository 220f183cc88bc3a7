"""Guests whose answers never end: they are bounded in memory all together, and others are served meanwhile."""

import asyncio
import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from calling import Client, agent, site, vm
from serving import Serving

from guestwire.testing import FakeGuest
from guestwire.testing.fake import Action, Exchange

pytestmark = pytest.mark.slow

MIB = 2**20
HOSTILE = range(101, 121)

MOST_MEMORY = 200 * MIB
"""Of the server, at its highest: it has 45 to 50 MiB before, 32 MiB are for all answers, and one may be let through beyond them."""


def endless(exchange: Exchange) -> Iterable[Action]:
    """An answer to exec-status without an end."""
    if exchange.request["execute"] != "guest-exec-status":
        return exchange.honest
    return [b'{"return": {"exited": true, "out-data": "', *[b"A" * MIB] * 60]


def peak(pid: int) -> int:
    """The most memory that a process had, in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


async def test_answers_of_twenty_guests_that_never_end_stay_within_bounds_and_others_are_served() -> None:
    async with (
        Serving.of(site(*map(vm, [100, *HOSTILE]))) as server,
        contextlib.AsyncExitStack() as stack,
        FakeGuest(server.folder / "100.qga"),
    ):
        for vmid in HOSTILE:
            await stack.enter_async_context(FakeGuest(server.folder / f"{vmid}.qga", fault=endless))
        client = Client(server)
        calls = [asyncio.create_task(client.get(agent("exec-status", vmid), pid=7)) for vmid in HOSTILE]
        pings = []
        while not all(call.done() for call in calls):
            pings.append((await client.post(agent("ping"))).status)
        answers = await asyncio.gather(*calls)
        most = peak(server.process.pid)

    assert set(pings) == {200}
    assert {answer.status for answer in answers} == {500}
    assert most < MOST_MEMORY, f"{most / MIB:.0f} MiB"
