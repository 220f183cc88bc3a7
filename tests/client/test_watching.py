"""What changes inside guests is seen over every way, also where the host tells nothing."""

import asyncio
import itertools
from contextlib import aclosing

import pytest
from happenings import tells_nothing
from ways import Way

from guestwire.client.watching import follow

pytestmark = pytest.mark.agent


@pytest.mark.parametrize("way", ["unix", "guestwire", "limited"], indirect=True)
async def test_a_new_host_name_is_seen_where_the_host_tells_nothing(way: Way) -> None:
    before = (await way.guest.get_host_name()).host_name
    is_ready = asyncio.Event()
    followed = follow(way.host, tells_nothing, is_ready.set, every=0.1, facts_every=0.1)
    async with asyncio.timeout(60), aclosing(followed) as events:
        first = asyncio.ensure_future(anext(events))
        await is_ready.wait()
        for number in itertools.count():  # until one name was seen before the next one
            await way.guest.run(["hostname", f"elsewhere-{number}"], check=True)
            done, _ = await asyncio.wait([first], timeout=1)
            if done:
                break
        event = await first
        await way.guest.run(["hostname", before], check=True)
        async for last in events:
            if last.words.startswith(f"its host name is {before},"):
                break

    assert (event.kind, event.name) == ("host-name-changed", way.guest.vm.name)
    assert event.words.startswith("its host name is elsewhere-")
