"""The client, the same tests over every way to a guest: an agent's own socket, guestwire, and guestwire with what Proxmox VE has and no more."""

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serving import Serving
from waiting import until
from ways import Way, over_https

from guestwire.client import CallFailed, connect
from guestwire.client.errors import (
    AgentRefused,
    AgentUnavailable,
    ChecksumMismatch,
    FileRefused,
    LocalFile,
    NoSuchGuest,
    PrivilegeMissing,
    StillFrozen,
    WrongParameters,
)
from guestwire.client.folders import TreeCopy
from guestwire.client.processes import ProcessFailed, StillRunning
from guestwire.testing import FakeGuest

MIB = 1024 * 1024
CAN_NOT_BEGIN = 126
NAMES = ["plain", "with space", "quote'\"", "new\nline", "-dash", "ünï世😀", "x" * 200, "back\\slash", "$(id)", "*"]

pytestmark = pytest.mark.agent


async def test_a_process_is_run_with_all_that_belongs_to_it(way: Way) -> None:
    script = 'pwd; echo "$GREETING"; cat; echo oops >&2; exit 3'
    ended = await way.guest.run(
        ["/bin/sh", "-c", script], input=b"\x00\xff in\n", env={"GREETING": "hé 'llo' $x 世"}, cwd="/usr"
    )

    assert ended.stdout == b"/usr\n" + "hé 'llo' $x 世\n".encode() + b"\x00\xff in\n"
    assert (ended.stderr, ended.code, ended.signal, ended.ok) == (b"oops\n", 3, None, False)


@pytest.mark.parametrize(
    "argument", ["", " ", "a'b\"c", "$HOME `id` \\n", "new\nline\n", "tab\t", "ünï世😀", "-n", "*", "\x7f\x01"]
)
async def test_every_argument_arrives_as_it_is(way: Way, argument: str) -> None:
    ended = await way.guest.run(["printf", "%s|", argument, "end"])

    assert ended.output == f"{argument}|end|"


async def test_arguments_arrive_beside_directory_and_environment_too(way: Way) -> None:
    ended = await way.guest.run(["printf", "%s|", "世 x", "$y"], cwd="/tmp", env={"A": "1"})

    assert ended.output == "世 x|$y|"


async def test_arguments_that_are_no_text_arrive_byte_for_byte(way: Way) -> None:
    ended = await way.guest.run(["printenv", "A"], env={"A": os.fsdecode(b"\xff\xc3")}, cwd="/")
    assert ended.stdout == b"\xff\xc3\n"
    assert (await way.guest.run(["printf", os.fsdecode(b"a\xff")])).stdout == b"a\xff"


async def test_no_name_is_taken_for_an_option_a_variable_or_another_folder(way: Way) -> None:
    (way.agent.home / "a=b").write_text("#!/bin/sh\necho $0 $1 $X\n")
    (way.agent.home / "a=b").chmod(0o755)

    assert (await way.guest.run(["/root/a=b", "c=d"], env={"X": "1"})).output == "/root/a=b c=d 1\n"
    assert "-i=1\n" in (await way.guest.run(["env"], env={"-i": "1"})).output
    assert (await way.guest.run(["pwd"], cwd="-")).code == CAN_NOT_BEGIN
    with pytest.raises(FileRefused):
        await way.guest.folders.listdir("-")


@pytest.mark.parametrize(
    ("argv", "more"),
    [(["printf", "a\0b"], {}), (["true"], {"env": {"A": "\0"}}), (["true"], {"cwd": "/\0"}), ([], {"env": {"A": "1"}}),
     (["true"], {"env": {"": "1"}}), (["true"], {"env": {"A=B": "1"}})],
)  # fmt: skip
async def test_what_can_not_arrive_is_not_sent(way: Way, argv: list[str], more: dict[str, Any]) -> None:
    with pytest.raises(WrongParameters):
        await way.guest.run(argv, **more)


