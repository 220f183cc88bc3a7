"""The limit of open files: raised, shared out, and said when it is too low."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from calling import Client, agent, connected, site, vm
from hypothesis import given
from hypothesis import strategies as st
from serving import Serving

from guestwire.app.descriptors import RESERVED, shares_of
from guestwire.server.listener import MAX_CONNECTIONS
from guestwire.testing import FakeGuest


@given(limit=st.integers(200, 10**6), needed=st.integers(0, 10**5))
def test_clients_keep_a_share_and_all_fit(limit: int, needed: int) -> None:
    shares = shares_of(limit, needed)

    assert shares.guests + shares.clients + RESERVED == limit
    assert shares.clients >= min(MAX_CONNECTIONS, (limit - RESERVED) // 4)
    assert shares.guests >= needed or shares.clients == (limit - RESERVED) // 4 or shares.clients == MAX_CONNECTIONS


VMS = range(100, 400)


@contextlib.asynccontextmanager
async def serving(open_files: str) -> AsyncIterator[Serving]:
    """A server with 300 VMs, whose agents all answer."""
    async with Serving.of(site(*map(vm, VMS)), open_files=open_files) as server, contextlib.AsyncExitStack() as stack:
        for vmid in VMS:
            await stack.enter_async_context(FakeGuest(server.folder / f"{vmid}.qga"))
        yield server


@pytest.mark.slow
async def test_more_vms_than_descriptors_leave_room_for_clients_and_that_is_said() -> None:
    async with serving("ulimit -n 512") as server:
        client = Client(server)
        answers = [await client.post(agent("ping", vmid)) for vmid in VMS]
        async with contextlib.AsyncExitStack() as stack:
            for number in range(200):
                await stack.enter_async_context(connected(server.port, None, f"127.0.0.{number // 9 + 2}"))
            late = await client.get("/api2/json/version")
        log = server.log

    reasons = Counter(answer.reason for answer in answers)
    assert reasons == {"OK": 288, "QEMU guest agent is not running": 12}
    assert late.status == 200
    assert (
        "512 open files are allowed, which is enough for 288 of 300 connections to guests that the configuration"
        " names, and for 96 clients; raise the limit to 2428 (systemd: LimitNOFILE, a shell: ulimit -n)"
    ) in log


@pytest.mark.slow
async def test_the_limit_is_raised_as_far_as_it_goes() -> None:
    async with serving("ulimit -Sn 128 && ulimit -Hn 4096") as server:
        answers = [await Client(server).post(agent("ping", vmid)) for vmid in VMS]
        assert "open files are allowed" not in server.log

    assert {answer.status for answer in answers} == {200}
