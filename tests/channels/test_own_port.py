"""Ports of our own under libvirt, and the copies that go by them: a real daemon, a real QEMU, and the guest's own shell."""

import asyncio
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calling import keeper_of, site
from serving import Serving
from waiting import until
from ways import over_https

from devtools.libvirt_host import LibvirtHost
from guestwire.agent import large_files
from guestwire.agent.large_files import LARGE
from guestwire.channels import own_port, port_keeper
from guestwire.channels.libvirt import Libvirt
from guestwire.channels.libvirt_port import LibvirtPorts
from guestwire.channels.own_port import leftovers, new_name, plugged_in
from guestwire.client import Guest, Host, connect
from guestwire.client.errors import FileRefused
from guestwire.errors import GuestError

if TYPE_CHECKING:
    from devtools.guests import GuestImage

pytestmark = [pytest.mark.agent, pytest.mark.guest, pytest.mark.slow]

SIZE = 12 * 1024 * 1024
RELAYS = "grep -l guestwire[.]copy /proc/[0-9]*/cmdline 2>/dev/null | wc -l"


@pytest.fixture(scope="module")
async def domain(libvirt_host: LibvirtHost, image: "GuestImage") -> AsyncIterator[Any]:
    async with libvirt_host.domain("copies", image) as domain:
        yield domain


@pytest.fixture
async def host(libvirt_host: LibvirtHost, domain: Any) -> AsyncIterator[Host]:  # noqa: ARG001  # it must be there
    async with await connect(libvirt_host.uri) as host:
        yield host


@pytest.fixture
async def guest(host: Host) -> Guest:
    guest = await host.guest("copies")
    await guest.wait_ready()
    await guest.run(["sh", "-c", "rm -rf /tmp/* /tmp/.g*"])
    return guest


@pytest.fixture
async def ports(libvirt_host: LibvirtHost, domain: Any) -> AsyncIterator[LibvirtPorts]:  # noqa: ARG001  # as above
    libvirt = Libvirt(libvirt_host.uri)
    yield LibvirtPorts(libvirt, libvirt_host.uuid("copies"), "VM 100")
    libvirt.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(SIZE + 1234))
    path.chmod(0o640)
    return path


def ours(domain: Any) -> list[str]:
    """The ports that libvirt says are there, and are ours."""
    return re.findall(rf"name='({re.escape(port_keeper.PREFIX)}[^']*)'", domain.XMLDesc())


async def use_until_plugged(domain: Any, work: Callable[[], Awaitable[object]], within: float = 60) -> None:
    """Does the work again and again until a port of ours is there, and some pieces have gone by it."""
    async with asyncio.timeout(within):
        while not await asyncio.to_thread(ours, domain):
            await work()


# Ports


async def test_a_port_is_a_stream_there_and_back_of_any_bytes(ports: LibvirtPorts, guest: Guest) -> None:
    name, data = new_name("test"), os.urandom(1024 * 1024)
    find = f"for p in /sys/class/virtio-ports/*; do grep -q {name} $p/name && break; done; f=/dev/${{p##*/}}"
    async with plugged_in(ports, name):
        assert name in await ports.names()
        echo = asyncio.create_task(guest.run(["sh", "-c", f"{find}; dd bs=65536 count=16 iflag=fullblock <>$f >&0"]))
        reader, writer = await asyncio.open_unix_connection(sock=await ports.connect(name))
        writer.write(data)
        async with asyncio.timeout(30):
            assert await reader.readexactly(len(data)) == data
        assert (await echo).ok
        with pytest.raises(GuestError, match=r"in use|[Aa]ctive"):
            await ports.connect(name)
        writer.close()
    assert name not in await ports.names()


