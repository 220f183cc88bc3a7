"""What all tests use: short folders for sockets, real agents in sandboxes, a real guest, every way to one; and a check that nothing is left behind."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from calling import site, vm
from own_libvirt import own_libvirt
from serving import Serving
from slow_line import slow_line
from ways import Target, Way, options_for, over_https

from devtools.libvirt_host import LibvirtHost
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import UnixChannel
from guestwire.client import connect
from guestwire.errors import GuestImageError
from guestwire.testing import FakeGuest, SandboxedAgent

if TYPE_CHECKING:
    from playing import Ansible

    from devtools.guests import GuestImage, Machine

_with_guests: set[Path] = set()
"""Files with tests that boot guests."""
_guests: "list[Machine]" = []
"""All that this process has made for several files."""

# A busy machine is slow at drawing examples, too: that says nothing about the code.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--strict-limits`: the way `limited` gets Proxmox VE's times and an agent at 200 KB a second; its tests take an hour then."""
    parser.addoption("--strict-limits", action="store_true")


def pytest_configure() -> None:
    """Makes nothing depend on the shell that the tests are started from.

    Ctrl-C reaches the programs that tests start also where it was ignored, as `&` in a script does; and the host that a
    person uses guestwire for is none of the tests'.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith("GUESTWIRE_")]:
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that boot guests come first, those that end them after the others; then come those with slow tests.

    A worker takes a whole file. The last ones should be short, so that no worker is idle while another has minutes to go.
    """
    marks: dict[Path, set[str]] = {}
    for item in items:
        marks.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    _with_guests.update(path for path, names in marks.items() if "guest" in names)

    def rank(item: pytest.Item) -> int:
        names = marks[item.path]
        if "guest" in names:
            return 1 if "ends_guest" in names else 0
        return 2 if "slow" in names else 3

    items.sort(key=rank)


@pytest.fixture(scope="module", autouse=True)
async def no_guest_is_idle(request: pytest.FixtureRequest) -> None:
    """An emulated guest takes a fiftieth of a processor also when it does nothing; files that need none come last."""
    if request.path not in _with_guests:
        await asyncio.gather(*(guest.stop() for guest in _guests))


@pytest.fixture(autouse=True)
async def nothing_is_left_behind(in_libvirt: object) -> AsyncIterator[None]:  # noqa: ARG001  # what it starts stays
    """A test ends with the tasks it began with."""
    before = asyncio.all_tasks()
    yield
    left = _new_tasks(before)
    for _ in range(20):
        if not left:
            return
        await asyncio.sleep(0.01)
        left = _new_tasks(before)
    for task in left:
        task.cancel()
    pytest.fail(f"tasks are left behind: {sorted(f'{task.get_name()}: {task.get_coro()}' for task in left)}")


