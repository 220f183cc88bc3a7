"""`python -m bench.frozen ROUNDS [limited]`: whoever freezes a guest is killed; how long it stayed frozen. Exits with 1 for one too long.

A writer in a real guest writes all the time, and notes when it has: a pause is a freeze. Killed are the client, the
server, both, and both with the server away until the end of the round, so that QEMU alone is left, each at a random
moment. With `limited` the server is what Proxmox VE has.
"""

import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.service import Service, Vm, serve
from devtools.guests import GuestImage, Machine, accelerator, build, default_cache

LEASE: Final = 2
ALLOWED: Final = LEASE + 2.0
"""Seconds."""

AWAY: Final = ALLOWED + 1.0
"""Seconds that the server stays away with all that is killed."""

MOMENTS: Final = 4.0
"""Seconds within which the kill comes: before, while and after the freeze."""

WAYS: Final = ("client", "server", "both", "all")
GUESTS: Final = 2

WRITER: Final = """
while :; do echo x >/mnt/data/beat; cut -d' ' -f1 /proc/uptime >>/tmp/beats; usleep 20000; done >/dev/null 2>&1 &
"""
LONGEST: Final = "awk 'NR>1 && $1-last>most {most=$1-last} {last=$1} END {print most+0}' /tmp/beats; : >/tmp/beats"


async def main(rounds: int, *, limited: bool) -> int:
    image = await asyncio.to_thread(build, default_cache())
    left = iter(range(rounds))
    pauses: dict[str, list[float]] = defaultdict(list)
    await asyncio.gather(*(_guest(image, left, pauses, limited=limited) for _ in range(GUESTS)))
    print("| killed | rounds | of which frozen | longest freeze |\n| --- | --- | --- | --- |")
    for way in WAYS:
        found = pauses[way]
        print(f"| {way} | {len(found)} | {sum(pause > LEASE / 4 for pause in found)} | {max(found, default=0):.2f} s |")
    return int(max((pause for found in pauses.values() for pause in found), default=0.0) > ALLOWED)


async def _guest(image: GuestImage, left: Iterator[int], pauses: dict[str, list[float]], *, limited: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="gw-", ignore_cleanup_errors=True) as name:
        machine = Machine(image, Path(name), accel=await accelerator(image))
        await machine.start()
        try:
            await machine.wait_for_agent()
            await machine.shell(WRITER)
            async with serve(Path(name), [Vm(100, machine.agent_socket)], limited=limited) as service:
                for number in left:
                    way = WAYS[number % len(WAYS)]
                    await _round(service, way)
                    pause = float(await machine.shell(LONGEST))
                    pauses[way].append(pause)
                    if pause > ALLOWED:
                        print(f"round {number}, {way} killed: frozen for {pause:.2f} s", flush=True)
        finally:
            await machine.stop()


async def _round(service: Service, way: str) -> None:
    """Kills once. An agent whose guest the watchdog has thawed takes it for frozen; of our server's it is told, of others an operator tells it."""
    address = service.address
    host = {
        "GUESTWIRE_HOST": f"https://127.0.0.1:{address.port}",
        "GUESTWIRE_TOKEN": address.token,
        "GUESTWIRE_CA": str(address.certificate),
    }
    thaw = [sys.executable, "-m", "guestwire", "thaw", "100"]
    thawing = await asyncio.create_subprocess_exec(
        *thaw, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env=os.environ | host
    )
    await thawing.wait()
    command = [sys.executable, "-m", "guestwire", "freeze", "--lease", str(LEASE), "100", "--", "sleep", "60"]
    client = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True, env=os.environ | host,
    )  # fmt: skip
    await asyncio.sleep(random.uniform(0, MOMENTS))
    if way != "server" and client.returncode is None:
        os.killpg(client.pid, signal.SIGKILL)
    if way != "client":
        await service.restart(kill=True, away=AWAY if way == "all" else random.uniform(0, 1))
    await asyncio.sleep(ALLOWED)
    if client.returncode is None:
        os.killpg(client.pid, signal.SIGKILL)
    await client.wait()


if __name__ == "__main__":
    count, *options = *sys.argv[1:], "20"
    sys.exit(asyncio.run(main(int(count), limited="limited" in options)))