async def test_no_path_and_no_password_ends_at_a_nul(way: Way) -> None:
    for work in (
        way.guest.read_file("/etc/passwd\0x"),
        way.guest.write_file("/root/x\0y", b""),
        way.guest.set_user_password("labuser", "with\0more"),
        way.guest.set_user_password("labuser\0", "with-more"),
    ):
        with pytest.raises(WrongParameters, match="there is a NUL in"):
            await work


class Text(str):
    """As many libraries have it: a text that is more than one."""

    __slots__ = ()


async def test_texts_of_other_types_and_paths_are_taken(way: Way) -> None:
    ended = await way.guest.run(["printf", Text("%s|"), Path("/a b"), Text("x")], env={Text("A"): Text("1")})  # type: ignore[list-item]

    assert ended.output == "/a b|x|"
    with pytest.raises(TypeError, match="bytes is no text"):
        await way.guest.run(["printf", b"x"])  # type: ignore[list-item]


async def test_half_a_character_is_refused_and_not_sent(way: Way) -> None:
    for work in (
        way.guest.run(["printf", "\ud800"]),
        way.guest.run(["cat"], input="\ud800"),
        way.guest.run(["true"], env={"A": "\ud800"}),
        way.guest.read_file("/root/\ud800"),
        way.guest.set_user_password("labuser", "with-\ud800"),
    ):
        with pytest.raises(WrongParameters, match=r"'\\ud800' is half a character"):
            await work


async def test_a_line_is_no_command(way: Way) -> None:
    with pytest.raises(TypeError, match="no shell is there to take a line apart"):
        await way.guest.run("ls -l")


