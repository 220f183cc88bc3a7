"""Two small guests in QEMU that are alike: one is asked over its socket, the other through the service."""

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Final

from bench import load
from bench.agent_socket import IN_FLIGHT, OSINFO, PING, AgentSocket
from bench.https import Https
from bench.results import VM, ProxmoxVE, Row
from bench.service import Service, Vm, serve
from bench.timing import Call, Effort, alternate, timed
from devtools.guests import GuestImage, Machine

VMID: Final = 100
CLIENTS: Final = 32

MORE: Final = 0.4
"""Milliseconds that a call may take more than over the raw socket."""

TAIL: Final = 4
"""Times the median that the slowest of 100 calls may take."""

SHARE: Final = 0.8
"""Of the raw socket's rate."""


async def measure(image: GuestImage, accelerator: str, effort: Effort) -> list[Row]:
    """Boots both, measures, and leaves nothing behind."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-bench-")))
        served = await stack.enter_async_context(Machine(image, folder, vmid=VMID, accel=accelerator))
        other = await stack.enter_async_context(Machine(image, folder, vmid=VMID + 1, accel=accelerator))
        await asyncio.gather(served.wait_for_agent(), other.wait_for_agent())
        vm = Vm(VMID, served.agent_socket, served.qmp_socket)
        service = await stack.enter_async_context(serve(folder, [vm]))
        return await asyncio.to_thread(_measure, other.agent_socket, service, effort)


def _measure(agent: Path, service: Service, effort: Effort) -> list[Row]:
    ping = service.address.ping(VMID)
    osinfo = service.address.request("GET", VMID, "get-osinfo")
    with AgentSocket(agent) as raw:
        with Https(service.address) as https:
            rows = [
                *_latency("ping", lambda: raw.call(PING), lambda: https.call(ping), effort, ProxmoxVE(117, 290)),
                *_latency(
                    "get-osinfo", lambda: raw.call(OSINFO), lambda: https.call(osinfo), effort, ProxmoxVE(109, 150)
                ),
            ]
        return [*rows, _rate(raw, service, ping, effort)]


def _latency(name: str, raw: Call, guestwire: Call, effort: Effort, proxmox: ProxmoxVE) -> list[Row]:
    direct, served = alternate(effort.rounds, lambda: timed(effort.calls, raw), lambda: timed(effort.calls, guestwire))
    good = served.median <= direct.median + MORE
    short = served.p99 < TAIL * served.median
    return [
        Row(VM, f"{name}, median", "ms", direct.median, served.median, f"at most raw + {MORE:g} ms", good, proxmox),
        Row(VM, f"{name}, p99", "ms", direct.p99, served.p99, f"under {TAIL} x median", short),
    ]


def _rate(raw: AgentSocket, service: Service, ping: bytes, effort: Effort) -> Row:
    with load.beside() as process:
        direct, served = alternate(
            effort.rounds,
            lambda: [raw.ping_rate(effort.seconds)],
            lambda: [process.submit(load.rate, service.address, ping, CLIENTS, effort.seconds).result()],
        )
    return Row(
        VM,
        f"ping, {CLIENTS} clients (raw: one, {IN_FLIGHT} ahead)",
        "/s",
        direct.median,
        served.median,
        f"at least {SHARE:.0%} of raw",
        served.median >= SHARE * direct.median,
    )
