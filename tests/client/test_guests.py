"""What stands above the endpoints of a guest, over an agent's socket and over HTTPS to a server, with a fake guest."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from calling import site, vm
from freezes import FrozenGuest
from serving import Serving

from devtools.guests import Machine
from guestwire import Guest, connect
from guestwire.client.diagnosis import examine
from guestwire.client.errors import (
    AgentRefused,
    AgentUnavailable,
    CallFailed,
    FreezeLost,
    FreezeUncertain,
    NotReady,
    StillFrozen,
)
from guestwire.client.processes import OutcomeUnknown
from guestwire.testing import CLOSE, Action, CommandError, Exchange, FakeGuest


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100, "fake"))) as server:
        yield server


@pytest.fixture
async def fake(request: pytest.FixtureRequest, server: Serving) -> AsyncIterator[FakeGuest]:
    """The server's guest; another one where the client goes there by itself, for an agent takes one connection at a time."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    name = "direct" if parameters.get("there") == "unix" else "100"
    async with FakeGuest(server.folder / f"{name}.qga") as fake:
        yield fake


@pytest.fixture(params=["unix", "https"])
async def there(request: pytest.FixtureRequest, server: Serving, fake: FakeGuest) -> AsyncIterator[Guest]:
    ca = str(server.folder / "state" / "server.pem")
    host = await (
        connect(f"unix:{fake.path}")
        if request.param == "unix"
        else connect(f"https://127.0.0.1:{server.port}", token=server.token, ca=ca)
    )
    async with host:
        if request.param == "https":
            await (await host.guest(100)).wait_ready(30)
        fake.received.clear()
        yield await host.guest(100)


@pytest.mark.parametrize("password", ["pässwörd", "世界世界世", "plain123"])
async def test_a_password_arrives_as_utf8(there: Guest, fake: FakeGuest, password: str) -> None:
    fake.replies["guest-set-user-password"] = {}

    await there.set_user_password("root", password)

    (request,) = (one for one in fake.received if one["execute"] == "guest-set-user-password")
    assert base64.b64decode(request["arguments"]["password"]).decode() == password


def file_system(name: str, mountpoint: str, **sizes: int) -> dict[str, Any]:
    return {"name": name, "mountpoint": mountpoint, "type": "ext4", "disk": [], **sizes}


async def test_file_systems_are_summed_and_a_device_counts_once(there: Guest, fake: FakeGuest) -> None:
    fake.replies["guest-get-fsinfo"] = [
        file_system("vda1", "/", **{"total-bytes": 100, "used-bytes": 40}),
        file_system("vda1", "/again", **{"total-bytes": 100, "used-bytes": 40}),
        file_system("vdb", "/data", **{"total-bytes": 10}),
        file_system("proc", "/proc"),
    ]

    found = await there.filesystems()

    assert [one.mountpoint for one in found] == ["/", "/again", "/data"]
    assert (found.total_bytes, found.used_bytes) == (110, 40)


async def test_a_guest_that_does_not_tell_its_system_is_taken_for_a_unix(there: Guest) -> None:
    assert not await there.is_windows()


async def test_a_shutdown_is_waited_for(there: Guest, fake: FakeGuest) -> None:
    def leaving(exchange: Exchange) -> list[Any]:
        if exchange.request["execute"] == "guest-shutdown":
            fake.path.unlink()
            return [CLOSE]
        return exchange.honest

    fake.fault = leaving

    await there.shutdown(wait=30)

    assert fake.names().count("guest-shutdown") == 1


async def test_a_guest_that_does_not_go_is_said_to_run_still(there: Guest, fake: FakeGuest) -> None:
    fake.no_reply.clear()
    fake.replies["guest-shutdown"] = {}

    with pytest.raises(NotReady, match="still runs after 0"):
        await there.shutdown(wait=0.3)


class Freezing:
    """A guest's file systems; the agent takes its time to freeze them, and to thaw them."""

    def __init__(self, fake: FakeGuest) -> None:
        self.frozen = False
        fake.replies["guest-fsfreeze-freeze"] = lambda _: self._become(frozen=True)
        fake.replies["guest-fsfreeze-thaw"] = lambda _: self._become(frozen=False)
        fake.replies["guest-fsfreeze-status"] = lambda _: "frozen" if self.frozen else "thawed"
        fake.delay |= {f"guest-fsfreeze-{name}": 0.2 for name in ("freeze", "thaw", "status")}

    def _become(self, *, frozen: bool) -> int:
        self.frozen = frozen
        return 1


async def _asked(fake: FakeGuest, name: str) -> None:
    async with asyncio.timeout(30):
        while name not in fake.names():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("moment", ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status"])
async def test_a_freeze_is_thawed_however_often_it_is_cancelled(there: Guest, fake: FakeGuest, moment: str) -> None:
    guest = Freezing(fake)

    async def frozen() -> None:
        async with there.freeze():
            pass

    task = asyncio.create_task(frozen())
    await _asked(fake, moment)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)

    with pytest.raises(asyncio.CancelledError):
        await task
    assert not guest.frozen
    assert fake.names()[-1] == "guest-fsfreeze-status"


