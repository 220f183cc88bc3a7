"""Agents through libvirt, against libvirt's own call: what guestwire adds, what guests that hang or flood take from others, and long lists."""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.results import LIBVIRT, Row
from bench.timing import Effort, Samples, timed_async
from devtools.guests import GuestImage
from devtools.libvirt_host import LibvirtHost
from guestwire.agent import commands as qga
from guestwire.agent import large_files
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels.libvirt import Libvirt, LibvirtChannel
from guestwire.client import connect
from guestwire.errors import GuestError
from guestwire.inventory import Inventory
from guestwire.wire import Command

HANGING: Final = 6
DOMAINS: Final = 1000
SLOW: Final = Command("guest-get-osinfo", timeout=20)
MOST_DELAY: Final = 50.0
"""Milliseconds."""

COPY_MIB: Final = 64
COPIED: Final = "/tmp/copied"
FASTER: Final = 5


async def measure(image: GuestImage, effort: Effort) -> list[Row]:
    """All rows."""
    with TemporaryDirectory(prefix="gw-", ignore_cleanup_errors=True) as name:
        async with LibvirtHost(Path(name)) as host, host.domain("web", image):
            libvirt = Libvirt(host.uri)
            channel = LibvirtChannel(libvirt, host.uuid("web"), "VM 100")
            agent = GuestAgent(channel, "VM 100", ExitStatusCache())
            try:
                rows = await _pings(host, agent, effort)
                rows += await _copies(host, Path(name))
                rows += await _crowd(host, image, libvirt, agent, effort)
            finally:
                await agent.close()
                await channel.close()
                libvirt.close()
        return [*rows, await _long_list(Path(name))]


