"""`python -m bench.hostile [SECONDS]`: a hundred hostile guests of every kind and one good one; exits with 1 when the good one suffers.

The hostile guests are in a process of their own, so that they take no part of this one's interpreter. Each is called all the time.
"""

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bench.timing import Samples
from guestwire.agent import commands as qga
from guestwire.agent.agent_client import AgentClient
from guestwire.channels import UnixChannel
from guestwire.errors import GuestError
from guestwire.testing import FakeGuest

GUESTS: Final = 100
SECONDS: Final = 20.0
MIB: Final = 1024 * 1024

MOST_P99: Final = 20.0
"""Milliseconds of the good guest's ping."""

MOST_MEMORY: Final = 200
"""MiB of this process, at its highest."""

Request = dict[str, Any]


class Guest:
    """One connection to a hostile guest: what it says when it is connected to, to a sync, and to a command. `None` hangs up."""

    def connected(self) -> Iterator[bytes | None]:
        """What it says at once."""
        yield from ()

    def sync(self, number: int) -> Iterator[bytes | None]:
        """What it says to a sync with this number."""
        yield b'\xff{"return": %d, "id": %d}\n' % (number, number)

    def command(self, request: Request) -> Iterator[bytes | None]:
        """What it says to a command."""
        yield b'{"return": {}, "id": %d}\n' % request["id"]


def _saying(*pieces: bytes | None, times: int = 1) -> type[Guest]:
    class Saying(Guest):
        def command(self, request: Request) -> Iterator[bytes | None]:
            for piece in itertools.chain.from_iterable(itertools.repeat(pieces, times)):
                yield piece if piece is None else piece.replace(b"ID", b"%d" % request["id"])

    return Saying


def _answering_syncs_with(*pieces: bytes | None, times: int) -> type[Guest]:
    class Answering(Guest):
        def sync(self, number: int) -> Iterator[bytes | None]:
            for piece in itertools.chain.from_iterable(itertools.repeat(pieces, times)):
                yield piece if piece is None else piece.replace(b"ID", b"%d" % number)

    return Answering


def _speaking_first(piece: bytes | None, *, after_sync: bool = False) -> type[Guest]:
    class Speaking(Guest):
        def connected(self) -> Iterator[bytes | None]:
            if not after_sync:
                yield from itertools.repeat(piece)

        def sync(self, number: int) -> Iterator[bytes | None]:
            yield from super().sync(number)
            yield from itertools.repeat(piece)

    return Speaking


class Dripping(Guest):
    """A byte a tenth of a second, for ever."""

    def command(self, request: Request) -> Iterator[bytes | None]:  # noqa: ARG002  # to all alike
        """See `Guest`."""
        yield b'{"return": "'
        yield from itertools.repeat(b"x")


END: Final = b', "id": ID}\n'
FOREVER: Final = 10**9