async def test_only_a_port_whose_other_side_is_free_is_left_over(
    ports: LibvirtPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, left, others = new_name("test"), new_name("test"), new_name("copy")
    for name in (used, left, others):
        await ports.plug_in(name)
    try:
        held = await ports.connect(used)
        assert await leftovers(ports, "test") == []  # they are too new
        monkeypatch.setattr(own_port, "CONNECTS_WITHIN", -1.0)

        assert await leftovers(ports, "test") == [left]
        held.close()
        async with asyncio.timeout(5):
            while set(await leftovers(ports, "test")) != {used, left}:
                await asyncio.sleep(0.05)
    finally:
        for name in (used, left, others, "org.guestwire.none"):
            await ports.unplug(name)


# Copies


async def test_a_large_file_goes_there_and_back_by_a_port_and_nothing_is_left(
    libvirt_host: LibvirtHost, domain: Any, large: Path, tmp_path: Path
) -> None:
    seen: set[str] = set()

    def progress(_done: int, _total: int | None) -> None:
        seen.update(ours(domain))

    async with await connect(libvirt_host.uri) as host:
        guest = await host.guest("copies")
        await guest.upload(large, "/tmp/large", progress=progress)
        assert len(seen) == 1
        await guest.download("/tmp/large", tmp_path / "back", progress=progress)
        assert len(seen) == 1  # still the same
        assert (await guest.files.stat("/tmp/large")).mode == 0o640
        # What a line of the relay's can't carry goes the other way.
        odd = "/tmp/a\nw 1 1 b "
        await guest.upload(large, odd)
        assert await guest.files.sha256(odd) == await guest.files.sha256("/tmp/large")
        await guest.files.remove(odd)

    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == 0o640
    assert ours(domain) == []
    async with await connect(libvirt_host.uri) as host:
        assert (await (await host.guest("copies")).run(["sh", "-c", RELAYS])).output == "0\n"


async def test_a_server_copies_by_a_port_too_and_takes_it_out_at_its_end(
    libvirt_host: LibvirtHost, domain: Any, large: Path
) -> None:
    sources = f'[[source]]\nlibvirt = "{libvirt_host.uri}"\n'
    async with Serving.of(site(sources)) as server, await over_https(server) as host:
        guest = await host.guest("copies")
        await guest.wait_ready()
        await guest.upload(large, "/tmp/served")
        assert ours(domain)
        assert (await guest.files.stat("/tmp/served")).size == large.stat().st_size
        await guest.files.remove("/tmp/served")
    assert ours(domain) == []


async def test_a_port_that_nothing_goes_by_is_taken_out(guest: Guest, domain: Any, large: Path) -> None:
    await guest.upload(large, "/tmp/large")
    assert ours(domain)

    await until(lambda: ours(domain) == [], within=20)


async def test_a_full_disk_is_the_guests_own_reason_and_the_old_file_stays(
    guest: Guest, domain: Any, large: Path
) -> None:
    await guest.run(["sh", "-c", "mkdir -p /small && mount -t tmpfs -o size=9m small /small && echo old >/small/large"])
    await use_until_plugged(domain, lambda: guest.upload(large, "/tmp/large"))

    with pytest.raises(FileRefused, match="No space left"):
        await guest.upload(large, "/small/large")

    assert (await guest.run(["sh", "-c", "cat /small/large; ls -A /small"])).output == "old\nlarge\n"
    await guest.run(["umount", "/small"])


async def test_before_a_freeze_the_port_is_taken_out(guest: Guest, domain: Any, large: Path) -> None:
    await use_until_plugged(domain, lambda: guest.upload(large, "/tmp/large"))

    await guest.fsfreeze_freeze()
    assert ours(domain) == []
    await guest.fsfreeze_thaw()


async def test_a_copy_that_is_cancelled_leaves_nothing(libvirt_host: LibvirtHost, domain: Any, large: Path) -> None:
    is_large = asyncio.Event()

    def progress(done: int, _total: int | None) -> None:
        if done > LARGE:
            is_large.set()

    async def copy() -> None:
        async with await connect(libvirt_host.uri) as host:
            guest = await host.guest("copies")
            while True:
                await guest.upload(large, "/tmp/cancelled", progress=progress)

    for plugged in (False, True):  # while the port is plugged in, and while it is used
        copying = asyncio.create_task(copy())
        if plugged:
            await until(lambda: bool(ours(domain)), within=60)
        else:
            await is_large.wait()
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)
        assert ours(domain) == []


async def test_one_that_ends_in_the_middle_has_its_port_taken_out_also_when_it_is_killed(
    libvirt_host: LibvirtHost, domain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = tmp_path / "huge"
    huge.write_bytes(os.urandom(SIZE) * 5)
    for how in ("interrupted", "killed", "killed with its keeper"):
        copying = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "guestwire", "--host", libvirt_host.uri, "cp", str(huge), "copies:/tmp/huge"
        )
        await until(lambda: bool(ours(domain)), within=60)
        if how == "killed with its keeper":
            os.kill(await keeper_of(copying.pid), signal.SIGKILL)
        copying.send_signal(signal.SIGINT if how == "interrupted" else signal.SIGKILL)
        async with asyncio.timeout(30):
            await copying.wait()
        if how == "killed":
            await until(lambda: ours(domain) == [], within=10)
        assert len(ours(domain)) == (how == "killed with its keeper")
    (left,) = ours(domain)
    monkeypatch.setattr(own_port, "CONNECTS_WITHIN", -1.0)

    async with await connect(libvirt_host.uri) as host:
        guest = await host.guest("copies")
        async with asyncio.timeout(20):  # its relay ends with the connection
            while (await guest.run(["sh", "-c", RELAYS])).output != "0\n":
                await asyncio.sleep(0.2)
        await guest.upload(huge, "/tmp/huge")  # goes on where the killed one stopped
        assert left not in ours(domain)
        await guest.files.remove("/tmp/huge")

    assert ours(domain) == []


async def test_two_clients_have_a_port_each(
    libvirt_host: LibvirtHost, domain: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_port, "CONNECTS_WITHIN", 1.0)
    monkeypatch.setattr(large_files, "IDLE", 60.0)  # on a busy machine the first one rests for a while
    async with await connect(libvirt_host.uri) as one, await connect(libvirt_host.uri) as other:
        first, second = await one.guest("copies"), await other.guest("copies")
        await use_until_plugged(domain, lambda: first.upload(large, "/tmp/first"))
        (mine,) = ours(domain)
        seen: list[set[str]] = []
        copying = asyncio.create_task(second.upload(large, "/tmp/second"))
        while not copying.done():
            await first.upload(large, "/tmp/first")
            seen.append(set(ours(domain)))
        await copying
        assert all(mine in ports for ports in seen)
        assert len(seen[-1]) == 2
        assert await first.files.sha256("/tmp/first") == await first.files.sha256("/tmp/second")
    assert ours(domain) == []


async def test_a_guest_that_is_reset_in_the_middle_leaves_no_port(
    libvirt_host: LibvirtHost, domain: Any, large: Path
) -> None:
    async with await connect(libvirt_host.uri) as host:
        guest = await host.guest("copies")
        await guest.wait_ready()
        await use_until_plugged(domain, lambda: guest.upload(large, "/tmp/large"))
        copying = asyncio.create_task(guest.upload(large, "/tmp/reset"))
        await asyncio.to_thread(domain.reset)
        await asyncio.wait([copying])
        await guest.wait_ready()
        if copying.exception() is None:  # it had the whole file before
            assert copying.result() == large.stat().st_size
        await guest.upload(large, "/tmp/after")
        assert (await guest.files.stat("/tmp/after")).size == large.stat().st_size
    assert ours(domain) == []