async def test_a_folder_here_that_is_none_is_an_error(way: Way, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (way.agent.home / "full").mkdir(exist_ok=True)

    for name, words in (("none", "No such file"), ("file", "Not a directory")):
        with pytest.raises(LocalFile, match=words):
            await way.guest.folders.upload(tmp_path / name, "/root/of-nothing")
    with pytest.raises(LocalFile, match="File exists"):
        await way.guest.folders.download("/root/full", tmp_path / "file")

    assert not (way.agent.home / "of-nothing").exists()


async def test_a_process_that_is_checked_says_how_it_failed(way: Way) -> None:
    with pytest.raises(ProcessFailed, match="ended with exit code 2: no good") as failed:
        await way.guest.run(["sh", "-c", "echo no good >&2; exit 2"], check=True)
    assert failed.value.process.code == 2


async def test_a_process_ended_by_a_signal_says_which(way: Way) -> None:
    assert (await way.guest.run(["sh", "-c", "kill -9 $$"])).signal == 9


async def test_a_child_that_holds_the_outputs_is_not_taken_for_the_process(way: Way) -> None:
    if way.host.name.startswith("qemu:"):  # outputs are files there, and a child holds none that anyone waits for
        assert (await way.guest.run(["sh", "-c", "sleep 2 & echo started"], timeout=1.5)).output == "started\n"
        return
    with pytest.raises(StillRunning, match=r"process \d+ has ended, but what it started holds its outputs") as still:
        await way.guest.run(["sh", "-c", "sleep 2 & echo started"], timeout=0.5)
    with pytest.raises(CallFailed, match="has ended; what it started holds its outputs"):
        await way.guest.processes.interrupt(still.value.pid)

    assert (await way.guest.processes.wait(still.value.pid)).output == "started\n"


async def test_an_argument_that_is_too_long_is_said_to_be(way: Way) -> None:
    with pytest.raises(AgentRefused, match=r"Argument list too long.*pass it as standard input") as refused:
        await way.guest.run(["true", "x" * 131_072])
    assert "check the program's name" not in str(refused.value)


async def test_a_program_that_is_not_there_is_the_guests_own_error(way: Way) -> None:
    with pytest.raises(AgentRefused, match="No such file or directory"):
        await way.guest.run(["/no/such/program"])


async def test_a_directory_that_is_not_there_is_an_error(way: Way) -> None:
    assert (await way.guest.run(["pwd"], cwd="/no/such")).code == 126


async def test_a_process_that_takes_too_long_is_left_running_and_named(way: Way) -> None:
    with pytest.raises(StillRunning, match="still runs after 0\\.2 seconds") as still:
        await way.guest.run(["sleep", "2"], timeout=0.2)
    ended = await way.guest.processes.wait(still.value.pid)

    assert ended.code == 0


async def test_a_process_and_those_that_it_started_can_be_interrupted(way: Way) -> None:
    pid = await way.guest.processes.start(["sh", "-c", "sleep 60; echo never"])
    await way.guest.processes.interrupt(pid)
    ended = await way.guest.processes.wait(pid, timeout=20)

    assert (ended.signal, ended.stdout) == (2, b"")


async def test_a_copy_that_is_given_up_leaves_no_process_in_the_guest(way: Way, tmp_path: Path) -> None:
    async def tools() -> list[str]:
        while True:
            with contextlib.suppress(AgentUnavailable):  # Proxmox VE says so of one that is busy, too
                names = (await way.guest.run(["sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null; true"])).output.split()
                return [name for name in names if name == "sha256sum"]

    await way.guest.run(["truncate", "-s", "8G", "/root/zeros"], check=True)
    copy = asyncio.create_task(way.guest.files.download("/root/zeros", tmp_path / "zeros"))
    async with asyncio.timeout(30):
        while not await tools():
            assert not copy.done()
    copy.cancel()
    await asyncio.gather(copy, return_exceptions=True)

    await way.guest.files.remove("/root/zeros")
    assert await tools() == []


async def test_long_input_leaves_no_file_however_often_it_is_cancelled(way: Way) -> None:
    async def files() -> list[str]:
        names = (await way.guest.run(["ls", "-A", "/tmp"])).output.split()
        return [name for name in names if "guestwire" in name]

    assert await files() == []
    for moment in (0.0, 0.01, 0.03, 0.1):
        task = asyncio.create_task(way.guest.run(["cat"], input=b"x" * 3 * MIB, large=False))
        async with asyncio.timeout(30):
            while not await files():
                assert not task.done()
        await asyncio.sleep(moment)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.001)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await files() == []


@pytest.mark.parametrize("large", [None, False])
async def test_long_input_goes_through(way: Way, *, large: bool | None) -> None:
    data = os.urandom(300_000)

    ended = await way.guest.run(["sha256sum"], input=data, large=large)

    assert ended.output.split()[0] == hashlib.sha256(data).hexdigest()
    assert way.leftovers() == []


