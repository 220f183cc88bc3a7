"""Copies are whole or not there: killed, broken off, on a full disk, of files that change; and trees, with what a hostile guest says of them."""

import asyncio
import base64
import contextlib
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

import pytest
from waiting import until
from ways import Way

from devtools.guests import Machine
from guestwire.client import connect
from guestwire.client.errors import ChecksumMismatch, FileRefused, LocalFile
from guestwire.client.folders import TreeCopy
from guestwire.client.transfer.reading import FileStat
from guestwire.testing import FakeGuest

pytestmark = pytest.mark.agent

MIB = 1024 * 1024
LONG_AGO = 1_500_000_000
NAMES = ["new\nline", "quote'\"`$(id)", "-dash", "ünï世😀", "x" * 255, "世" * 85, os.fsdecode(b"\xff\xfe no text")]

both_directions = pytest.mark.parametrize("to_guest", [True, False], ids=["to", "from"])


class Copy:
    """One copy, from a file to a place where an old file is."""

    def __init__(self, way: Way, folder: Path, size: int, *, to_guest: bool) -> None:
        self.way, self.to_guest = way, to_guest
        here, there = (folder / "source", "copied") if to_guest else (folder / "copied", "source")
        self.source = here if to_guest else way.agent.home / there
        self.target = way.agent.home / there if to_guest else here
        self.here, self.there = here, f"/root/{there}"
        self.folder = folder
        self.size = size
        self.source.write_bytes(random.randbytes(size))
        self.target.write_bytes(b"old")

    async def run(self, progress: Callable[[int, int | None], None] | None = None) -> int:
        if self.to_guest:
            return await self.way.guest.files.upload(self.here, self.there, progress=progress)
        return await self.way.guest.files.download(self.there, self.here, progress=progress)

    def start(self, stderr: IO[bytes] | int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        words = [str(self.here), f"web:{self.there}"] if self.to_guest else [f"web:{self.there}", str(self.here)]
        command = [sys.executable, "-m", "guestwire", *self.way.options, "cp", *words]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)

    async def killed(self, share: float) -> None:
        """Killed when that share of it is done. An agent's own socket serves one client at a time: ours is not needed."""
        await self.way.host.close()
        while not await self._killed_at(share * self.size):
            self.target.write_bytes(b"old")
        assert self.target.read_bytes() == b"old"

    async def _killed_at(self, size: float) -> bool:
        """False: it was at its end before anybody looked."""
        process = self.start()
        try:
            await until(lambda: self.done() >= size or process.poll() is not None, within=30)
        finally:
            process.kill()
            code = process.wait()
        await self._answers()
        assert code in (0, -signal.SIGKILL)
        return code != 0

    async def _answers(self) -> None:
        """An agent on its own socket ends when its client is killed in mid-answer; it is started again."""
        ping = [sys.executable, "-m", "guestwire", *self.way.options, "ping", "web"]
        async with asyncio.timeout(20):
            while (await asyncio.to_thread(subprocess.run, ping, capture_output=True, check=False)).returncode:
                pass

    async def finished(self) -> str:
        """What the command said that ran to its end."""
        process = self.start(subprocess.PIPE)
        _, said = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, said
        return said.decode()

    def done(self) -> int:
        return max((path.stat().st_size for path in self.target.parent.glob(".guestwire-*")), default=0)

    def check(self) -> None:
        assert self.target.read_bytes() == self.source.read_bytes()
        assert self.way.leftovers(self.folder) == []


def large_for(way: Way, *, to_guest: bool) -> int:
    """The size of a file that takes a second or more to be copied, and not minutes."""
    if way.server and way.server.strict:
        return 2 * MIB
    if not way.server and not way.host.has_one_guest:  # libvirt
        return 8 * MIB
    return 4 * MIB if to_guest and way.server and way.server.limited else 24 * MIB


@both_directions
async def test_a_copy_that_is_killed_again_and_again_goes_on_and_is_whole(
    way: Way, tmp_path: Path, to_guest: bool
) -> None:
    copy = Copy(way, tmp_path, large_for(way, to_guest=to_guest), to_guest=to_guest)

    await copy.killed(0.3)
    await copy.killed(random.uniform(0.4, 0.6))
    said = await copy.finished()

    assert said.startswith("goes on where an earlier copy stopped")
    copy.check()


