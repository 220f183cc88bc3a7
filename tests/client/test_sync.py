"""The client for code that does not run in an event loop: the same, in the same words; and it never waits for what does not come."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from serving import Serving
from ways import ca_of

import guestwire
import guestwire.client
from guestwire import SyncGuest, SyncHost, connect_sync
from guestwire.client._exports import NAMES
from guestwire.client.errors import HostClosed
from guestwire.client.processes import ProcessFailed
from guestwire.client.transfer.local_files import Data
from guestwire.errors import ConfigurationError
from guestwire.testing import FakeGuest, SandboxedAgent

T = TypeVar("T")
WITHIN = 30


async def elsewhere(work: Callable[[], T]) -> T:
    """Does blocking work beside this event loop, in which fakes run."""
    async with asyncio.timeout(WITHIN):
        return await asyncio.to_thread(work)


@pytest.fixture
async def host(agent: SandboxedAgent) -> AsyncIterator[SyncHost]:
    host = connect_sync(f"unix:{agent.socket}")
    yield host
    await elsewhere(host.close)


@pytest.fixture
async def web(host: SyncHost) -> SyncGuest:
    return await elsewhere(lambda: host.guest("web"))


@pytest.mark.agent
async def test_processes(web: SyncGuest) -> None:
    ended = await elsewhere(lambda: web.run(["cat"], input="hé", env={"A": "1"}, cwd="/usr"))
    pid = await elsewhere(lambda: web.processes.start(["sh", "-c", "exit 3"]))

    assert ended.output == "hé"
    assert (await elsewhere(lambda: web.processes.wait(pid))).code == 3
    with pytest.raises(ProcessFailed):
        await elsewhere(lambda: web.run(["false"], check=True))


@pytest.mark.agent
async def test_files_and_folders(web: SyncGuest, agent: SandboxedAgent, tmp_path: Path) -> None:
    def work() -> list[bytes]:
        web.write_file("/root/f", b"one", mode=0o640)
        web.files.write("/root/g", (piece for piece in [b"two", b"three"]))
        with web.open("/root/h", "wb") as stream:
            stream.write(b"four")
        with web.open("/root/h") as stream:
            assert (stream.read(1), stream.tell(), stream.seek(2), b"".join(stream)) == (b"f", 1, 2, b"ur")
        web.folders.makedirs("/root/folder/sub")
        assert "sub" in [entry.path for entry in web.folders.listdir("/root/folder")]
        web.download("/root/g", tmp_path / "g")
        web.upload(tmp_path / "g", "/root/i")
        return [web.read_file(f"/root/{name}") for name in "fghi"] + [b"".join(web.files.stream("/root/g"))]

    assert await elsewhere(work) == [b"one", b"twothree", b"four", b"twothree", b"twothree"]
    assert (agent.home / "f").stat().st_mode & 0o777 == 0o640


@pytest.mark.agent
async def test_what_a_guest_tells(web: SyncGuest, host: SyncHost) -> None:
    def work() -> None:
        assert web.osinfo() == web.get_osinfo()
        assert [one.name for one in web.interfaces()] == ["lo"]
        assert web.filesystems().total_bytes >= web.filesystems().used_bytes
        assert (web.vm.vmid, str(web.context), host.name) == (100, f"guest web on {host.name}", host.name)
        assert host.is_guestwire()

    await elsewhere(work)


async def test_an_exception_reaches_the_freeze_that_it_ends(guest: FakeGuest) -> None:
    guest.replies = {
        "guest-fsfreeze-freeze": 2,
        "guest-fsfreeze-thaw": lambda _: 2,
        "guest-fsfreeze-status": "thawed",
    }

    def work() -> None:
        with connect_sync(f"unix:{guest.path}") as host, host.guest("x").freeze() as count:
            assert count == 2
            raise RuntimeError("backup failed")

    with pytest.raises(RuntimeError, match="backup failed"):
        await elsewhere(work)
    assert "guest-fsfreeze-thaw" in guest.names()


@pytest.mark.agent
async def test_an_exception_drops_what_was_written(web: SyncGuest, agent: SandboxedAgent) -> None:
    def work() -> None:
        with web.open("/root/dropped", "wb") as stream:
            stream.write(b"x" * 1_000_000)
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        await elsewhere(work)
    assert [path.name for path in agent.home.iterdir() if "dropped" in path.name or "guestwire" in path.name] == []


# It never waits for what does not come


async def test_closed_twice_it_is_closed_and_says_so(guest: FakeGuest) -> None:
    host = connect_sync(f"unix:{guest.path}")
    there = await elsewhere(lambda: host.guest("x"))
    for _ in range(2):
        await elsewhere(host.close)

    with pytest.raises(HostClosed, match="connect again"):
        await elsewhere(there.ping)


async def test_closed_by_another_thread_a_call_ends(guest: FakeGuest) -> None:
    guest.no_reply |= {"guest-ping"}
    host = connect_sync(f"unix:{guest.path}")
    there = await elsewhere(lambda: host.guest("x"))
    waiting = asyncio.create_task(elsewhere(there.ping))
    while "guest-ping" not in guest.names():
        await asyncio.sleep(0.01)

    await elsewhere(host.close)

    with pytest.raises(HostClosed, match="closed meanwhile"):
        await waiting


@pytest.mark.agent
async def test_from_within_another_call_it_is_an_error(host: SyncHost, web: SyncGuest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)

    for call in (web.ping, host.close):
        with pytest.raises(HostClosed, match="from within another one"):
            await elsewhere(lambda: web.upload(tmp_path / "f", "/root/f", progress=lambda *_: call()))  # noqa: B023  # at once


@pytest.mark.agent
async def test_what_ends_a_program_reaches_it_and_ends_no_loop(web: SyncGuest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)

    with pytest.raises(SystemExit, match="enough"):
        await elsewhere(lambda: web.upload(tmp_path / "f", "/root/f", progress=lambda *_: sys.exit("enough")))
    await elsewhere(web.ping)


async def test_any_number_of_threads_use_it_until_one_closes_it(guest: FakeGuest) -> None:
    host = connect_sync(f"unix:{guest.path}")
    there = await elsewhere(lambda: host.guest("x"))
    enough = threading.Event()
    pings: list[int] = []

    def use() -> str:
        while True:
            try:
                there.ping()
            except HostClosed as closed:
                return str(closed)
            pings.append(1)
            if len(pings) > 200:
                enough.set()

    using = [asyncio.create_task(elsewhere(use)) for _ in range(4)]
    await elsewhere(enough.wait)
    await elsewhere(host.close)

    assert {await one for one in using} <= {"the host was closed meanwhile", "the host is closed: connect again"}


@pytest.mark.agent
async def test_data_may_come_from_any_iterable(web: SyncGuest, agent: SandboxedAgent) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    given: tuple[Data, ...] = ([b"one", b"two"], iter([b"onet", b"wo"]), chunks(), b"onetwo")
    for number, data in enumerate(given):
        await elsewhere(lambda: web.write_file(f"/root/any{number}", data))  # noqa: B023  # at once
        assert (agent.home / f"any{number}").read_bytes() == b"onetwo"


FREEZING = """
import sys
from guestwire import connect_sync
with connect_sync(sys.argv[1]) as host:
    with host.guest("x").freeze():
        pass
