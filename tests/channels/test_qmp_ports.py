"""Ports of our own by QMP: a real QEMU, the guest's own shell, and owners that are killed."""

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calling import keeper_of, site
from qemu.qmp import QMPClient
from serving import Serving
from waiting import succeeds
from ways import over_https

from guestwire.channels import own_port, qmp_ports
from guestwire.channels.own_port import leftovers, new_name, plugged_in
from guestwire.channels.port_keeper import CONTROLLER, PREFIX
from guestwire.channels.qmp import Monitor
from guestwire.channels.qmp_ports import QmpPorts
from guestwire.client import connect
from guestwire.errors import GuestError

if TYPE_CHECKING:
    from devtools.guests import GuestImage, Machine

pytestmark = [pytest.mark.agent, pytest.mark.guest, pytest.mark.slow]

SIZE = 12 * 1024 * 1024
FIND = "for p in /sys/class/virtio-ports/*; do grep -q {name} $p/name && break; done; f=/dev/${{p##*/}}"

OWNER = """
import asyncio, sys
from pathlib import Path
from guestwire.channels.own_port import new_name, plugged_in
from guestwire.channels.qmp import Monitor
from guestwire.channels.qmp_ports import QmpPorts

async def main():
    ports = QmpPorts(Monitor(Path(sys.argv[1]), "VM 100", None, None), "VM 100")
    async with plugged_in(ports, new_name("test")), plugged_in(ports, name := new_name("test")):
        connection = await ports.connect(name)
        print("plugged in", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def until_true(holds: Callable[[], Awaitable[bool]], within: float = 15.0) -> None:
    async with asyncio.timeout(within):
        while not await holds():  # only asking tells
            await asyncio.sleep(0.05)


async def until_gone(machine: "Machine", within: float = 15.0) -> None:
    async def is_gone() -> bool:
        return await machine.plugged_in() == []

    await until_true(is_gone, within)


@contextlib.asynccontextmanager
async def ports_of(machine: "Machine") -> AsyncIterator[QmpPorts]:
    monitor = Monitor(machine.qmp_socket, "VM 100", None, None)
    try:
        yield QmpPorts(monitor, "VM 100")
    finally:
        await monitor.close()


@contextlib.asynccontextmanager
async def owner(machine: "Machine") -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has two ports, one of them connected; it is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(machine.qmp_socket), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"plugged in\n"
        assert len(await machine.plugged_in()) == 4  # two chardevs, two devices
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
async def ports(machine: "Machine") -> AsyncIterator[QmpPorts]:
    async with ports_of(machine) as ports:
        yield ports
    assert await machine.plugged_in() == []


@pytest.fixture
def target(machine: "Machine") -> str:
    return f"unix:{machine.agent_socket}?qmp={machine.qmp_socket}"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(SIZE + 1234))
    path.chmod(0o640)
    return path


# Ports


async def test_a_port_is_a_stream_there_and_back_of_any_bytes(ports: QmpPorts, machine: "Machine") -> None:
    name, data = new_name("test"), os.urandom(1024 * 1024)
    async with plugged_in(ports, name):
        assert await ports.names() == [name]
        echo = asyncio.create_task(
            machine.shell(f"{FIND.format(name=name)}; dd bs=65536 count=16 iflag=fullblock <>$f >&0 2>/dev/null")
        )
        reader, writer = await asyncio.open_unix_connection(sock=await ports.connect(name))
        writer.write(data)
        async with asyncio.timeout(30):
            assert await reader.readexactly(len(data)) == data
        await echo
        with pytest.raises(GuestError, match="in use"):
            await ports.connect(name)
        assert not await ports.is_free(name)
        writer.close()
    assert await ports.names() == []
    await ports.unplug(name)  # once more is nothing


async def test_a_full_controller_gets_another_one_beside_it_which_goes_with_its_last_port(
    ports: QmpPorts, machine: "Machine"
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        names = [new_name("test") for _ in range(40)]
        await asyncio.gather(*(stack.enter_async_context(plugged_in(ports, name)) for name in names))
        controllers = [name for name in await machine.plugged_in() if name.startswith(CONTROLLER)]
        assert len(controllers) == 1

        async def are_all_in_the_guest() -> bool:
            found = await machine.shell("cat /sys/class/virtio-ports/*/name")
            return set(names) <= set(found.split())

        await until_true(are_all_in_the_guest)
    await until_gone(machine)  # the guest gives it back a moment later


async def test_a_vm_that_is_paused_or_reset_keeps_no_port(machine: "Machine") -> None:
    async with ports_of(machine) as ports:
        await ports.names()
        for before, after in (("stop", "cont"), ("system_reset", "query-status")):
            async with plugged_in(ports, name := new_name("test")):
                with await ports.connect(name):
                    await ports._monitor.execute(before)  # it has this VM's only free QMP socket
            assert await ports.names() == []
            await ports._monitor.execute(after)  # as above
    await machine.wait_for_agent()
    assert await machine.plugged_in() == []


async def test_a_vm_that_ends_takes_its_ports_along(
    image: "GuestImage", tmp_path_factory: pytest.TempPathFactory
) -> None:
    from devtools.guests import Machine, accelerator  # noqa: PLC0415  # as in conftest.py

    folder = tmp_path_factory.mktemp("vm")
    async with Machine(image, folder, accel=await accelerator(image)) as machine, ports_of(machine) as ports:
        async with asyncio.timeout(20), plugged_in(ports, name := new_name("test")):
            connection = await ports.connect(name)
            await machine.stop()
            assert await asyncio.get_running_loop().sock_recv(connection, 1) == b""
            connection.close()
        with pytest.raises(GuestError, match="nothing answers there"):
            await ports.plug_in(name)


async def test_what_can_not_be_had_is_said_and_leaves_nothing(ports: QmpPorts, machine: "Machine") -> None:
    with pytest.raises(GuestError, match=r"Invalid parameter|identifier"):
        await ports.plug_in(f"{PREFIX}no id")
    assert await machine.plugged_in() == []
    async with ports_of(machine) as others:  # QMP takes one client
        with pytest.raises(GuestError, match="another client holds it"):
            await others.plug_in(new_name("test"))


async def test_a_socket_is_ours_as_soon_as_its_other_clients_have_gone(machine: "Machine") -> None:
    first = QMPClient("tests")
    await first.connect(str(machine.qmp_socket))
    try:
        for _ in range(4):  # who gives up stays in QEMU's queue
            monitor = Monitor(machine.qmp_socket, "VM 100", None, None)
            assert await monitor.is_running()
            await monitor.close()
        monitor = Monitor(machine.qmp_socket, "VM 100", None, None)
        assert await monitor.is_running()
        with pytest.raises(GuestError, match="another client holds it"):
            await QmpPorts(monitor, "VM 100").names()
    finally:
        await first.disconnect()

    async def answers() -> bool:
        return await succeeds(QmpPorts(monitor, "VM 100").names())

    await until_true(answers)
    await monitor.close()


@pytest.mark.parametrize("is_used", [False, True], ids=["while it is plugged in", "while it is used"])
async def test_it_is_taken_out_to_the_end_however_often_its_owner_is_cancelled(
    ports: QmpPorts, machine: "Machine", monkeypatch: pytest.MonkeyPatch, *, is_used: bool
) -> None:
    begins, is_there = asyncio.Event(), asyncio.Event()
    plug_in = QmpPorts.plug_in

    async def plug_in_and_say(self: QmpPorts, name: str) -> None:
        begins.set()
        await plug_in(self, name)

    async def own() -> None:
        async with plugged_in(ports, new_name("test")):
            is_there.set()
            await asyncio.sleep(600)

    monkeypatch.setattr(QmpPorts, "plug_in", plug_in_and_say)
    owning = asyncio.create_task(own())
    async with asyncio.timeout(20):
        await (is_there if is_used else begins).wait()
        while not owning.done():  # once in each turn of the loop
            owning.cancel()
            await asyncio.sleep(0)
    assert owning.cancelled()
    assert is_there.is_set() == is_used
    assert await machine.plugged_in() == []


# Other machines, without a guest


@contextlib.asynccontextmanager
async def bare(folder: Path, *devices: str) -> AsyncIterator[QmpPorts]:
    """The ports of a VM that does not run: QEMU alone, with these devices."""
    socket = folder / "qmp"
    process = await asyncio.create_subprocess_exec(
        "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-S", "-nodefaults", "-no-user-config", "-display", "none",
        "-qmp", f"unix:{socket},server=on,wait=off", *devices,
    )  # fmt: skip
    monitor = Monitor(socket, "VM 100", None, None)
    try:
        async with asyncio.timeout(20):
            while not await monitor.is_running():
                await asyncio.sleep(0.05)
        yield QmpPorts(monitor, "VM 100")
    finally:
        await monitor.close()
        process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("devices", "has_room"),
    [
        ("-machine pc", True),
        ("-machine q35 -device virtio-serial-pci,max_ports=2", False),
        ("-machine q35 -device virtio-serial-pci,max_ports=2 -device pcie-root-port,id=free,chassis=1", True),
        ("-machine microvm -device virtio-serial-device,max_ports=2", False),
    ],
)
async def test_another_controller_is_plugged_in_where_the_machine_has_a_place_for_one(
    tmp_path_factory: pytest.TempPathFactory, devices: str, has_room: bool
) -> None:
    async with bare(tmp_path_factory.mktemp("q"), *devices.split()) as ports:
        names = [new_name("test") for _ in range(3)]
        refused = None
        for name in names:
            try:
                await ports.plug_in(name)
            except GuestError as error:
                refused = error
        assert (refused is None) == has_room
        assert refused is None or "no place is free for more of them" in str(refused)
        plugged = await ports.names()
        assert set(plugged) <= set(names)
        for name in plugged:
            await ports.unplug(name)
        assert await ports.names() == []


# Owners that are killed


async def test_the_ports_of_an_owner_that_is_killed_go_within_seconds(machine: "Machine") -> None:
    for _ in range(3):
        async with owner(machine) as process:
            process.kill()
            await process.wait()
            await until_gone(machine, within=10)


async def test_what_is_left_when_the_keeper_is_killed_too_is_the_next_ones_to_clear(
    machine: "Machine", monkeypatch: pytest.MonkeyPatch
) -> None:
    async with owner(machine) as process:
        os.kill(await keeper_of(process.pid), signal.SIGKILL)
    assert len(await machine.plugged_in()) == 4
    async with ports_of(machine) as ports, plugged_in(ports, used := new_name("test")):
        assert await leftovers(ports, "test") == []  # they are too new
        monkeypatch.setattr(own_port, "CONNECTS_WITHIN", -1.0)
        left = await leftovers(ports, "test")
        assert len(left) == 2
        assert used not in left
        assert await leftovers(ports, "copy") == []
        for name in left:
            await ports.unplug(name)
    assert await machine.plugged_in() == []


async def test_a_client_that_wants_no_port_clears_what_is_left_too(
    machine: "Machine", monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has QEMU's only QMP socket for as long as it lives, and a keeper would wait for that; QEMU may be busy at first."""
    monkeypatch.setattr(qmp_ports, "CONNECTS_WITHIN", 0.5)
    names, failures = QmpPorts.names, iter([GuestError("no answer in 3 seconds")] * 3)

    async def names_later(self: QmpPorts) -> list[str]:
        for failure in failures:
            raise failure
        return await names(self)

    async with owner(machine) as process:
        os.kill(await keeper_of(process.pid), signal.SIGKILL)
    monkeypatch.setattr(QmpPorts, "names", names_later)
    async with ports_of(machine):
        await until_gone(machine, within=30)


