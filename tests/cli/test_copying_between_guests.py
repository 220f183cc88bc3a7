"""`guestwire cp GUEST:PATH GUEST:PATH`, between two real agents behind one server."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from calling import site, vm
from reaching import Done, environment, guestwire
from serving import Serving
from ways import options_for, over_https

from guestwire.client.errors import ChecksumMismatch
from guestwire.client.transfer.between_guests import copy_file
from guestwire.testing import FakeGuest, SandboxedAgent

pytestmark = pytest.mark.agent


@dataclass
class Pair:
    """Two guests behind a server, and a third that lies."""

    server: Serving
    web: SandboxedAgent
    db: SandboxedAgent
    fake: FakeGuest

    async def __call__(self, *arguments: str) -> Done:
        env = environment(self.server.folder / "config", TMPDIR=str(self.server.folder / "tmp"))
        return await guestwire(*options_for(self.server), *arguments, env=env)

    def leftovers(self) -> list[Path]:
        homes = (self.web.home, self.db.home, self.server.folder / "tmp")
        return [path for home in homes for path in home.rglob("*guestwire*")]


@pytest.fixture(scope="module", params=[False, True], ids=["guestwire", "limited"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    vms = (vm(100, "web"), vm(101, "db"), vm(102, "fake"))
    async with (
        Serving.of(site(*vms), limited=request.param) as server,
        SandboxedAgent(server.folder / "100.qga", name="web") as web,
        SandboxedAgent(server.folder / "101.qga", name="db") as db,
        FakeGuest(server.folder / "102.qga") as fake,
    ):
        (server.folder / "tmp").mkdir()
        yield Pair(server, web, db, fake)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> None:
    """The agents' keepers work on until the last test."""


@pytest.mark.parametrize("size", [0, 5, 65_536, 65_537, 3_000_000])
async def test_a_file_goes_from_one_guest_to_another_with_its_permissions_and_time(pair: Pair, size: int) -> None:
    data = os.urandom(size)
    (pair.web.home / "a").write_bytes(data)
    (pair.web.home / "a").chmod(0o640)
    os.utime(pair.web.home / "a", (1_500_000_000, 1_500_000_000))
    (pair.db.home / "b").unlink(missing_ok=True)

    done = await pair("cp", "web:/root/a", "db:/root/b", "--json")

    facts = (pair.db.home / "b").stat()
    assert done.json == {"files": 1, "bytes": size, "left_out": []}
    assert (pair.db.home / "b").read_bytes() == data
    assert (facts.st_mode & 0o7777, int(facts.st_mtime)) == (0o640, 1_500_000_000)
    assert pair.leftovers() == []


async def test_a_file_that_is_replaced_keeps_its_permissions_and_a_folder_gives_the_name(pair: Pair) -> None:
    (pair.web.home / "name").write_bytes(b"new")
    (pair.db.home / "name").write_bytes(b"old")
    (pair.db.home / "name").chmod(0o604)

    assert (await pair("cp", "web:/root/name", "db:/root/")).code == 0

    assert (pair.db.home / "name").read_bytes() == b"new"
    assert (pair.db.home / "name").stat().st_mode & 0o7777 == 0o604


async def test_a_folder_goes_with_what_is_in_it(pair: Pair) -> None:
    tree = pair.web.home / "tree"
    (tree / "sub dir").mkdir(parents=True)
    (tree / "sub dir" / "é\n").write_bytes(b"deep")
    (tree / "link").symlink_to("sub dir")
    (tree / "sub dir").chmod(0o750)
    os.mkfifo(tree / "pipe")

    done = await pair("cp", "-r", "web:/root/tree", "db:/root/copy", "--json")

    copy = pair.db.home / "copy"
    assert done.json == {"files": 1, "bytes": 4, "left_out": ["pipe"]}
    assert (copy / "sub dir" / "é\n").read_bytes() == b"deep"
    assert str((copy / "link").readlink()) == "sub dir"
    assert (copy / "sub dir").stat().st_mode & 0o7777 == 0o750
    assert pair.leftovers() == []


