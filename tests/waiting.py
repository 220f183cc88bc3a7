"""Waits for what only asking can tell."""

import asyncio
from collections.abc import Awaitable, Callable

from guestwire.client import Guest
from guestwire.errors import GuestError

DIES_WITHIN = 2.0


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


async def until_ended(guest: Guest, pid: str) -> None:
    """A process in a guest that was killed before runs no more, as soon as its kernel has had its turn.

    What is left of one until its parent asks how it ended does not run: that may be any time later.
    """
    deadline = asyncio.get_running_loop().time() + DIES_WITHIN
    runs = f"read -r line </proc/{pid}/stat && case ${{line##*) }} in [ZX]*) exit 1 ;; esac"
    while (await guest.run(["sh", "-c", runs])).ok:
        assert asyncio.get_running_loop().time() < deadline, f"process {pid} still runs"
        await asyncio.sleep(0.05)