@both_directions
async def test_what_a_killed_copy_left_is_not_believed(way: Way, tmp_path: Path, to_guest: bool) -> None:
    copy = Copy(way, tmp_path, large_for(way, to_guest=to_guest), to_guest=to_guest)

    await copy.killed(0.3)
    (left,) = copy.target.parent.glob(".guestwire-*")
    with left.open("r+b") as file:
        file.write(b"something else")
    said = await copy.finished()

    assert said == ""
    copy.check()


async def agent_is_killed(way: Way) -> None:
    await way.agent.kill()


async def server_is_killed(way: Way) -> None:
    if way.server:
        await way.server.restart()


@both_directions
@pytest.mark.parametrize("breaks", [agent_is_killed, server_is_killed])
async def test_a_connection_that_breaks_in_the_middle_is_made_again(
    way: Way, tmp_path: Path, to_guest: bool, breaks: Callable[[Way], Awaitable[None]]
) -> None:
    if breaks is server_is_killed and not way.server:
        pytest.skip("no server is between")
    copy = Copy(way, tmp_path, 8 * MIB, to_guest=to_guest)
    begun = asyncio.Event()

    copying = asyncio.create_task(copy.run(lambda done, _: begun.set() if done > MIB else None))
    await begun.wait()
    await breaks(way)

    assert await copying == copy.size
    copy.check()


