"""Real guest agents without VMs around them: what the service itself costs."""

import asyncio
import contextlib
import random
import tempfile
import time
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from bench import load
from bench.agent_socket import PING, AgentSocket
from bench.errors import BenchError
from bench.https import Https
from bench.results import SANDBOX, ProxmoxVE, Row
from bench.service import Service, Vm, serve
from bench.timing import Effort, Samples, alternate, timed
from guestwire.testing.sandbox import SandboxedAgent

MIB: Final = 1024 * 1024
VMID: Final = 100
BUSY_VMID: Final = 101
CLIENTS: Final = 8

PIECES: Final = (64 * 1024, 256 * 1024, MIB, 4 * MIB)
"""Bytes of one guest-file-read; the raw socket is measured with what is fastest."""

MORE: Final = 0.3
"""Milliseconds that a ping may take more than over the raw socket."""

READ_RATIO: Final = 2
"""Times the raw socket's time that reading a file may take."""

RATE: Final = 4000
AIM: Final = 6000
"""Answers a second: what must be reached, and what should be."""

DELAY: Final = 20
"""Milliseconds that a ping may take while another guest's file is read."""

MEMORY: Final = 60
"""MB, at most."""

FORMS: Final = {"text": [], "binary": [], "binary, as octets": ["Accept: application/octet-stream"]}
"""What is read, and the headers that ask for it so."""

PROXMOX_READS: Final = {1: ProxmoxVE(424, 60), 15: ProxmoxVE(6400, 58)}
"""By MiB."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the measurements share."""

    raw: AgentSocket
    https: Https
    service: Service
    beside: Executor
    effort: Effort


async def measure(effort: Effort) -> list[Row]:
    """Starts the agents, measures, and leaves nothing behind."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-bench-")))
        files = _files()
        agents = [SandboxedAgent(folder / f"{name}.qga") for name in ("raw", "served", "busy")]
        for agent in agents:
            await stack.enter_async_context(agent)
            for name, content in files.items():
                (agent.home / name).write_bytes(content)
        raw, served, busy = agents
        service = await stack.enter_async_context(serve(folder, [Vm(VMID, served.socket), Vm(BUSY_VMID, busy.socket)]))
        return await asyncio.to_thread(_measure, raw, service, effort)


def _files() -> dict[str, bytes]:
    """Lines of a log, which JSON takes as they are, and bytes of all kinds, most of which it takes two or six bytes for."""
    text = b"".join(
        b"Nov 24 16:%02d:%02d guest systemd[1]: Started unit %d.\n" % (n // 60 % 60, n % 60, n) for n in range(400_000)
    )
    binary = random.Random(1).randbytes(16 * MIB)
    return {
        f"{kind}-{size}": content[: size * MIB]
        for kind, content in (("text", text), ("binary", binary))
        for size in (1, 15, 16)
    }


def _measure(raw_agent: SandboxedAgent, service: Service, effort: Effort) -> list[Row]:
    with AgentSocket(raw_agent.socket) as raw, Https(service.address) as https, load.beside() as beside:
        bench = Bench(raw, https, service, beside, effort)
        rows = [_ping(bench), _rate(bench)]
        rows += [_read(bench, kind, size, raw_agent.home) for kind in FORMS for size in (1, 15)]
        rows += [row for kind in ("text", "binary") for row in _delay(bench, kind)]
    return [*rows, *_memory(service)]


def _ping(bench: Bench) -> Row:
    request = bench.service.address.ping(VMID)
    raw, served = alternate(
        bench.effort.rounds,
        lambda: timed(bench.effort.calls, lambda: bench.raw.call(PING)),
        lambda: timed(bench.effort.calls, lambda: bench.https.call(request)),
    )
    good = served.median <= raw.median + MORE
    return Row(
        SANDBOX, "ping, median", "ms", raw.median, served.median, f"at most raw + {MORE:g} ms", good, ProxmoxVE(3.3)
    )


def _rate(bench: Bench) -> Row:
    address, seconds = bench.service.address, bench.effort.seconds
    rates = Samples(
        [
            bench.beside.submit(load.rate, address, address.ping(VMID), CLIENTS, seconds).result()
            for _ in range(bench.effort.rounds)
        ]
    )
    good = rates.median >= RATE
    return Row(
        SANDBOX,
        f"ping, {CLIENTS} clients",
        "/s",
        None,
        rates.median,
        f"at least {RATE:,} /s, aim {AIM:,}",
        good,
        ProxmoxVE(380),
    )


def _read(bench: Bench, kind: str, size: int, home: Path) -> Row:
    name = f"{kind.partition(',')[0]}-{size}"
    path = f"/root/{name}"
    request = bench.service.address.request("GET", VMID, f"file-read?file={path}", *FORMS[kind])
    _check(bench.https.call(request), (home / name).read_bytes())
    times = max(1, bench.effort.reads // size)

    def tried(piece: int) -> float:
        return Samples(timed(bench.effort.reads, lambda: bench.raw.read_file(path, piece))).median

    best = min(PIECES, key=tried)
    raw, served = alternate(
        bench.effort.rounds,
        lambda: timed(times, lambda: bench.raw.read_file(path, best)),
        lambda: timed(times, lambda: bench.https.call(request)),
    )
    return Row(
        SANDBOX,
        f"file-read, {size} MiB, {kind}",
        "ms",
        raw.median,
        served.median,
        f"at most {READ_RATIO} x raw",
        served.median <= READ_RATIO * raw.median,
        PROXMOX_READS[size],
    )


def _check(body: bytes | bytearray, expected: bytes) -> None:
    if body == expected:
        return
    answer: dict[str, Any] = msgspec.json.decode(body)["data"]
    if answer["content"].encode("latin-1") != expected or "truncated" in answer:
        raise BenchError("file-read gave something else than the file has")


def _delay(bench: Bench, kind: str) -> list[Row]:
    """Pings one guest while files of another are read."""
    address = bench.service.address
    request = address.request("GET", BUSY_VMID, f"file-read?file=/root/{kind}-16")
    reading = bench.beside.submit(load.repeat, address, request, bench.effort.reads)
    delays = _pings_during(bench.https, address.ping(VMID), reading)
    what = f"ping while 16 MiB are read elsewhere, {kind}"
    return [
        Row(SANDBOX, f"{what}, {name}", "ms", None, delay, f"under {DELAY} ms", delay < DELAY)
        for name, delay in (("p99", delays.p99), ("longest", delays.longest))
    ]


def _pings_during(https: Https, ping: bytes, reading: Future[tuple[float, float]]) -> Samples:
    """Milliseconds of each ping between the beginning and the end of the reading."""
    calls = []
    while not reading.done():
        began = time.perf_counter()
        https.call(ping)
        calls.append((began, time.perf_counter()))
    first, last = reading.result()
    return Samples([(ended - began) * 1000 for began, ended in calls if ended > first and began < last])


def _memory(service: Service) -> list[Row]:
    highest = service.memory("VmHWM")
    return [
        Row(SANDBOX, "memory of the service, highest", "MB", None, highest, f"at most {MEMORY} MB", highest <= MEMORY),
        Row(SANDBOX, "memory of the service, at the end", "MB", None, service.memory("VmRSS")),
    ]
