"""Terminals and streams into the Debian guest that `bench.live` boots: keys, first output, bytes, idle cost, many at once.

The echo of a key is made by the guest's kernel, for `cat` on a terminal: what is measured is the way there and back.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.results import STREAMS, Row
from bench.service import Vm, serve
from bench.timing import Samples
from devtools.guests import Machine
from devtools.streams import comes_back
from guestwire.client import Guest, connect
from guestwire.client.live_processes import LiveProcess
from guestwire.errors import GuestwireError

ROUNDS: Final = 2
KEYS: Final = 75
"""In one round, by one way."""

TYPING: Final = 0.06
"""Seconds between keys."""

OUTPUTS: Final = 4
WHOLE: Final = 1024
"""MiB."""

WHOLE_WITHIN: Final = 300.0
CARRIED: Final = 48 * 1024 * 1024
IDLE: Final = 20.0
TERMINALS: Final = 100
STREAMS_AT_ONCE: Final = 50
STARTED_AT_ONCE: Final = 6
PINGS: Final = 200
SETTLES: Final = 8.0
WITHIN: Final = 30.0
MANY_WITHIN: Final = 180.0
"""Seconds."""

STAMPS: Final = """
import sys, time
print(time.time_ns(), flush=True)
for line in sys.stdin: print(time.time_ns(), flush=True)
"""

HZ: Final = os.sysconf("SC_CLK_TCK")


async def measure(machine: Machine, folder: Path) -> list[Row]:
    """All of it, one after the other: QEMU's agent takes one client."""
    agent, port = f"unix:{machine.agent_socket}", f"unix:{machine.agent_socket}?qmp={machine.qmp_socket}"
    keys: dict[str, list[float]] = {"port": [], "server": []}
    first: dict[str, list[float]] = {"port": [], "server": []}
    for _ in range(ROUNDS):
        async with _guest_at(port) as guest:
            keys["port"] += await _echo_times(guest, "port")
            first["port"] += await _first_outputs(guest)
        async with _served(machine, folder) as guest:
            keys["server"] += await _echo_times(guest, "server")
            first["server"] += await _first_outputs(guest)
    async with _guest_at(agent) as guest:
        alone = Samples(await _echo_times(guest, "agent"))
        alone_first = Samples(await _first_outputs(guest))
    rows = [
        *_times("key to echo, a port of our own", Samples(keys["port"]), 3.0),
        *_times("key to echo, agent commands alone", alone, 25.0),
        *_times(
            "key to echo, by the server", Samples(keys["server"]), Samples(keys["port"]).median + 2.0, "port + 2 ms"
        ),
        *_times("first output after it was written, a port", Samples(first["port"]), 50.0),
        *_times("first output after it was written, by the server", Samples(first["server"]), 50.0),
        *_times("first output after it was written, agent commands alone", alone_first, 50.0),
    ]
    async with _guest_at(port) as guest:
        rows += [await _rate_out(guest), await _rate_in(guest), await _there_and_back(guest)]
    rows.append(await _idle_cost(machine, port))
    for name, count, tty in (("50 streams", STREAMS_AT_ONCE, False), ("100 idle terminals", TERMINALS, True)):
        try:
            async with _guest_at(port) as guest:
                rows += await _many(guest, name, count, tty=tty)
        except (GuestwireError, TimeoutError) as error:
            rows.append(
                Row(STREAMS, f"{name}: {str(error).rpartition(': ')[2][:80]}", "", None, None, "possible", met=False)
            )
    return rows


@asynccontextmanager
async def _guest_at(target: str, **options: str) -> AsyncIterator[Guest]:
    async with await connect(target, **options) as host:
        yield await host.guest((await host.guests())[0].name)


@asynccontextmanager
async def _served(machine: Machine, folder: Path) -> AsyncIterator[Guest]:
    async with serve(folder, [Vm(machine.vmid, machine.agent_socket, machine.qmp_socket)]) as service:
        address = service.address
        target = f"https://127.0.0.1:{address.port}"
        async with _guest_at(target, token=address.token, ca=str(address.certificate)) as guest:
            yield guest