def kinds() -> dict[str, type[Guest]]:
    """All of them; they hold some 60 MiB, which the measuring process must not."""
    return {
        "deep brackets": _saying(b'{"return": ' + b"[" * 2 * MIB + b"]" * 2 * MIB + END),
        "47 MiB of brackets": _saying(b'{"return": [', b"[]," * (47 * MIB // 3), b"1]", END),
        "as many values as it may": _saying(b'{"return": [' + b'{"a":1},' * 65_000 + b"{}]" + END),
        "4 MiB of escapes": _saying(b'{"return": [' + b"[[[]]]," * 40 + b'"' + b"\\\\" * (2 * MIB - 400) + b'"]' + END),
        "4 MiB that is not UTF-8": _saying(b'{"return": "' + b"\xff" * (4 * MIB - 400) + b'"' + END),
        "an endless line": _saying(b"x" * MIB, times=FOREVER),
        "an endless reply": _saying(b'{"return": {"exited": true, "out-data": "', *[b"A" * MIB] * 1000),
        "47 MiB, and no end": _saying(b'{"return": {"exited": true, "out-data": "', *[b"A" * MIB] * 47),
        "a slow drip": Dripping,
        "endless short lines": _saying(b"\n" * 65536, times=FOREVER),
        "endless replies": _saying(b'{"return": {}}\n' * 4096, times=FOREVER),
        "replies unasked": _speaking_first(b'{"return": {}, "id": 1}\n' * 4096, after_sync=True),
        "short lines first": _speaking_first(b"{}\n" * 4096),
        "0xFF in long lines first": _speaking_first(b"\xff" + b"x" * 65000 + b"\n"),
        "0xFF in short lines first": _speaking_first(b"\xff\n" * 4096),
        "0xFF without lines": _speaking_first(b"\xff" * MIB),
        "syncs answered for ever": _answering_syncs_with(b'\xff{"return": ID, "id": ID}\n' * 1000, times=FOREVER),
        "hangs up": _speaking_first(None),
        "hangs up on commands": _saying(None),
        "silence": _answering_syncs_with(times=0),
        "silence to commands": _saying(),
        "garbage": _saying(b"no JSON\n"),
        "wrong ids": _saying(b'{"return": {}, "id": 7}\n'),
        "two replies": _saying(b'{"return": {}, "id": ID}\n' * 2),
    }


# The process of the hostile guests


def serve(folder: str) -> None:
    """Serves all of them until it is ended."""
    asyncio.run(_serve(Path(folder)))


async def _serve(folder: Path) -> None:
    for number, kind in zip(range(GUESTS), itertools.cycle(kinds().values()), strict=False):
        pause = 0.1 if kind is Dripping else 0
        await asyncio.start_unix_server(_speaker(kind, pause), folder / f"{number}.qga", limit=MIB)
    (folder / "ready").touch()
    await asyncio.Event().wait()


def _speaker(kind: type[Guest], pause: float) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(pieces: Iterator[bytes | None]) -> None:
            for piece in pieces:
                if piece is None:
                    raise ConnectionError
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)

        guest = kind()
        with contextlib.suppress(OSError):
            first = asyncio.create_task(say(guest.connected()))
            while line := await reader.readline():
                if first.done() and first.exception():
                    break
                request = json.loads(line.rpartition(b"\xff")[2])
                is_sync = request["execute"] == "guest-sync-delimited"
                await say(guest.sync(request["id"]) if is_sync else guest.command(request))
        first.cancel()
        writer.transport.abort()

    return serve_one


@contextlib.asynccontextmanager
async def hostile_guests(folder: Path) -> AsyncIterator[list[Path]]:
    """The sockets of a hundred of them."""
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(str(folder),), daemon=True)
    process.start()
    try:
        while not (folder / "ready").exists():  # noqa: ASYNC110  # another process says so
            await asyncio.sleep(0.05)
        yield [folder / f"{number}.qga" for number in range(GUESTS)]
    finally:
        process.kill()
        process.join()


# This process


async def _call_for_ever(agent: AgentClient, chance: random.Random) -> None:
    while True:
        with contextlib.suppress(GuestError):
            if chance.random() < 0.5:
                await agent.execute(qga.EXEC_STATUS, {"pid": 1})
            else:
                await agent.execute_raw(qga.GET_FSINFO.command)
        await asyncio.sleep(chance.uniform(0, 0.1))


async def _pings(channel: UnixChannel, seconds: float) -> Samples:
    values = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        await channel.execute(qga.PING.command)
        values.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.001)
    return Samples(values)


def _say(what: str, samples: Samples) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{what}: ping p50 {samples.median:.2f} ms, p99 {samples.p99:.2f} ms, longest {samples.longest:.1f} ms; memory {memory} MiB",
        flush=True,
    )


async def measure(seconds: float) -> bool:
    """Measures the good guest alone, then among the hostile ones; returns whether it stayed within the bounds."""
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        folder = Path(name)
        async with FakeGuest(folder / "good.qga") as good, hostile_guests(folder) as sockets:
            channel = UnixChannel(good.path, "VM 1")
            _say("alone", await _pings(channel, seconds / 10))
            channels = [UnixChannel(path, f"VM {100 + number}") for number, path in enumerate(sockets)]
            callers = [
                asyncio.create_task(_call_for_ever(AgentClient(each, "VM"), random.Random(number)))
                for number, each in enumerate(channels)
            ]
            first = await _pings(channel, seconds / 4)
            _say("when they begin", first)
            samples = await _pings(channel, seconds * 3 / 4)
            _say("among a hundred hostile guests", samples)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            for each in (channel, *channels):
                await each.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return max(first.p99, samples.p99) < MOST_P99 and memory < MOST_MEMORY


def main() -> None:
    """Measures and prints."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    sys.exit(0 if asyncio.run(measure(seconds)) else 1)


if __name__ == "__main__":
    main()