@pytest.mark.parametrize("size", [0, 1, 45_000, 45_001, 64 * 1024, 2 * MIB + 7])
async def test_files_go_both_ways_byte_for_byte(way: Way, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    seen: list[int] = []

    assert (
        await way.guest.files.upload(tmp_path / "source", "/root/copied", progress=lambda done, _: seen.append(done))
        == size
    )
    assert (way.agent.home / "copied").read_bytes() == data
    assert await way.guest.files.download("/root/copied", tmp_path / "back") == size

    assert (tmp_path / "back").read_bytes() == data
    assert seen == sorted(seen)
    assert seen[-1] == size
    assert way.leftovers(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_can_be_written_read_and_listed(way: Way, name: str) -> None:
    await way.guest.files.write(f"/root/{name}", name.encode())

    assert await way.guest.files.read(f"/root/{name}") == name.encode()
    assert name in [entry.path for entry in await way.guest.folders.listdir("/root")]
    await way.guest.files.remove(f"/root/{name}")
    assert name not in [entry.path for entry in await way.guest.folders.listdir("/root")]


async def test_permissions_and_time_are_kept(way: Way, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "script").chmod(0o750)
    os.utime(tmp_path / "script", (1_500_000_000, 1_500_000_000))

    await way.guest.files.upload(tmp_path / "script", "/root/script")

    facts = (way.agent.home / "script").stat()
    assert (facts.st_mode & 0o777, facts.st_mtime) == (0o750, 1_500_000_000)


async def test_a_copy_over_a_file_keeps_what_that_file_has_both_ways(way: Way, tmp_path: Path) -> None:
    here, there = tmp_path / "here", way.agent.home / "there"
    for file, mode in ((here, 0o604), (there, 0o640)):
        file.write_bytes(b"old")
        file.chmod(mode)
        os.setxattr(file, "user.kept", b"yes")

    for size in (10, 200_000):
        (tmp_path / "new").write_bytes(bytes(size))
        await way.guest.files.upload(tmp_path / "new", "/root/there")
        await way.guest.files.download("/root/there", here)
        for file, mode in ((here, 0o604), (there, 0o640)):
            assert (file.stat().st_size, file.stat().st_mode & 0o777) == (size, mode)
            assert os.getxattr(file, "user.kept") == b"yes"


async def test_a_file_that_is_written_again_keeps_its_permissions(way: Way) -> None:
    await way.guest.files.write("/root/kept", b"one", mode=0o640)
    await way.guest.files.write("/root/kept", b"two")

    assert (way.agent.home / "kept").stat().st_mode & 0o777 == 0o640
    assert (way.agent.home / "kept").read_bytes() == b"two"


@pytest.mark.parametrize("path", ["/no/such/folder/x", "/usr/x", "/root"])
async def test_where_nothing_can_be_written_the_error_says_so_and_nothing_is_left(way: Way, path: str) -> None:
    with pytest.raises(CallFailed):
        await way.guest.files.write(path, b"x" * 100_000)

    assert way.leftovers() == []


async def test_a_broken_source_leaves_the_old_file_and_nothing_else(way: Way) -> None:
    await way.guest.files.write("/root/old", b"old")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * MIB
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await way.guest.files.write("/root/old", pieces())

    assert (way.agent.home / "old").read_bytes() == b"old"
    assert way.leftovers() == []


async def test_cancelled_in_the_middle_it_leaves_the_old_file_and_nothing_else(way: Way) -> None:
    await way.guest.files.write("/root/old", b"old")
    before = {path.name for path in way.agent.home.iterdir()}

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MIB

    writing = asyncio.create_task(way.guest.files.write("/root/old", pieces()))
    await until(lambda: any(one.name not in before for one in way.agent.home.iterdir()))
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing

    assert (way.agent.home / "old").read_bytes() == b"old"
    assert way.leftovers() == []


async def test_trees_go_both_ways(way: Way, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a/b/c", "empty"):
        (source / name).mkdir(parents=True)
    for name in ("top", "a/one two", "a/b/c/dëep"):
        (source / name).write_text(name)

    assert await way.guest.folders.upload(source, "/root/tree") == TreeCopy(3, 23)
    assert await way.guest.folders.download("/root/tree", tmp_path / "back") == TreeCopy(3, 23)

    shape = sorted(str(path.relative_to(source)) for path in source.rglob("*"))
    assert sorted(str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*")) == shape
    assert (tmp_path / "back/a/b/c/dëep").read_text() == "a/b/c/dëep"


async def test_a_file_that_cannot_be_read_here_is_an_error_of_this_side(way: Way, tmp_path: Path) -> None:
    with pytest.raises(LocalFile, match="No such file or directory"):
        await way.guest.files.upload(tmp_path / "none", "/root/none")


async def test_typed_results_have_the_fields_of_the_api(way: Way) -> None:
    assert (await way.guest.get_host_name()).host_name in ("web", "guest100")
    assert (await way.guest.get_osinfo()).machine
    assert (await way.guest.info()).supported_commands
    assert await way.guest.get_time() > 1_700_000_000 * 10**9
    assert [one.name for one in await way.guest.network_get_interfaces()] == ["lo"]


async def test_a_disabled_command_says_what_to_do(way: Way) -> None:
    with pytest.raises(AgentRefused, match="--allow-rpcs"):
        await way.guest.fsfreeze_freeze()


# What differs between hosts


async def test_a_guest_is_found_by_name_and_by_id_and_another_is_not(server: Serving) -> None:
    async with await over_https(server) as host:
        assert (await host.guest("web")).vmid == (await host.guest(100)).vmid == 100
        with pytest.raises(NoSuchGuest, match="guestwire ls"):
            await host.guest("nobody")


async def test_a_missing_privilege_is_named(server: Serving) -> None:
    async with await over_https(server) as admin:
        await admin.raw("POST", "/access/users", userid="weak@pve")
        await admin.raw("PUT", "/access/acl", path="/vms/100", roles="PVEAuditor", users="weak@pve")
        token = await admin.raw("POST", "/access/users/weak@pve/token/t1", privsep=0)
    ca = str(server.folder / "state" / "server.pem")
    weak = await connect(f"https://127.0.0.1:{server.port}", token=f"weak@pve!t1={token['value']}", ca=ca)
    async with weak:
        guest = await weak.guest("web")
        with pytest.raises(
            PrivilegeMissing, match=r"give the user or token a role with VM\.GuestAgent\.Unrestricted on /vms/100"
        ):
            await guest.exec(["id"])


async def test_an_agent_that_is_not_there_is_waited_for(server: Serving) -> None:
    async with await over_https(server) as host:
        guest = await host.guest("fake")
        with pytest.raises(AgentUnavailable, match="install and start qemu-guest-agent"):
            await guest.ping()
        waiting = asyncio.create_task(guest.wait_ready(20))
        async with FakeGuest(server.folder / "101.qga"):
            await waiting


async def test_a_freeze_is_thawed_whatever_happens(server: Serving) -> None:
    frozen: list[str] = []

    def freeze(_: object) -> int:
        frozen.append("f")
        return 1

    def thaw(_: object) -> int:
        frozen.clear()
        return 1

    replies = {
        "guest-fsfreeze-freeze": freeze,
        "guest-fsfreeze-thaw": thaw,
        "guest-fsfreeze-status": lambda _: "frozen" if frozen else "thawed",
    }
    async with await over_https(server) as host, FakeGuest(server.folder / "101.qga", replies=dict(replies)) as fake:
        guest = await host.guest("fake")
        with pytest.raises(RuntimeError, match="backup failed"):  # noqa: PT012  # the context manager is what is tested
            async with guest.freeze() as count:
                assert (count, frozen) == (1, ["f"])
                raise RuntimeError("backup failed")
        assert frozen == []
        fake.replies["guest-fsfreeze-thaw"] = lambda _: 0
        with pytest.raises(StillFrozen, match="thaw them at once"):
            async with guest.freeze():
                pass


async def test_what_arrived_wrong_is_not_taken(server: Serving, tmp_path: Path) -> None:
    files = {"/data": bytearray(b"honest")}
    async with await over_https(server) as host, FakeGuest(server.folder / "101.qga", files=files) as fake:
        guest = await host.guest("fake")
        fake.replies["guest-exec"] = lambda arguments: {"pid": 1 if "stat" in arguments["arg"][1] else 2}
        said = {1: "f 6 644 0\n", 2: f"{'0' * 64}  /data\n"}
        fake.replies["guest-exec-status"] = lambda arguments: {
            "exited": True,
            "exitcode": 0,
            "out-data": base64.b64encode(said[arguments["pid"]].encode()).decode(),
        }
        with pytest.raises(ChecksumMismatch):
            await guest.files.download("/data", tmp_path / "copy")

    assert list(tmp_path.iterdir()) == []