"""


async def test_ctrl_c_while_a_guest_is_frozen_thaws_it_before_anything_is_closed(guest: FakeGuest) -> None:
    guest.replies = {"guest-fsfreeze-freeze": 1, "guest-fsfreeze-thaw": 1, "guest-fsfreeze-status": "thawed"}
    guest.delay = {"guest-fsfreeze-freeze": 0.5, "guest-fsfreeze-thaw": 0.5}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FREEZING, f"unix:{guest.path}", stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WITHIN):
        while "guest-fsfreeze-freeze" not in guest.names():
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()

    assert errors.endswith(b"KeyboardInterrupt\n")
    assert guest.names() == ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status"]


async def test_closed_by_another_thread_a_call_cleans_up_first(guest: FakeGuest) -> None:
    guest.replies = {"guest-fsfreeze-freeze": 1, "guest-fsfreeze-thaw": 1, "guest-fsfreeze-status": "thawed"}
    guest.delay = {"guest-fsfreeze-freeze": 0.2, "guest-fsfreeze-thaw": 0.2}
    host = connect_sync(f"unix:{guest.path}")

    def freeze() -> None:
        with host.guest("x").freeze():
            pass

    waiting = asyncio.create_task(elsewhere(freeze))
    while "guest-fsfreeze-freeze" not in guest.names():
        await asyncio.sleep(0.01)
    await elsewhere(host.close)

    with pytest.raises(HostClosed):
        await waiting
    assert guest.names()[1:] == ["guest-fsfreeze-thaw", "guest-fsfreeze-status"]


FORKED = """
import os, sys
from guestwire import connect_sync
host = connect_sync(sys.argv[1])
host.guests()
if not os.fork():
    try:
        host.guests()
    except Exception as error:
        print(error, flush=True)
    host.close()
    os._exit(0)