async def test_a_guest_that_lies_about_its_tree_writes_nothing_elsewhere_in_the_other(pair: Pair) -> None:
    (pair.db.home / "outside").mkdir()
    entries = [
        ("d", "./a", ""), ("l", "./l", "/root/outside"), ("f", "./l/x", ""), ("f", "./../outside/c", ""),
        ("f", "/root/outside/d", ""), ("l", "./a", "/root/outside"), ("f", "./a//e", ""), ("d", "./../outside/f", ""),
    ]  # fmt: skip
    listing = "".join(f"{kind} 1 777 0 {path}\00:0:root:root:{link}\0" for kind, path, link in entries)
    async with await over_https(pair.server) as host:
        fake, db = await host.guest("fake"), await host.guest("db")
        await fake.wait_ready(30)
        pair.fake.replies["guest-exec"] = {"pid": 1}
        out = base64.b64encode(listing.encode()).decode()
        pair.fake.replies["guest-exec-status"] = {"exited": True, "exitcode": 0, "out-data": out}
        if pair.server.limited:
            pytest.skip("there the list comes by way of a file, which the fake guest does not have")
        copied = await fake.folders.copy_to("/t", db.folders, "/root/lies")

    assert list((pair.db.home / "outside").iterdir()) == []
    assert sorted(path.name for path in (pair.db.home / "lies").iterdir()) == ["a", "l"]
    assert copied.failed == 6


async def test_a_file_that_changes_meanwhile_is_not_put_in_its_place(pair: Pair) -> None:
    (pair.web.home / "changing").write_bytes(bytes(4_000_000))
    (pair.db.home / "kept").write_bytes(b"old")

    def change(done: int, _total: int | None) -> None:
        if done:
            (pair.web.home / "changing").write_bytes(os.urandom(4_000_000))

    async with await over_https(pair.server) as host:
        web, db = await host.guest("web"), await host.guest("db")
        with pytest.raises(ChecksumMismatch, match="changed meanwhile"):
            await copy_file(web.files, "/root/changing", db.files, "/root/kept", progress=change)

    assert (pair.db.home / "kept").read_bytes() == b"old"
    assert pair.leftovers() == []


async def test_a_copy_that_is_cancelled_leaves_the_old_file_and_nothing_else(pair: Pair) -> None:
    (pair.web.home / "large").write_bytes(os.urandom(8_000_000))
    (pair.db.home / "kept").write_bytes(b"old")
    begun = asyncio.Event()

    async with await over_https(pair.server) as host:
        web, db = await host.guest("web"), await host.guest("db")
        copying = copy_file(
            web.files, "/root/large", db.files, "/root/kept", progress=lambda done, _: begun.set() if done else None
        )
        task = asyncio.create_task(copying)
        await asyncio.wait_for(begun.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert (pair.db.home / "kept").read_bytes() == b"old"
    assert pair.leftovers() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("web:/root", "db:/root/x"),
            "/root is a directory; name a file in it, or copy all of it with `guestwire cp -r`",
        ),
        (("web:/no/such", "db:/root/x"), "guest web (100) on https://"),
        (("web:/etc/passwd", "db:/no/such/x"), "guest db (101) on https://"),
    ],
)
async def test_what_can_not_be_copied_is_one_line_that_names_the_guest(
    pair: Pair, arguments: tuple[str, ...], words: str
) -> None:
    assert words in (await pair("cp", *arguments)).line


async def test_an_agents_socket_is_one_guest(pair: Pair) -> None:
    done = await guestwire(
        "--host", "unix:/none.qga", "cp", "web:/a", "db:/b", env=environment(pair.server.folder / "config")
    )

    assert (done.code, "is one guest, and web and db are two" in done.line) == (2, True)