WINDOWS = "couldn't hold writes: fsfreeze is limited up to 10 seconds: (error: 80042314)"
HOOK = "hook script has failed with status: 1"


@pytest.mark.parametrize(
    ("frozen", "answers", "error", "words", "thaws"),
    [
        (3, (3,), None, "", 1),
        (0, (0,), None, "", 1),
        (3, (0,), FreezeLost, "of 3 frozen file systems 0 were still frozen at the end", 1),
        (3, (2,), FreezeLost, "of 3 frozen file systems 2 were still frozen", 1),
        (2, (WINDOWS,), FreezeLost, "0 were still frozen at the end .*limited up to 10 seconds", 1),
        (2, (HOOK,), FreezeUncertain, "held to its end is not known: hook script has failed", 1),
        (2, ("it stays so", 2), None, "", 2),
        (2, ("it stays so", 0), FreezeUncertain, "is not known: it stays so", 2),
        (2, ("it stays so",) * 5, StillFrozen, "may still be frozen: it stays so; thaw them at once", 5),
    ],
)
async def test_every_end_of_a_freeze_is_judged(
    there: Guest, fake: FakeGuest, frozen: int, answers: tuple[int | str, ...], error: type[Exception] | None,
    words: str, thaws: int,
) -> None:  # fmt: skip
    FrozenGuest(fake, frozen, *answers)
    with pytest.raises(error, match=words) if error else contextlib.nullcontext():
        async with there.freeze() as count:
            assert count == frozen

    assert fake.names().count("guest-fsfreeze-thaw") == thaws


async def test_an_exception_of_the_backup_carries_a_lost_freeze_as_a_note(there: Guest, fake: FakeGuest) -> None:
    FrozenGuest(fake, 3, 0)
    with pytest.raises(RuntimeError, match="backup failed") as failed:
        async with there.freeze():
            raise RuntimeError("backup failed")

    (note,) = failed.value.__notes__
    assert "of 3 frozen file systems 0 were still frozen at the end" in note


async def test_a_thaw_whose_answer_is_lost_leaves_it_open_whether_the_freeze_held(
    there: Guest, fake: FakeGuest
) -> None:
    FrozenGuest(fake, 1, 1, 0)

    def close_at_first_thaw(exchange: Exchange) -> Iterable[Action]:
        is_thaw = exchange.request["execute"] == "guest-fsfreeze-thaw"
        return [CLOSE] if is_thaw and fake.names().count("guest-fsfreeze-thaw") == 1 else exchange.honest

    fake.fault = close_at_first_thaw
    with pytest.raises(FreezeUncertain, match="whether the freeze held to its end is not known"):
        async with there.freeze():
            pass


async def test_where_nothing_was_frozen_nothing_is_thawed_and_the_reason_is_told(there: Guest, fake: FakeGuest) -> None:
    with pytest.raises(AgentRefused, match="guest-fsfreeze-freeze has not been found"):
        async with there.freeze():
            pass
    assert "guest-fsfreeze-thaw" not in fake.names()

    await fake.stop()
    with contextlib.suppress(CallFailed):
        await there.ping()
    fake.received.clear()
    with pytest.raises(AgentUnavailable):
        async with there.freeze():
            pass
    assert not fake.names()


@pytest.mark.guest
async def test_a_frozen_guest_is_said_to_be_frozen(machine: Machine) -> None:
    async with await connect(f"unix:{machine.agent_socket}") as host:
        guest = await host.guest("vm")
        async with guest.freeze():
            with pytest.raises(
                AgentRefused, match="are frozen, for a snapshot or backup; when that is done: `guestwire thaw"
            ):
                await guest.run(["true"])
            with pytest.raises(AgentRefused, match="guestwire thaw"):
                async with guest.freeze():
                    pass
            assert await guest.fsfreeze_status() == "frozen"  # the second one thawed nothing
            *_, commands = (await examine(host, "vm")).steps
        assert await guest.fsfreeze_status() == "thawed"

    assert (commands["step"], commands["result"], "guestwire thaw" in commands["next"]) == ("commands", "warning", True)


async def test_a_process_is_waited_for_while_host_and_agent_break_off(there: Guest, fake: FakeGuest) -> None:
    asked = iter(range(100))

    def status(_: object) -> dict[str, Any]:
        number = next(asked)
        return {"exited": True, "exitcode": 7, "out-data": "b2s="} if number > 4 else {"exited": False}

    def hang_up_twice(exchange: Exchange) -> Iterable[Action]:
        is_status = exchange.request["execute"] == "guest-exec-status"
        return [CLOSE] if is_status and fake.names().count("guest-exec-status") in (2, 3) else exchange.honest

    fake.replies |= {"guest-exec": {"pid": 77}, "guest-exec-status": status}
    fake.fault = hang_up_twice

    ended = await there.run(["make"])

    assert (ended.pid, ended.code, ended.stdout) == (77, 7, b"ok")
    assert fake.names().count("guest-exec") == 1


