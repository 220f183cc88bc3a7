"""What comes from a port of our own, whatever it waits for."""

import asyncio
import socket
import time

from guestwire.streams.marks import LEAD, LEAD_HELD_FOR, MarkScanner
from guestwire.streams.stream_ports import pieces_of


async def test_bytes_are_not_lost_that_come_as_the_wait_for_a_mark_ends() -> None:
    ours, other = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003
    found = bytearray()

    async def read() -> None:
        async for piece in pieces_of(ours, MarkScanner("0123456789")):
            found.extend(piece.data)

    with ours, other:
        other.send(b"some" + LEAD)
        reading = asyncio.create_task(read())
        while not found:
            await asyncio.sleep(0)
        other.send(b"more")
        time.sleep(2 * LEAD_HELD_FOR)  # noqa: ASYNC251  # the loop is busy: it sees both in one turn
        await asyncio.sleep(0.01)
        other.close()
        await reading

    assert bytes(found) == b"some" + LEAD + b"more"
