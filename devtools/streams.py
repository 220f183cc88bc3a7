"""What tests and benchmarks do alike with streams into guests."""

import asyncio
import hashlib
from collections.abc import Iterable

from guestwire.client.live_processes import LiveProcess


async def comes_back(process: LiveProcess, pieces: Iterable[bytes]) -> bool:
    """Sends pieces to a program that gives back what it gets, and ends its input; true if all of it came back, by SHA-256."""
    sent, came = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        for piece in pieces:
            sent.update(piece)
            await process.stdin.write(piece)
        await process.stdin.close()

    sending = asyncio.create_task(send())
    try:
        while data := await process.stdout.read(65536):
            came.update(data)
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return sent.digest() == came.digest()
