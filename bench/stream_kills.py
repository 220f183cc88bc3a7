"""`python -m bench.stream_kills KILLS`: what uses streams is killed at random moments; what stays, and how long. Exits with 1 for what stays too long.

Two real guests, one behind a service and one that a client reaches itself. Killed are, in turn: the client, the service,
the programs in the guest or the relays beside them, and the guest, by a reset. Seen are, by ways of their own, QEMU's
ports, the guest's folders, FIFOs and processes, and the processes here.
"""

import asyncio
import contextlib
import os
import random
import re
import secrets
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.service import Service, Vm, serve
from devtools.guests import GuestImage, Machine, accelerator, build, default_cache
from guestwire.client import Guest, connect
from guestwire.client.errors import CallFailed
from guestwire.client.live_processes import OutputStream

ALLOWED: Final = 30.0
"""Seconds."""

GIVES_UP_AFTER: Final = 75.0
MOMENTS: Final = 4.0
"""Seconds within which the kill comes: while streams start, go over to ports, carry bytes, and end."""

WAYS: Final = ("client", "programs", "relays", "reset")
SERVED_WAYS: Final = ("client", "service", "programs", "relays", "reset")

TAG: Final = "STREAM_KILLS"
"""A variable of every process of a run."""

WORD: Final = "guestwire-kills"
"""In the line of every program in a guest."""

PROGRAMS: Final = (
    f"while :; do echo {WORD}; sleep 0.1; done",
    f"cat; : {WORD}",
    f"cat /dev/zero; : {WORD}",
    f"trap '' HUP; sleep 1000 & wait; : {WORD}",
)

LEFT: Final = (
    "for d in /run /dev/shm /tmp /var/tmp; do ls -d $d/guestwire-stream-* 2>/dev/null; done; find /run /dev/shm /tmp /var/tmp -type p 2>/dev/null; "
    f"ps -o args | grep -e '[r]elay.sh' -e '{WORD[:-1]}[{WORD[-1]}]'; true"
)
KILL: Final = (
    "while p=$(ps -o pid,args | awk '/{what}/ {{print $1}}') && [ \"$p\" ]; do kill -9 $p; done 2>/dev/null; true"
)
"""Until none is left: one that forks meanwhile would leave half of it."""


async def main(kills: int) -> int:
    image = await asyncio.to_thread(build, default_cache())
    left = iter(range(kills))
    found: dict[str, list[float]] = defaultdict(list)
    began = time.monotonic()
    await asyncio.gather(*(_guest(image, left, found, served=served) for served in (True, False)))
    seconds = time.monotonic() - began
    print("| killed | times | all gone after, p50 | at most |\n| --- | --- | --- | --- |")
    for way in sorted(found):
        times = sorted(found[way])
        print(f"| {way} | {len(times)} | {times[len(times) // 2]:.1f} s | {times[-1]:.1f} s |")
    worst = max((one for times in found.values() for one in times), default=0.0)
    print(f"{sum(map(len, found.values()))} kills in {seconds:.0f} s; the longest that something stayed: {worst:.1f} s")
    return int(worst > ALLOWED)


