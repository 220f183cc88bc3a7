"""A watch that ends lets all go that follow it."""

import asyncio

from guestwire.inventory.guest_watch import GuestWatch


async def test_one_who_waits_for_the_first_look_is_let_go() -> None:
    watch = GuestWatch(dict, lambda _: None, "pve1")

    async def follow() -> list[object]:
        return [events async for events in watch.follow()]

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)  # it waits now, and nothing was looked at
    await watch.close()
    async with asyncio.timeout(10):
        assert await following == [[]]