async def _pings(host: LibvirtHost, agent: GuestAgent, effort: Effort) -> list[Row]:
    raw, own = await _in_turn(host, agent, effort)
    started = Samples(await timed_async(effort.calls // 10, lambda: _run(agent)))
    return [
        Row(LIBVIRT, "ping, median", "ms", raw.median, own.median, "1.3 ×", own.median <= 1.3 * raw.median),
        Row(LIBVIRT, "ping, 99 of 100", "ms", raw.p99, own.p99),
        Row(LIBVIRT, "a program, started and waited for, median", "ms", None, started.median),
    ]


async def _in_turn(host: LibvirtHost, agent: GuestAgent, effort: Effort) -> tuple[Samples, Samples]:
    """Pings by libvirt's own call, on a connection of its own, and by guestwire: what else the machine does hits both."""
    import libvirt_qemu  # noqa: PLC0415  # not everywhere

    domain = await asyncio.to_thread(host.connect().lookupByName, "web")

    async def call() -> None:
        await asyncio.to_thread(libvirt_qemu.qemuAgentCommand, domain, '{"execute":"guest-ping"}', 5, 0)

    raw: list[float] = []
    own: list[float] = []
    for number in range(effort.calls * effort.rounds):
        one, other = await timed_async(1, call), await timed_async(1, lambda: agent.execute(qga.PING))
        if number > effort.calls // 2:
            raw, own = raw + one, own + other
    return Samples(raw), Samples(own)


async def _copies(host: LibvirtHost, folder: Path) -> list[Row]:
    """A file there and back, whole and checked: by libvirt's agent calls, and by a port of our own; a connection each."""
    source = folder / "copied"
    source.write_bytes(os.urandom(COPY_MIB * 2**20))
    seconds: dict[float, list[float]] = {}
    usual = large_files.LARGE
    for large in (math.inf, usual):
        large_files.LARGE = large  # type: ignore[misc, assignment]  # no file is large: none has a port
        try:
            async with await connect(host.uri) as one:
                guest = await one.guest("web")
                up = await timed_async(1, partial(guest.upload, source, COPIED))
                down = await timed_async(1, partial(guest.download, COPIED, folder / "back"))
                await guest.files.remove(COPIED)
        finally:
            large_files.LARGE = usual  # type: ignore[misc]
        seconds[large] = [milliseconds / 1000 for milliseconds in up + down]
    size = COPY_MIB * 2**20 / 1e6
    return [
        Row(
            LIBVIRT, f"{COPY_MIB} MiB copied {where}, checked (raw: by agent calls)", "MB/s", size / by_calls, size / by_port,
            f"{FASTER} ×", by_calls >= FASTER * by_port,
        )
        for where, by_calls, by_port in zip(
            ("to the guest", "from the guest"), seconds[math.inf], seconds[usual], strict=True
        )
    ]  # fmt: skip


async def _run(agent: GuestAgent) -> None:
    pid = await agent.processes.start(["true"])
    while not (await agent.processes.status(pid)).exited:  # noqa: ASYNC110  # only asking tells
        await asyncio.sleep(0.002)


async def _crowd(
    host: LibvirtHost, image: GuestImage, libvirt: Libvirt, agent: GuestAgent, effort: Effort
) -> list[Row]:
    """Six guests that hang, each with a call that waits for it, and one that floods."""

    async def listed() -> None:
        await libvirt.run(lambda connection: connection.open().listAllDomains())

    async with contextlib.AsyncExitStack() as stack:
        names = [f"hangs{number}" for number in range(HANGING)]
        for name in names:
            host.bridge(name)  # nobody listens there
        await stack.enter_async_context(_flood(host.bridge("floods")))
        await asyncio.gather(*(stack.enter_async_context(host.domain(name, image)) for name in (*names, "floods")))
        calls = [asyncio.ensure_future(_ask_again(libvirt, host.uuid(name))) for name in (*names, "floods")]
        await asyncio.sleep(0.5)
        raw, own = await _in_turn(host, agent, effort)
        lists = Samples(await timed_async(effort.calls, listed))
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    return [
        Row(LIBVIRT, "six guests hang, one floods: another's ping, median", "ms", raw.median, own.median),
        Row(
            LIBVIRT, "the same, longest", "ms", raw.longest, own.longest, f"{MOST_DELAY:g} ms more",
            own.longest <= raw.longest + MOST_DELAY,
        ),
        Row(LIBVIRT, "the same: a list, longest", "ms", None, lists.longest, f"{MOST_DELAY:g} ms", lists.longest <= MOST_DELAY),
    ]  # fmt: skip


async def _ask_again(libvirt: Libvirt, uuid: str) -> None:
    """Has a call hang all the time: libvirt gives one up after five seconds."""
    while True:
        channel = LibvirtChannel(libvirt, uuid, "one that hangs")
        try:
            with contextlib.suppress(GuestError):
                await channel.execute(SLOW)
        finally:
            await channel.close()
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _flood(path: Path) -> AsyncIterator[None]:
    """An agent that sends lines and lines, unasked."""

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b'{"return": {"id": 12345}}\n' * 1000)
                await writer.drain()

    server = await asyncio.start_unix_server(flood, path)
    try:
        yield
    finally:
        server.close()


async def _long_list(folder: Path) -> Row:
    """A thousand domains of libvirt's test driver, from nothing to the list."""
    domains = (
        f"<domain type='test'><name>vm{number}</name><uuid>{number:08x}-0000-4000-8000-000000000000</uuid>"
        "<memory>131072</memory><vcpu>2</vcpu><os><type>hvm</type></os></domain>"
        for number in range(DOMAINS)
    )
    (folder / "many.xml").write_text(f"<node>{''.join(domains)}</node>")
    began = time.perf_counter()
    inventory = Inventory("pve1")
    await inventory.apply([], [f"test://{folder}/many.xml"])
    seconds = time.perf_counter() - began
    found = len(inventory.vms)
    await inventory.close()
    return Row(
        LIBVIRT, f"{found} domains listed", "ms", None, seconds * 1000, "1000 ms", found == DOMAINS and seconds < 1
    )