async def test_a_copy_that_is_killed_leaves_no_port(machine: "Machine", target: str, tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    huge.write_bytes(os.urandom(SIZE) * 8)
    copying = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guestwire", "--host", target, "cp", str(huge), f"{machine.agent_socket.stem}:/tmp/huge"
    )

    async def is_plugged_in() -> bool:
        return bool(await machine.plugged_in())

    await until_true(is_plugged_in, within=30)
    copying.kill()
    await copying.wait()
    await until_gone(machine, within=10)
    await machine.shell("rm -rf /tmp/huge /tmp/.g*")


async def test_a_service_that_is_killed_leaves_no_port(machine: "Machine", large: Path) -> None:
    vm = f'[[vm]]\nvmid = 100\nname = "web"\nagent = "unix:{machine.agent_socket}"\nqmp = "unix:{machine.qmp_socket}"\n'
    async with Serving.of(site(vm), killed=True) as server, await over_https(server) as host:
        guest = await host.guest("web")
        await guest.wait_ready()
        await guest.upload(large, "/tmp/served")
        assert await machine.plugged_in()
        server.process.kill()
        await server.process.wait()
        await until_gone(machine, within=10)
    await machine.shell("rm -f /tmp/served")


# Copies


async def test_a_large_file_goes_there_and_back_by_a_port_that_the_target_allows(
    machine: "Machine", target: str, large: Path, tmp_path: Path
) -> None:
    async with await connect(target) as host:
        guest = await host.guest(100)
        await guest.upload(large, "/tmp/large")
        assert await machine.plugged_in()
        await guest.download("/tmp/large", tmp_path / "back")
        assert (await guest.files.stat("/tmp/large")).mode == 0o640
        await guest.files.remove("/tmp/large")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == 0o640
    assert await machine.plugged_in() == []


async def test_a_server_copies_by_a_port_where_a_vm_has_a_qmp_socket(machine: "Machine", large: Path) -> None:
    vm = f'[[vm]]\nvmid = 100\nname = "web"\nagent = "unix:{machine.agent_socket}"\nqmp = "unix:{machine.qmp_socket}"\n'
    async with Serving.of(site(vm)) as server, await over_https(server) as host:
        guest = await host.guest("web")
        await guest.wait_ready()
        await guest.upload(large, "/tmp/served")
        assert await machine.plugged_in()
        assert (await guest.files.stat("/tmp/served")).size == large.stat().st_size
        await guest.files.remove("/tmp/served")
    assert await machine.plugged_in() == []


async def test_where_another_client_holds_qmp_copies_go_by_the_agent(
    machine: "Machine", target: str, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2 * 1024 * 1024))
    async with ports_of(machine) as others:
        await others.names()
        async with await connect(target) as host:
            guest = await host.guest(100)
            await guest.upload(path, "/tmp/large")
            assert (await guest.files.stat("/tmp/large")).size == path.stat().st_size
            await guest.files.remove("/tmp/large")
        assert await machine.plugged_in() == []