def _new_tasks(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Without the connections of a fake guest that stays for several tests: a server in a process of its own may make one at any time."""
    return {
        task
        for task in asyncio.all_tasks() - before
        if task is not asyncio.current_task() and "FakeGuest._serve_connection" not in str(task.get_coro())
    }


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        yield Path(name)


@pytest.fixture
async def guest(folder: Path) -> AsyncIterator[FakeGuest]:
    """A fake guest."""
    async with FakeGuest(folder / "fake.qga") as guest:
        yield guest


@pytest.fixture
async def channel(guest: FakeGuest) -> AsyncIterator[UnixChannel]:
    """A channel to the fake guest."""
    channel = UnixChannel(guest.path, "VM 100")
    yield channel
    await channel.close()


@pytest.fixture(scope="session")
async def only_agent() -> AsyncIterator[SandboxedAgent]:
    """A real guest agent, alone in a sandbox; its socket serves one client at a time."""
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        async with SandboxedAgent(Path(name) / "real.qga", name="guest100") as agent:
            yield agent


@pytest.fixture
async def agent(only_agent: SandboxedAgent) -> SandboxedAgent:
    """The same; it answers, also when the test before hung up in mid-answer, with which it ends and is started again."""
    assert await only_agent.answers()
    return only_agent


@pytest.fixture
async def fake_agent(channel: UnixChannel) -> AsyncIterator[GuestAgent]:
    """The typed agent of the fake guest."""
    agent = GuestAgent(channel, "VM 100", ExitStatusCache())
    yield agent
    await agent.close()


@pytest.fixture
async def real_agent(agent: SandboxedAgent) -> AsyncIterator[GuestAgent]:
    """The typed agent of a real one in a sandbox."""
    channel = UnixChannel(agent.socket, "VM 100")
    typed = GuestAgent(channel, "VM 100", ExitStatusCache())
    yield typed
    await typed.close()
    await channel.close()


@pytest.fixture(scope="session")
async def image() -> "GuestImage":
    """The small guest, with this host's agent."""
    from devtools.guests import build, default_cache  # noqa: PLC0415  # guests need qemu-qmp, other tests do not

    return await asyncio.to_thread(build, default_cache())


@pytest.fixture(scope="session")
async def small_machine(image: "GuestImage") -> AsyncIterator["Machine"]:
    """A real guest."""
    from devtools.guests import Machine, accelerator  # noqa: PLC0415  # as above

    folder = Path(tempfile.mkdtemp(prefix="gw-"))
    machine = Machine(image, folder, accel=await accelerator(image))
    _guests.append(machine)
    try:
        yield machine
    finally:
        await machine.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
async def machine(small_machine: "Machine") -> AsyncIterator["Machine"]:
    """It has booted; a file's last test that needs it may end it."""
    async with _booted(small_machine):
        yield small_machine


@contextlib.asynccontextmanager
async def _booted(machine: "Machine") -> AsyncIterator[None]:
    if not machine.running:
        await machine.start()
    await machine.wait_for_agent()
    yield
    # An agent whose client was killed tries to write its answer without a pause, until there is another client: a
    # processor less for all other tests.
    with contextlib.suppress(GuestImageError):
        await machine.wait_for_agent(within=10)


@pytest.fixture(scope="session")
async def debian_image() -> "GuestImage":
    """Debian with systemd and OpenSSH, without a network."""
    from devtools.guests import build_debian, default_cache  # noqa: PLC0415  # as above

    try:
        return await asyncio.to_thread(build_debian, default_cache())
    except GuestImageError as error:
        pytest.skip(f"no Debian guest here: {error}")


@pytest.fixture(scope="session")
async def debian_machine(debian_image: "GuestImage") -> AsyncIterator["Machine"]:
    """A real guest with that."""
    from devtools.guests import Machine, accelerator  # noqa: PLC0415  # as above

    accel = await accelerator(debian_image)
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        async with Machine(debian_image, Path(name), vmid=112, accel=accel) as machine:
            _guests.append(machine)
            yield machine


@pytest.fixture(scope="module")
async def debian(debian_machine: "Machine") -> AsyncIterator["Machine"]:
    """As `machine`."""
    async with _booted(debian_machine):
        yield debian_machine


@pytest.fixture
async def at_its_end(machine: "Machine") -> AsyncIterator["Machine"]:
    """The same for a file's last test that needs it, which is marked so: it is stopped after that, however the test ends."""
    yield machine
    await machine.stop()


# A real guest with one agent or the other


@pytest.fixture(scope="session")
async def newer_machine() -> AsyncIterator["tuple[Machine, GuestImage] | str"]:
    """A real guest with Debian 13's agent; or why there is none."""
    from devtools.guests import Machine, accelerator, build, default_cache  # noqa: PLC0415  # as above

    try:
        image = await asyncio.to_thread(build, default_cache(), agent="trixie")
    except GuestImageError as error:
        yield f"no guest with Debian 13's agent here: {error}"
        return
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        async with Machine(image, Path(name), vmid=113, accel=await accelerator(image)) as machine:
            _guests.append(machine)
            yield machine, image


@pytest.fixture(scope="module")
async def newer(
    newer_machine: "tuple[Machine, GuestImage] | str",
) -> AsyncIterator["tuple[Machine, GuestImage] | str"]:
    """As `machine`."""
    async with contextlib.nullcontext() if isinstance(newer_machine, str) else _booted(newer_machine[0]):
        yield newer_machine


@pytest.fixture(params=["this host's agent", "Debian 13's agent"])
def booted(
    request: pytest.FixtureRequest, machine: "Machine", image: "GuestImage", newer: "tuple[Machine, GuestImage] | str"
) -> "tuple[Machine, GuestImage]":
    """A machine with one agent or the other."""
    if request.param == "this host's agent":
        return machine, image
    if isinstance(newer, str):
        pytest.skip(newer)
    return newer


# libvirt


@pytest.fixture(scope="session")
async def libvirt_host() -> AsyncIterator[LibvirtHost]:
    """A libvirt of our own."""
    async with own_libvirt() as host:
        yield host


@pytest.fixture(scope="session")
async def libvirt_web(libvirt_host: LibvirtHost, image: "GuestImage") -> AsyncIterator[SandboxedAgent]:
    """The agent of its domain `web`, which runs; the agent is in a sandbox, where tests can see it."""
    async with libvirt_host.bridged("web", image) as agent:
        yield agent


@pytest.fixture
def ansible(folder: Path) -> "Ansible":
    """Ansible, with a folder of its own."""
    from playing import Ansible  # noqa: PLC0415  # it is not there where the base alone is tested

    return Ansible(folder)


# Every way to a guest


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100, "web"), vm(101, "fake"))) as server:
        yield server