async def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(way: Way, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(random.randbytes(3 * MIB))
    await way.guest.files.write("/small/x", b"old")

    with pytest.raises(FileRefused, match="No space left on device; make room in the guest"):
        await way.guest.files.upload(tmp_path / "large", "/small/x")

    assert await way.guest.files.read("/small/x") == b"old"
    assert [entry.path for entry in await way.guest.folders.listdir("/small")] == ["x"]


async def test_a_folder_that_can_not_be_written_says_what_to_do(way: Way, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(random.randbytes(MIB))

    with pytest.raises(FileRefused, match="Read-only file system; choose another folder"):
        await way.guest.files.upload(tmp_path / "file", "/usr/file")


def grows(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrinks(path: Path) -> None:
    os.truncate(path, MIB + 1)


@both_directions
@pytest.mark.parametrize("changes", [grows, shrinks])
async def test_a_file_that_changes_meanwhile_is_not_copied(
    way: Way, tmp_path: Path, to_guest: bool, changes: Callable[[Path], None]
) -> None:
    copy = Copy(way, tmp_path, 3 * MIB, to_guest=to_guest)

    with pytest.raises(LocalFile if to_guest else ChecksumMismatch, match="copy again"):
        await copy.run(lambda done, _: changes(copy.source) if done else None)

    assert copy.target.read_bytes() == b"old"
    assert way.leftovers(tmp_path) == []


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("size", [0, 100_000])
async def test_any_name_can_be_copied_both_ways(way: Way, tmp_path: Path, name: str, size: int) -> None:
    (tmp_path / name).write_bytes(random.randbytes(size))

    await way.guest.files.upload(tmp_path / name, f"/root/{name}")
    await way.guest.files.download(f"/root/{name}", tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == (way.agent.home / name).read_bytes() == (tmp_path / name).read_bytes()
    await way.guest.files.remove(f"/root/{name}")
    assert not (way.agent.home / name).exists()


async def test_a_name_that_is_too_long_is_an_error(way: Way, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * MIB)

    with pytest.raises(FileRefused, match="File name too long"):
        await way.guest.files.upload(tmp_path / "file", f"/root/{'x' * 256}")

    assert way.leftovers() == []


async def test_what_is_no_regular_file_is_not_replaced_by_one(way: Way, tmp_path: Path) -> None:
    pipe = way.agent.home / "no-file"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for size in (10, 100_000):
        (tmp_path / "file").write_bytes(b"x" * size)
        with pytest.raises(FileRefused, match="is no regular file"):
            await way.guest.files.upload(tmp_path / "file", "/root/no-file")
    for name in ("pipe", "link"):
        with pytest.raises(LocalFile, match="no regular file"):
            await way.guest.files.download("/etc/passwd", tmp_path / name)

    assert pipe.is_fifo()
    assert (tmp_path / "pipe").is_fifo()
    assert way.leftovers(tmp_path) == []


async def test_a_guest_that_lies_about_a_files_size_is_not_waited_for(way: Way, tmp_path: Path) -> None:
    (way.agent.home / "short").write_bytes(b"short")

    async with asyncio.timeout(30):
        await way.guest.files.download("/root/short", tmp_path / "back", stat=FileStat("f", 2**50, 0o644, 0))

    assert (tmp_path / "back").read_bytes() == b"short"


def open_below(folder: Path) -> list[str]:
    """Files that this process has open."""
    paths = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            paths.append(os.readlink(link))  # noqa: PTH115  # a path that is deleted has words behind it
    return [path for path in paths if path.startswith(str(folder))]


@both_directions
async def test_cancelled_at_any_moment_it_leaves_nothing_open_and_nothing_there(
    way: Way, tmp_path: Path, to_guest: bool
) -> None:
    copy = Copy(way, tmp_path, 100_000, to_guest=to_guest)
    await copy.run()
    for moment in (*range(40), *range(40, 400, 20)):
        copy.target.write_bytes(b"old")
        task = asyncio.create_task(copy.run())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert copy.target.read_bytes() == b"old"
        assert way.leftovers(tmp_path) == []
        assert open_below(tmp_path) == []


async def test_a_link_that_is_named_is_followed(way: Way, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "link").symlink_to("real")
    (way.agent.home / "link-there").unlink(missing_ok=True)
    (way.agent.home / "link-there").symlink_to("followed")

    await way.guest.files.upload(tmp_path / "link", "/root/followed")
    await way.guest.files.download("/root/link-there", tmp_path / "back")

    assert not (way.agent.home / "followed").is_symlink()
    assert (tmp_path / "back").read_bytes() == b"real"


async def test_permissions_and_time_come_back_too(way: Way, tmp_path: Path) -> None:
    (way.agent.home / "script").write_bytes(b"x")
    (way.agent.home / "script").chmod(0o750)
    os.utime(way.agent.home / "script", (LONG_AGO, LONG_AGO))

    await way.guest.files.download("/root/script", tmp_path / "script")

    facts = (tmp_path / "script").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_mtime) == (0o750, LONG_AGO)


async def test_a_sparse_file_stays_sparse(way: Way, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(8 * MIB)
        file.seek(3 * MIB + 5)
        file.write(b"data")

    await way.guest.files.upload(tmp_path / "sparse", "/root/sparse")
    await way.guest.files.download("/root/sparse", tmp_path / "back")

    for copy in (way.agent.home / "sparse", tmp_path / "back"):
        assert copy.read_bytes() == (tmp_path / "sparse").read_bytes()
        assert copy.stat().st_blocks * 512 < 4 * MIB


@pytest.mark.parametrize("path", ["/proc/sys/kernel/ostype", "/root"])
async def test_what_is_no_plain_file_of_known_size(way: Way, tmp_path: Path, path: str) -> None:
    if path == "/root":
        with pytest.raises(FileRefused, match="guestwire cp -r"):
            await way.guest.files.download(path, tmp_path / "copy")
    else:
        assert await way.guest.files.download(path, tmp_path / "copy") == len(b"Linux\n")


async def test_special_files_are_neither_opened_nor_waited_for(way: Way, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(LocalFile, match="no regular file"):
        await way.guest.files.upload(tmp_path / "pipe", "/root/pipe")
    with pytest.raises(FileRefused, match="no regular file"):
        await way.guest.files.download("/dev/zero", tmp_path / "zero")


# Trees


def shape(folder: Path) -> list[tuple[str, int, int, str]]:
    """Everything below a folder: permissions, times, and content or where a link leads."""
    found = []
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        inside = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        kept = (0, 0) if path.is_symlink() else (stat.S_IMODE(facts.st_mode), int(facts.st_mtime))
        found.append((str(path.relative_to(folder)), *kept, inside))
    return found


async def test_a_tree_keeps_links_permissions_and_times_both_ways(way: Way, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "new\nline").write_text("x")
    (source / "folder" / "new\nline").chmod(0o640)
    for link, leads in (
        ("link", "folder/new\nline"),
        ("dangling", "nowhere\n"),
        ("absolute", "/etc"),
        ("to folder", "folder"),
    ):
        (source / link).symlink_to(leads)
    (source / "folder").chmod(0o750)
    os.utime(source / "folder", (LONG_AGO, LONG_AGO))
    os.mkfifo(source / "pipe")

    there = await way.guest.folders.upload(source, "/root/linked")
    back = await way.guest.folders.download("/root/linked", tmp_path / "back")
    again = await way.guest.folders.download("/root/linked", tmp_path / "back")

    (source / "pipe").unlink()
    assert there == TreeCopy(1, 1, [(str(source / "pipe"), "it is no file, folder or link")])
    assert back == again == TreeCopy(1, 1)
    assert shape(way.agent.home / "linked") == shape(tmp_path / "back") == shape(source)


async def test_a_file_that_can_not_be_copied_ends_no_copy_of_a_folder(way: Way, tmp_path: Path) -> None:
    there, here = way.agent.home / "mixed", tmp_path / "mixed"
    for folder in (there, here):
        folder.mkdir()
        for name in ("a", "grows", "z"):
            (folder / name).write_text("x" * 100)
    (there / "grows").write_bytes(b"x" * 3_000_000)
    growing = asyncio.create_task(asyncio.to_thread(_grow, there / "grows"))
    try:
        down = await way.guest.folders.download("/root/mixed", tmp_path / "down")
    finally:
        growing.cancel()
        (there / "stop").touch()
    (here / "y").mkdir()
    (here / "y" / "under").write_text("x")
    (there.parent / "up").mkdir(exist_ok=True)
    (there.parent / "up" / "a").mkdir(exist_ok=True)  # a folder stands in the place of a file
    up = await way.guest.folders.upload(here, "/root/up")

    assert (down.files, down.failed, [path for path, _ in down.left_out]) == (2, 1, ["grows"])
    assert {path.name for path in (tmp_path / "down").iterdir()} == {"a", "z"}
    assert (up.files, up.failed) == (3, 1)
    ((left_out, why),) = up.left_out
    assert (left_out, "is a directory" in why) == (str(here / "a"), True)
    assert way.leftovers(there, tmp_path / "down") == []


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        while not path.with_name("stop").exists():
            file.write(b"y" * 1000)
            file.flush()
            time.sleep(0.001)


async def test_the_list_of_a_folder_is_not_in_it(way: Way, tmp_path: Path) -> None:
    await way.guest.run(
        ["sh", "-c", "mkdir -p /tmp/sub && echo 1 >/tmp/one && echo 2 >/tmp/sub/guestwire-two"], check=True
    )
    copied = await way.guest.folders.download("/tmp", tmp_path / "tmp")  # the guest's

    assert (copied.failed, copied.left_out) == (0, [])
    assert (tmp_path / "tmp/one").read_text() == "1\n"
    assert (tmp_path / "tmp/sub/guestwire-two").read_text() == "2\n"
    names = [entry.path for entry in await way.guest.folders.listdir("/tmp")]  # as above
    assert not [name for name in names if re.fullmatch("guestwire-[0-9a-f]{32}", name)]


async def test_special_files_of_a_guest_are_left_out_and_named(way: Way, tmp_path: Path) -> None:
    (way.agent.home / "special").mkdir(exist_ok=True)
    (way.agent.home / "special" / "pipe").unlink(missing_ok=True)
    os.mkfifo(way.agent.home / "special" / "pipe")

    copied = await way.guest.folders.download("/root/special", tmp_path / "back")

    assert copied == TreeCopy(left_out=[("pipe", "it is no file, folder or link")])


async def test_nothing_is_written_through_links_that_are_here_already(way: Way, tmp_path: Path) -> None:
    (way.agent.home / "evil" / "a").mkdir(parents=True, exist_ok=True)
    (way.agent.home / "evil" / "a" / "b").write_text("evil")
    (tmp_path / "outside").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").symlink_to(tmp_path / "outside")

    copied = await way.guest.folders.download("/root/evil", tmp_path / "target")

    assert [path for path, _ in copied.left_out] == ["a", "a/b"]
    assert list((tmp_path / "outside").iterdir()) == []


async def test_what_links_in_a_circle_keep_out_is_a_failure(way: Way, tmp_path: Path) -> None:
    (way.agent.home / "circle" / "a").mkdir(parents=True, exist_ok=True)
    (way.agent.home / "circle" / "a" / "b").write_text("b")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").symlink_to("a")

    copied = await way.guest.folders.download("/root/circle", tmp_path / "target")

    assert ([path for path, _ in copied.left_out], copied.failed) == (["a", "a/b"], 2)


async def test_names_that_no_file_here_can_have_are_one_error(way: Way, tmp_path: Path) -> None:
    (way.agent.home / "any").write_text("any")
    (tmp_path / "any").write_text("any")
    for name in ("half \ud800", "a\0b"):
        with pytest.raises(LocalFile, match="no file of this machine can have this name"):
            await way.guest.files.download("/root/any", tmp_path / name)
        with pytest.raises(LocalFile, match="no file of this machine can have this name"):
            await way.guest.files.upload(tmp_path / name, "/root/any")


async def test_a_guest_that_lies_about_its_tree_writes_nothing_elsewhere(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    entries = [
        ("l", "./a", str(outside)), ("d", "./a", ""), ("f", "./a/b", ""), ("f", "./../outside/c", ""),
        ("f", str(outside / "d"), ""), ("l", "./../outside/e", "x"), ("d", "./../outside/f", ""), ("l", "./z", str(outside)), ("f", "./z/g", ""),
    ]  # fmt: skip
    listing = "".join(f"{kind} 1 777 0 {path}\00:0:root:root:{link}\0" for kind, path, link in entries).encode()
    files = {path.replace("./", "/t/", 1): bytearray(b"x") for _, path, _ in entries}
    async with FakeGuest(folder / "fake.qga", files=files) as fake, await connect(f"unix:{fake.path}") as host:
        fake.replies["guest-exec"] = {"pid": 1}
        out = base64.b64encode(listing).decode()
        fake.replies["guest-exec-status"] = {"exited": True, "exitcode": 0, "out-data": out}

        await (await host.guest("fake")).folders.download("/t", tmp_path / "target")

    assert list(outside.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "target"]


# A real VM


@pytest.mark.guest
async def test_a_large_file_goes_through_a_real_guest_both_ways(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(random.randbytes(16 * MIB))

    async with await connect(f"unix:{machine.agent_socket}") as host:
        guest = await host.guest("vm")
        await guest.files.upload(tmp_path / "large", "/root/large")
        await guest.files.download("/root/large", tmp_path / "back")
        await guest.files.remove("/root/large")

    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()


@pytest.mark.guest
async def test_a_real_guest_answers_each_of_many_long_commands_at_once(machine: Machine) -> None:
    inputs = [bytes([number]) * 1500 for number in range(40)]

    async with await connect(f"unix:{machine.agent_socket}") as host:
        guest = await host.guest("vm")
        ended = await asyncio.gather(*(guest.run(["cat"], input=data) for data in inputs))

    assert [one.stdout for one in ended] == inputs


@pytest.mark.guest
async def test_a_real_disk_that_is_full_keeps_the_old_file(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(random.randbytes(16 * MIB))

    async with await connect(f"unix:{machine.agent_socket}") as host:
        guest = await host.guest("vm")
        await guest.files.write("/mnt/data/x", b"old")
        await machine.shell("dd if=/dev/zero of=/mnt/data/fill bs=1M 2>/dev/null; true")
        try:
            with pytest.raises(FileRefused, match="No space left on device; make room in the guest"):
                await guest.files.upload(tmp_path / "large", "/mnt/data/x")
            assert await guest.files.read("/mnt/data/x") == b"old"
            assert not [one for one in await guest.folders.listdir("/mnt/data") if "guestwire" in one.path]
        finally:
            await machine.shell("rm -f /mnt/data/fill /mnt/data/x")
