"""Waits for what only asking can tell."""

import asyncio
from collections.abc import Awaitable, Callable

from guestwire.errors import GuestError


async def until(holds: Callable[[], bool], within: float = 5.0) -> None:
    """Waits until `holds()`; fails after `within` seconds."""
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)


async def until_succeeds(call: Callable[[], Awaitable[object]], within: float = 5.0) -> None:
    """Calls again and again until there is no `GuestError`; fails after `within` seconds."""
    async with asyncio.timeout(within):
        while not await succeeds(call()):
            await asyncio.sleep(0.02)


async def succeeds(call: Awaitable[object]) -> bool:
    """Whether the call ends without a `GuestError`."""
    try:
        await call
    except GuestError:
        return False
    return True