@pytest.fixture(scope="module")
async def served_agent(server: Serving) -> AsyncIterator[SandboxedAgent]:
    async with SandboxedAgent(server.folder / "100.qga", name="web") as agent:
        yield agent


@pytest.fixture(scope="module")
async def limited(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Serving, SandboxedAgent]]:
    strict = request.config.getoption("--strict-limits")
    async with Serving.of(site(vm(100, "web")), limited=True, strict=strict) as server:
        socket = server.folder / "100.qga"
        behind = server.folder / "behind.qga" if strict else socket
        async with (
            SandboxedAgent(behind, name="web") as agent,
            slow_line(socket, behind) if strict else contextlib.nullcontext(),
        ):
            yield server, agent


@pytest.fixture
def in_libvirt(request: pytest.FixtureRequest) -> tuple[str, SandboxedAgent] | None:
    """The URI of a libvirt and the agent of its domain `web`, where the test goes that way: other tests need not wait for it."""
    if not hasattr(request.node, "callspec") or "libvirt" not in request.node.callspec.params.values():
        return None
    agent = request.getfixturevalue("libvirt_web")
    return request.getfixturevalue("libvirt_host").uri, agent


@pytest.fixture(params=["unix", "guestwire", "limited", "libvirt"])
async def way(
    request: pytest.FixtureRequest,
    server: Serving,
    served_agent: SandboxedAgent,
    agent: SandboxedAgent,
    limited: tuple[Serving, SandboxedAgent],
    in_libvirt: tuple[str, SandboxedAgent] | None,
) -> AsyncIterator[Way]:
    if in_libvirt:
        uri, real = in_libvirt
        async with await connect(uri) as host:
            yield Way(host, await host.guest("web"), real, None, ["--host", uri])
        return
    if request.param == "unix":
        target = f"unix:{agent.socket}"
        async with await connect(target) as host:
            yield Way(host, await host.guest("web"), agent, None, ["--host", target])
        return
    between, real = (server, served_agent) if request.param == "guestwire" else limited
    async with await over_https(between) as host:
        yield Way(host, await host.guest("web"), real, between, options_for(between))


@pytest.fixture(params=["unix", "guestwire", "limited", "libvirt"])
def target(
    request: pytest.FixtureRequest,
    server: Serving,
    served_agent: SandboxedAgent,
    agent: SandboxedAgent,
    limited: tuple[Serving, SandboxedAgent],
    in_libvirt: tuple[str, SandboxedAgent] | None,
) -> Target:
    """As `way`, with nothing connected to the agent but what the test starts."""
    if in_libvirt:
        uri, real = in_libvirt
        return Target(["--host", uri], real, "web")
    if request.param == "unix":
        return Target(["--host", f"unix:{agent.socket}"], agent, "guest100")
    between, real = (server, served_agent) if request.param == "guestwire" else limited
    return Target(options_for(between), real, "web", is_limited=between.limited)
