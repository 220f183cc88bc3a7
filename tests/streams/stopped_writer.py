"""A program in a guest that writes for ever, and is stopped by who does not read."""

import asyncio

from guestwire import Guest

WRITES = "i=0; while head -c 65536 /dev/zero; do i=$((i + 1)); echo $i >/run/blocks; done"


async def blocks_when_stopped(guest: Guest) -> int:
    """Waits until it writes no more; how many blocks of 64 KiB it has written."""
    before, now = -1, 0
    while before != now:
        before = now
        await asyncio.sleep(1)
        now = int(await guest.read_file("/run/blocks"))
    return now