os.wait()
print(len(host.guests()))
"""


def test_a_fork_says_that_it_has_to_connect_itself(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, f"unix:{folder}/none.qga"],
        capture_output=True, text=True, timeout=WITHIN, check=True,
    )  # fmt: skip

    assert "of which this one is a fork: connect here too" in done.stdout
    assert done.stdout.endswith("\n1\n")
    assert done.stderr == ""


ENDING_FORK = """
import os, sys
from guestwire import connect_sync
host = connect_sync(sys.argv[1])
host.guests()
if not os.fork():
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_fork_ends_though_it_has_no_thread_to_wait_for(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENDING_FORK, f"unix:{folder}/none.qga"],
        capture_output=True, text=True, timeout=WITHIN, check=True,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("7\n", "")


def test_a_loop_that_can_not_be_made_is_an_error(folder: Path) -> None:
    code = f"""
import resource, socket
from guestwire import connect_sync
import guestwire.client.carriers.direct
used = [socket.socket()]
resource.setrlimit(resource.RLIMIT_NOFILE, (used[0].fileno() + 1, used[0].fileno() + 1))
try:
    connect_sync("unix:{folder}/none.qga")
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=WITHIN, check=True
    )

    assert done.stdout == "Too many open files\n", done.stderr


UNCLOSED = """
import sys
from guestwire import connect_sync
target, token, ca = sys.argv[1:]
print(len(connect_sync(target, token=token, ca=ca).guests()))
"""


async def test_the_end_of_python_closes_it(server: Serving) -> None:
    target = f"https://127.0.0.1:{server.port}"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        UNCLOSED,
        target,
        server.token,
        ca_of(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(WITHIN):
        output, errors = await process.communicate()

    assert (output, errors) == (b"2\n", b"")


def test_no_thread_is_left(folder: Path) -> None:
    before = threading.enumerate()
    with connect_sync(f"unix:{folder}/none.qga"):
        pass
    with pytest.raises(ConfigurationError):
        connect_sync("ftp://x")

    assert set(threading.enumerate()) <= set(before)  # those of earlier tests may end meanwhile


# What is handed on


def test_guestwire_hands_the_client_on_and_loads_it_when_it_is_wanted() -> None:
    code = "import sys, guestwire; print('guestwire.client' in sys.modules, hasattr(guestwire, 'none'), guestwire.connect.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WITHIN, check=True)

    assert done.stdout.split() == ["False", "False", "guestwire.client.hosts"]


@pytest.mark.parametrize("package", ["", "client/"])
def test_type_checkers_know_the_names_that_are_handed_on(package: str) -> None:
    stub = Path(str(guestwire.__file__)).parent / f"{package}__init__.pyi"
    told = {line.rpartition(" as ")[2] for line in stub.read_text().splitlines() if " as " in line}

    assert told == set(NAMES)
    assert all(getattr(guestwire, name) for name in NAMES)
    assert set(NAMES) == set(dir(guestwire)) == set(dir(guestwire.client))