async def test_an_agent_that_is_away_for_all_of_the_callers_time_leaves_the_pid(there: Guest, fake: FakeGuest) -> None:
    fake.replies |= {"guest-exec": {"pid": 77}, "guest-exec-status": {"exited": False}}
    running = asyncio.create_task(there.run(["make"], timeout=4))
    await _asked(fake, "guest-exec-status")
    await fake.stop()

    with pytest.raises(
        OutcomeUnknown, match=r"how process 77 ends is not known: .*`guestwire status GUEST 77`"
    ) as lost:
        await running
    assert lost.value.pid == 77


async def test_an_agent_that_was_started_again_knows_no_process_of_before(there: Guest, fake: FakeGuest) -> None:
    def forgotten(_: object) -> dict[str, Any]:
        raise CommandError("GenericError", "PID ld does not exist")

    fake.replies |= {"guest-exec": {"pid": 77}, "guest-exec-status": forgotten}
    with pytest.raises(OutcomeUnknown, match="how process 77 ends is not known: its agent knows it no more") as lost:
        await there.run(["make"])
    assert (lost.value.pid, lost.value.exit_code) == (77, 3)


@pytest.mark.parametrize("error_class", ["CommandNotFound", "GenericError"])
async def test_an_agent_without_exec_says_so(there: Guest, fake: FakeGuest, error_class: str) -> None:
    def missing(_: object) -> None:
        raise CommandError(error_class, "The command guest-exec has not been found")

    fake.replies["guest-exec"] = missing
    with pytest.raises(AgentRefused, match="has not been found; the command is switched off in the guest"):
        await there.run(["true"])


class Marked(str):
    """A text as templates have it, which is more than a text."""

    __slots__ = ()


class Name(StrEnum):
    FILE = "/marked"


async def test_texts_that_are_more_than_texts_arrive_as_texts(there: Guest, fake: FakeGuest, tmp_path: Path) -> None:
    fake.replies["guest-set-user-password"] = {}

    await there.file_write(Name.FILE, Marked("hello"))
    await there.set_user_password(Marked("root"), Marked("long enough"))
    found = await there.raw(Marked("GET"), Marked("agent/file-read"), {Marked("file"): Name.FILE})

    assert bytes(fake.files["/marked"]) == b"hello"
    assert found["content"] == "hello"
    assert await there.read_file(Name.FILE) == b"hello"
    async with there.open(Name.FILE) as stream:
        assert await stream.read() == b"hello"
    assert await there.download(Name.FILE, Marked(tmp_path / "copy")) == 5
    assert (tmp_path / "copy").read_bytes() == b"hello"


async def test_a_freeze_that_outlasts_its_lease_is_lost_and_the_reason_is_told(there: Guest, fake: FakeGuest) -> None:
    FrozenGuest(fake, 2, 2, 0)
    with pytest.raises(FreezeLost, match=r"0 were still frozen at the end \(its lease of 1 second was over before\)"):
        async with there.freeze(lease=1):
            await asyncio.sleep(1.2)  # so long the backup takes


async def test_a_watchdog_is_ended_when_its_guest_is_thawed_and_not_before() -> None:
    """Over Proxmox VE the client has it started, and ended."""
    async with (
        Serving.of(site(vm(100, "fake")), limited=True) as server,
        FakeGuest(server.folder / "100.qga") as fake,
        await connect(
            f"https://127.0.0.1:{server.port}", token=server.token, ca=str(server.folder / "state" / "server.pem")
        ) as host,
    ):
        guest = FrozenGuest(fake, 2, 2)
        fake.replies["guest-get-osinfo"] = {"id": "debian"}
        fake.replies["guest-exec"] = {"pid": 7}
        output = base64.b64encode(b"12 345\n").decode()
        fake.replies["guest-exec-status"] = {"exited": True, "exitcode": 0, "out-data": output}

        def lose_the_answer_to_the_freeze(exchange: Exchange) -> Iterable[Action]:
            return [CLOSE] if exchange.request["execute"] == "guest-fsfreeze-freeze" else exchange.honest

        fake.fault = lose_the_answer_to_the_freeze
        there = await host.guest(100)
        with pytest.raises(CallFailed):
            async with there.freeze(lease=60):
                pass
        names = [
            name for name in fake.names() if name in ("guest-exec", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw")
        ]

        assert names[0] == "guest-exec"
        assert names[-2:] == ["guest-fsfreeze-thaw", "guest-exec"]
        assert not guest.is_frozen