async def _until_way(process: LiveProcess, way: str) -> None:
    """A stream that goes over to ports has done so."""
    await _until(lambda: process.way == way, f"a stream does not go by {way}")
    if way == "server":
        await asyncio.sleep(3)  # the server's own way is not told here


async def _until(holds: Callable[[], bool], why: str) -> None:
    try:
        async with asyncio.timeout(WITHIN):
            while not holds():  # noqa: ASYNC110  # only asking tells
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise BenchError(f"{why} in {WITHIN:g} seconds") from None


async def _echo_times(guest: Guest, way: str) -> list[float]:
    """Milliseconds from a key to its echo."""
    async with asyncio.timeout(WITHIN * 2), guest.start(["cat"], tty=True) as process:
        await _until_way(process, way)
        values = []
        for _ in range(KEYS):
            await asyncio.sleep(TYPING)
            values.append(await _echo_time(process))
        return values


async def _echo_time(process: LiveProcess) -> float:
    began = time.perf_counter()
    await process.stdin.write(b"k")
    if await process.stdout.read(16) != b"k":
        raise BenchError("a key's echo is another one")
    return (time.perf_counter() - began) * 1000


async def _first_outputs(guest: Guest) -> list[float]:
    """Milliseconds from a program's first word, by its own clock, to its arrival; that clock is compared by echoes."""
    values = []
    for _ in range(OUTPUTS):
        async with asyncio.timeout(WITHIN), guest.start(["python3", "-c", STAMPS]) as process:
            written = int(await process.stdout.readline())
            arrived = time.time_ns()
            offsets = []
            for _ in range(12):
                asked = time.time_ns()
                await process.stdin.write(b"\n")
                stamp = int(await process.stdout.readline())
                answered = time.time_ns()
                offsets.append((answered - asked, stamp - (asked + answered) // 2))
            values.append((arrived - (written - min(offsets)[1])) / 1e6)
    return values


async def _rate_out(guest: Guest) -> Row:
    program = f"read -r _; head -c {CARRIED} /dev/zero"
    async with asyncio.timeout(WITHIN * 2), guest.start(["sh", "-c", program]) as process:
        await _until_way(process, "port")
        began = time.perf_counter()
        await process.stdin.write(b"\n")
        count = 0
        while data := await process.stdout.read(65536):
            count += len(data)
        return _rate("48 MiB from the guest, a port", count, time.perf_counter() - began)


async def _rate_in(guest: Guest) -> Row:
    async with asyncio.timeout(WITHIN * 2), guest.start(["wc", "-c"]) as process:
        await _until_way(process, "port")
        began = time.perf_counter()
        await process.stdin.write(bytes(CARRIED))
        await process.stdin.close()
        count = int(await process.stdout.read())
        return _rate("48 MiB to the guest, a port", count, time.perf_counter() - began)


async def _there_and_back(guest: Guest) -> Row:
    """1 GiB both ways at once, by SHA-256."""
    piece = os.urandom(1024 * 1024)
    async with asyncio.timeout(WHOLE_WITHIN), guest.start(["cat"]) as process:
        await _until_way(process, "port")
        began = time.perf_counter()
        is_whole = await comes_back(process, (number.to_bytes(8, "big") + piece[8:] for number in range(WHOLE)))
    rate = WHOLE * len(piece) / (time.perf_counter() - began) / 1e6
    return Row(STREAMS, "1 GiB there and back at once, by SHA-256", "MB/s", None, rate, "whole", is_whole)


def _rate(name: str, count: int, seconds: float) -> Row:
    if count != CARRIED:
        raise BenchError(f"{name}: {count} of {CARRIED} bytes came")
    rate = count / seconds / 1e6
    return Row(STREAMS, name, "MB/s", None, rate, "at least 15 MB/s", rate >= 15.0)


async def _idle_cost(machine: Machine, target: str) -> Row:
    """Percent of a core that one idle shell takes: QEMU, which is the guest, and the client."""
    qemu = _qemu_of(machine)
    without = await _cpu(qemu, None)
    ours, theirs = os.openpty()
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guestwire", "--host", target, "shell", machine_name(machine),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    try:
        await asyncio.sleep(8)  # it is at its prompt, by a port
        with_it = await _cpu(qemu, client.pid)
        os.set_blocking(ours, False)
        if b"#" not in os.read(ours, 65536):
            raise BenchError("a shell did not come to its prompt in 28 seconds")
    finally:
        client.terminate()
        await client.wait()
        os.close(ours)
        os.close(theirs)
    cost = with_it - without
    return Row(
        STREAMS, "an idle terminal, guest and client", "% of a core", without, with_it, "at most 1 % more", cost <= 1.0
    )


def machine_name(machine: Machine) -> str:
    return f"guest{machine.vmid}"


async def _cpu(qemu: int, client: int | None) -> float:
    before, began = _ticks(qemu, client), time.perf_counter()
    await asyncio.sleep(IDLE)
    return (_ticks(qemu, client) - before) / HZ / (time.perf_counter() - began) * 100


def _ticks(qemu: int, client: int | None) -> int:
    """Of the guest's processors and all else that QEMU does for it, and of the client."""
    return _ticks_of(Path(f"/proc/{qemu}")) + (_ticks_of(Path(f"/proc/{client}")) if client else 0)


def _ticks_of(folder: Path) -> int:
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _qemu_of(machine: Machine) -> int:
    wanted = f"path={machine.qmp_socket},".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if wanted in words and b"qemu-system" in words.split(b"\0")[0]:
            return int(path.parent.name)
    raise BenchError("QEMU's process is not to be found")


async def _many(guest: Guest, name: str, count: int, *, tty: bool) -> list[Row]:
    """So many at once: whether they come up and carry bytes, and what a ping takes beside them."""
    turn = asyncio.Semaphore(STARTED_AT_ONCE)
    async with AsyncExitStack() as stack:

        async def start() -> LiveProcess:
            async with turn:
                return await stack.enter_async_context(guest.start(["cat"], tty=tty))

        began = time.perf_counter()
        starting = [asyncio.create_task(start()) for _ in range(count)]
        _, late = await asyncio.wait(starting, timeout=MANY_WITHIN)
        for task in late:
            task.cancel()
        found = await asyncio.gather(*starting, return_exceptions=True)
        seconds = time.perf_counter() - began
        processes = [one for one in found if isinstance(one, LiveProcess)]
        if len(processes) < count:
            failure = next(one for one in found if isinstance(one, BaseException))
            print(f"bench: {name}: {count - len(processes)} did not come up: {failure!r}", file=sys.stderr)
        # What is measured is a guest that has them, and not one that gets them.
        with contextlib.suppress(BenchError):
            await _until(lambda: all(process.way == "port" for process in processes), "streams do not go by ports")
        await asyncio.sleep(SETTLES)
        busy = [] if tty else [asyncio.create_task(_carry(process)) for process in processes]
        try:
            pings = await _pings(guest)
        finally:
            for carrying in busy:
                carrying.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
        echoes = [await _echo_time(process) for process in processes] if tty else []
        by_port = sum(process.way == "port" for process in processes)
    rows = [
        Row(
            STREAMS,
            f"{name}: came up, {by_port} by ports, in {seconds:.0f} s",
            "",
            None,
            len(processes),
            f"{count}",
            len(processes) == count,
        ),
        *_times(f"{name}: ping beside them", pings, None),
    ]
    rows[-1] = Row(STREAMS, f"{name}: ping beside them, p99", "ms", None, pings.p99, "at most 20 ms", pings.p99 <= 20.0)
    return rows + (_times(f"{name}: key to echo", Samples(echoes), None) if echoes else [])


async def _carry(process: LiveProcess) -> None:
    line = b"x" * 99 + b"\n"
    while True:
        await process.stdin.write(line)
        if await process.stdout.readline() != line:
            raise BenchError("a stream gave another line")
        await asyncio.sleep(1)


async def _pings(guest: Guest) -> Samples:
    values = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await guest.ping()
        values.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.02)
    return Samples(values)


def _times(name: str, samples: Samples, most: float | None, target: str = "") -> list[Row]:
    """Half and 99 of 100; the target is for the half."""
    good = None if most is None else samples.median <= most
    target = target or ("" if most is None else f"at most {most:g} ms")
    return [
        Row(STREAMS, f"{name}, p50", "ms", None, samples.median, target, good),
        Row(STREAMS, f"{name}, p99", "ms", None, samples.p99),
    ]
