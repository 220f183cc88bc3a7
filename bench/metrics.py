"""`python -m bench.metrics [GUESTS] [SECONDS]`: a service that polls many guests at the default rhythm: its CPU, scrapes, and other calls beside them."""

import asyncio
import contextlib
import gc
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp

from bench.https import NODE
from bench.service import Service, Vm, serve
from guestwire.testing import FakeGuest

SCRAPE_EVERY: Final = 5.0
PING_EVERY: Final = 0.02

REPLIES: Final = {
    "guest-get-load": {"load1m": 0.5, "load5m": 0.25, "load15m": 0.125},
    "guest-get-cpustats": [
        {"type": "linux", "cpu": cpu, "user": 1, "nice": 2, "system": 3, "idle": 4, "iowait": 5, "irq": 6, "softirq": 7, "steal": 8}
        for cpu in range(2)
    ],
    "guest-get-diskstats": [
        {"name": "vda", "major": 254, "minor": 0, "stats": {"read-sectors": 1, "read-ios": 2, "write-sectors": 3, "write-ios": 4}}
    ],
    "guest-network-get-interfaces": [
        {"name": name, "statistics": {f"{way}-{what}": 1 for way in ("rx", "tx") for what in ("bytes", "packets", "errs", "dropped")}}
        for name in ("lo", "eth0")
    ],
    "guest-get-fsinfo": [
        {"name": "vda1", "mountpoint": path, "type": "ext4", "disk": [], "total-bytes": 10**9, "used-bytes": 10**8}
        for path in ("/", "/srv")
    ],
    "guest-get-osinfo": {"id": "debian", "version-id": "12", "kernel-release": "6.1", "machine": "x86_64"},
    "guest-get-users": [],
    "guest-get-vcpus": [{"logical-id": 0, "online": True}],
    "guest-get-time": 1_800_000_000_000_000_000,
}  # fmt: skip


async def main(guests: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        folder = Path(name)
        vms = [Vm(100 + number, folder / f"{number}.qga") for number in range(guests)]
        async with _guests_apart(folder, guests):
            async with serve(folder, vms) as service:
                quiet, _, _ = await _measure(service, seconds / 2)
            config = folder / "guestwire.toml"
            async with serve(folder, vms, more="[metrics]\n") as service:
                await asyncio.sleep(90)  # until the pauses have grown to the default rhythm
                busy, scrapes, size = await _measure(service, seconds)
                cpu = await _cpu_share(service, seconds)
        print(f"{guests} guests, {size / 1e6:.1f} MB a page; {config.stat().st_size // 1000} kB of configuration")
        print("| | value |\n| --- | --- |")
        print(f"| share of a core, nothing else | {cpu:.1%} |")
        print(f"| scrape, median and longest | {scrapes[len(scrapes) // 2] * 1e3:.0f} and {scrapes[-1] * 1e3:.0f} ms |")
        print(f"| ping p99 without polls | {_p99(quiet) * 1e3:.1f} ms |")
        print(f"| ping p99 with polls and scrapes | {_p99(busy) * 1e3:.1f} ms |")


@contextlib.asynccontextmanager
async def _guests_apart(folder: Path, count: int) -> AsyncIterator[None]:
    """The guests, in a process of their own: what they cost must not slow the one that measures."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.metrics", "guests", folder, str(count), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


async def _be_guests(folder: Path, count: int) -> None:
    for number in range(count):
        guest = FakeGuest(folder / f"{number}.qga")
        guest.replies |= REPLIES
        await guest.__aenter__()
    gc.freeze()
    print("ready", flush=True)
    await asyncio.Event().wait()


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


async def _measure(service: Service, seconds: float) -> tuple[list[float], list[float], int]:
    pings, scrapes, sizes = [], [], []
    headers = {"Authorization": f"PVEAPIToken={service.address.token}"}
    root = f"https://127.0.0.1:{service.address.port}"

    async def scrape() -> None:
        """By a program of its own: what reading the page costs its reader must not count as the service's."""
        curl = ["curl", "-sk", "-o", "/dev/null", "-w", "%{time_total} %{size_download}"]
        while True:
            process = await asyncio.create_subprocess_exec(
                *curl, "-H", f"Authorization: {headers['Authorization']}", f"{root}/metrics", stdout=-1
            )
            took, size = (await process.communicate())[0].split()
            scrapes.append(float(took))
            sizes.append(int(size))
            await asyncio.sleep(SCRAPE_EVERY)

    scraping = asyncio.create_task(scrape())
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=False)) as session:
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            async with session.post(f"{root}/api2/json/nodes/{NODE}/qemu/100/agent/ping") as answer:
                await answer.read()
            pings.append(time.perf_counter() - now)
            await asyncio.sleep(PING_EVERY)
    scraping.cancel()
    await asyncio.gather(scraping, return_exceptions=True)
    return pings, sorted(scrapes), sizes[-1]


async def _cpu_share(service: Service, seconds: float) -> float:
    before = _cpu(service.pid)
    await asyncio.sleep(seconds)
    return (_cpu(service.pid) - before) / seconds


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if sys.argv[1:2] == ["guests"]:
        asyncio.run(_be_guests(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        count, length, *_ = *sys.argv[1:], *("1000", "60")[len(sys.argv) - 1 :]
        asyncio.run(main(int(count), float(length)))