async def _guest(image: GuestImage, left: Iterator[int], found: dict[str, list[float]], *, served: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-", ignore_cleanup_errors=True)))
        machine = Machine(image, folder, accel=await accelerator(image))
        tag = secrets.token_hex(8)
        await machine.start()
        stack.push_async_callback(machine.stop)
        await machine.wait_for_agent()
        host, service = {"GUESTWIRE_HOST": f"unix:{machine.agent_socket}?qmp={machine.qmp_socket}"}, None
        if served:
            os.environ[TAG] = tag  # the service gets it, at each of its starts
            service = await stack.enter_async_context(
                serve(folder, [Vm(100, machine.agent_socket, machine.qmp_socket)])
            )
            address = service.address
            host = {
                "GUESTWIRE_HOST": f"https://127.0.0.1:{address.port}",
                "GUESTWIRE_TOKEN": address.token,
                "GUESTWIRE_CA": str(address.certificate),
            }
        ways = SERVED_WAYS if served else WAYS
        for turn, _ in enumerate(left):
            way = ways[turn % len(ways)]
            await _round(machine, service, way, os.environ | host | {TAG: tag})
            after = await _until_nothing_is_left(machine, service, tag, f"{way}, {'served' if served else 'direct'}")
            found[f"{way}, {'behind a service' if served else 'direct'}"].append(after)


async def _round(machine: Machine, service: Service | None, way: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "bench.stream_kills", "hold", "again" if way in ("client", "service") else "once"]
    client = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    await asyncio.sleep(random.uniform(0.5, 0.5 + MOMENTS))
    match way:
        case "client":
            with contextlib.suppress(ProcessLookupError):  # it has failed, and has said so
                client.kill()
        case "service" if service:
            await service.restart(kill=True, away=random.uniform(0, 2))
        case "reset":
            await machine.reset()
        case _:
            await machine.shell(KILL.format(what=f"{WORD[:-1]}[{WORD[-1]}]" if way == "programs" else "[r]elay.sh"))


async def _until_nothing_is_left(machine: Machine, service: Service | None, tag: str, name: str) -> float:
    """Seconds from now on."""
    began = time.monotonic()
    said = 0.0
    last: list[str] = []
    while True:
        left = [*_here(tag, {os.getpid()} | ({service.pid} if service else set())), *await machine.plugged_in()]
        left += [line for line in (await machine.shell(LEFT)).splitlines() if line.strip()]
        passed = time.monotonic() - began
        if not left:
            print(f"{name}: {passed:.1f} s; last: {_kinds(last)}", file=sys.stderr, flush=True)
            return passed
        last = left
        if passed > ALLOWED and passed - said > ALLOWED / 2:
            said = passed
            print(f"{name}: after {passed:.0f} s there is: {_kinds(left)}", flush=True)
        if passed > GIVES_UP_AFTER:
            raise BenchError(f"{name}: it stays")
        await asyncio.sleep(0.25)


def _kinds(left: Iterable[str]) -> str:
    """In a few words: what differs in its numbers alone is one kind."""
    found = Counter(re.sub(r"[0-9a-f]{6,}|[0-9]+", "N", line)[:100] for line in left)
    return ", ".join(f"{count} x {kind}" for kind, count in found.items())


def _pids(tag: str, allowed: set[int]) -> Iterator[int]:
    """Processes of a run; QEMU, what is allowed, and the keepers of the ports of those are none."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{TAG}={tag}".encode() in (path / "environ").read_bytes().split(b"\0"):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                is_qemu = b"qemu-system" in (path / "cmdline").read_bytes()
                if not is_qemu and int(path.name) not in allowed and parent not in allowed - {os.getpid()}:
                    yield int(path.name)


def _here(tag: str, allowed: set[int]) -> list[str]:
    found = []
    for pid in _pids(tag, allowed):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found.append(f"process {pid} ({b' '.join(words[1:4]).decode(errors='replace')})")
    return found


# The client, a process of its own


async def hold(*, again: bool) -> None:
    """Uses streams of every kind until they break; again and again, or each once, and for a few seconds."""
    async with await connect() as host:
        with contextlib.suppress(CallFailed):  # the service is just away
            guest = await host.guest((await host.guests())[0].name)
            await asyncio.gather(*(_use(guest, program, again=again) for program in PROGRAMS))


async def _use(guest: Guest, program: str, *, again: bool) -> None:
    with contextlib.suppress(CallFailed, BrokenPipeError):
        while True:
            async with guest.start(["sh", "-c", program]) as process:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(random.uniform(0.1, 3.0) if again else MOMENTS + 3.0):
                        await process.stdin.write(b"x" * 100_000 if program.startswith("cat;") else b"")
                        reading = asyncio.create_task(_read_all(process.stdout))
                        try:
                            await process.wait()
                        finally:
                            reading.cancel()
                            await asyncio.gather(reading, return_exceptions=True)
            if not again:
                return


async def _read_all(output: OutputStream) -> None:
    while await output.read(65536):
        pass


if __name__ == "__main__":
    first, *more = *sys.argv[1:], "20"
    if first == "hold":
        asyncio.run(hold(again=more[0] == "again"))
    else:
        sys.exit(asyncio.run(main(int(first))))
