"""A login with few rights does what it may, and leaves no refusal behind, on guestwire and with what Proxmox VE has."""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import site, vm
from persons import SECRET, TOKEN, person, settling
from serving import Serving
from ways import ca_of, over_https
from windows import WindowsGuest

from guestwire import Guest, connect
from guestwire.client.errors import CallFailed, ChecksumMismatch, FileRefused, PrivilegeMissing, WrongParameters
from guestwire.stores import Change, Put, Role
from guestwire.testing import FakeGuest, SandboxedAgent

pytestmark = pytest.mark.agent

ROLES: list[Change] = [
    Put(Role("Reader", frozenset({"VM.GuestAgent.FileRead", "VM.Audit"}))),
    Put(Role("Writer", frozenset({"VM.GuestAgent.FileWrite", "VM.Audit"}))),
    Put(Role("Both", frozenset({"VM.GuestAgent.FileRead", "VM.GuestAgent.FileWrite", "VM.Audit"}))),
]


@pytest.fixture(scope="module", params=[False, True], ids=["guestwire", "limited"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Serving]:
    users = [person(f"{name.lower()}@pve", ("/vms", name)) for name in ("Reader", "Writer", "Both")]
    settle = settling(ROLES, *users)
    async with Serving.of(site(vm(100, "web"), vm(101, "fake")), prepare=settle, limited=request.param) as server:
        yield server


@pytest.fixture(scope="module")
async def agent(server: Serving) -> AsyncIterator[SandboxedAgent]:
    async with SandboxedAgent(server.folder / "100.qga", name="web") as agent:
        yield agent


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> None:
    """The agent's keeper works on until the last test."""


async def guest_as(server: Serving, user: str, vmid: int = 100) -> Guest:
    host = await connect(f"https://127.0.0.1:{server.port}", token=f"{user}@pve!{TOKEN}={SECRET}", ca=ca_of(server))
    return await host.guest(vmid)


async def refusals(server: Serving) -> list[str]:
    """The calls that were refused for want of rights."""
    return [line for line in server.log.splitlines() if "status=403" in line]


async def test_files_are_read_without_the_right_to_run_programs(
    server: Serving, agent: SandboxedAgent, tmp_path: Path
) -> None:
    data = os.urandom(200_000)
    (agent.home / "f").write_bytes(data)
    guest = await guest_as(server, "reader")
    async with guest.host:  # type: ignore[attr-defined]  # a Host
        assert await guest.read_file("/root/f") == data
        await guest.download("/root/f", tmp_path / "f")
        with pytest.raises(PrivilegeMissing, match="FileWrite"):
            await guest.write_file("/root/g", b"x")

    assert (tmp_path / "f").read_bytes() == data
    assert [line for line in await refusals(server) if "file-write" not in line] == []


async def test_folders_are_listed_and_copied_without_the_right_to_run_programs(
    server: Serving, agent: SandboxedAgent, tmp_path: Path
) -> None:
    (agent.home / "tree" / "sub dir").mkdir(parents=True)
    (agent.home / "tree" / "sub dir" / "é\n").write_bytes(b"deep")
    (agent.home / "tree" / "link").symlink_to("sub dir")
    (agent.home / os.fsdecode(b"tree/\xff")).write_bytes(b"no text")
    guest = await guest_as(server, "reader")
    async with guest.host:  # type: ignore[attr-defined]  # a Host
        if server.limited:  # Proxmox VE has nothing for it but programs
            with pytest.raises(PrivilegeMissing, match="Unrestricted"):
                await guest.folders.listdir("/root/tree")
            return
        found = await guest.folders.listdir("/root/tree")
        assert [(one.kind, one.path) for one in found] == [("l", "link"), ("d", "sub dir"), ("f", "\udcff")]
        assert await guest.folders.is_folder("/root/tree")
        assert not await guest.folders.is_folder("/etc/passwd")
        with pytest.raises(FileRefused, match=r"No such file or directory|can't cd to") as missing:
            await guest.folders.listdir("/no/such")
        assert "/no/such" in missing.value.message
        copied = await guest.folders.download("/root/tree", tmp_path / "tree")

    assert (copied.files, copied.failed) == (1, 1)
    assert [path for path, _ in copied.left_out] == ["\udcff"]
    assert (tmp_path / "tree/sub dir/é\n").read_bytes() == b"deep"
    assert str((tmp_path / "tree/link").readlink()) == "sub dir"
    assert not [line for line in await refusals(server) if "/exec" in line and "reader" in line]
    async with await over_https(server) as admin:
        audit = await admin.raw("GET", "/nodes/pve1/guestwire/audit")
    records = [one for one in audit if one["endpoint"].endswith("/guestwire/file-list")]
    assert {(one["parameters"]["folder"], one["status"], one["vmid"]) for one in records} == {("/root/tree", 200, 100)}
    assert all(one["result"].startswith("OK, ") for one in records)


async def test_a_list_of_files_is_bounded_and_needs_its_privilege(server: Serving) -> None:
    if server.limited:
        pytest.skip("Proxmox VE has no such endpoint")
    async with FakeGuest(server.folder / "101.qga") as fake, await over_https(server) as admin:
        await (await admin.guest(101)).wait_ready(30)
        fake.replies["guest-exec"] = {"pid": 7}
        endless = base64.b64encode(b"\0" * 200_001).decode()
        fake.replies["guest-exec-status"] = {"exited": True, "exitcode": 0, "out-data": endless}
        reader, writer = await guest_as(server, "reader", 101), await guest_as(server, "writer", 101)
        async with reader.host, writer.host:  # type: ignore[attr-defined]  # Hosts
            with pytest.raises(CallFailed, match="longer than 100000 entries"):
                await reader.folders.listdir("/etc")
            with pytest.raises(WrongParameters, match="NUL"):
                await reader.raw("GET", "guestwire/file-list", {"folder": "/etc\0/x"})
            with pytest.raises(PrivilegeMissing, match="FileRead"):
                await writer.file_list("/etc")


async def test_a_windows_guest_is_listed_and_copied_too(server: Serving, tmp_path: Path) -> None:
    if server.limited:
        pytest.skip("Proxmox VE has no such endpoint")
    async with FakeGuest(server.folder / "101.qga") as fake, await over_https(server) as admin:
        await (await admin.guest(101)).wait_ready(30)
        WindowsGuest(fake)
        fake.files["C:\\data\\a.txt"] = bytearray(b"text")
        guest = await guest_as(server, "reader", 101)
        async with guest.host:  # type: ignore[attr-defined]  # a Host
            [entry] = await guest.folders.listdir("C:\\data")
            copied = await guest.folders.download("C:\\data", tmp_path / "data")
            with pytest.raises(FileRefused, match="No such file or directory"):
                await guest.folders.listdir("C:\\none")

    assert (entry.kind, entry.path, entry.size, entry.owner, entry.link) == ("f", "a.txt", 4, "", "")
    assert (copied.files, (tmp_path / "data/a.txt").read_bytes()) == (1, b"text")


async def test_small_files_are_written_without_the_right_to_run_programs(
    server: Serving, agent: SandboxedAgent, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"small")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"in "
        yield b"pieces"

    guest = await guest_as(server, "writer")
    async with guest.host:  # type: ignore[attr-defined]  # a Host
        assert await guest.write_file("/root/bytes", b"bytes") == 5
        assert await guest.write_file("/root/pieces", pieces()) == 9
        assert await guest.upload(tmp_path / "small", "/root/small") == 5
        with pytest.raises(PrivilegeMissing, match="Unrestricted"):
            await guest.write_file("/root/large", bytes(100_000))

    assert [(agent.home / name).read_bytes() for name in ("bytes", "pieces", "small")] == [
        b"bytes",
        b"in pieces",
        b"small",
    ]
    assert not [line for line in await refusals(server) if "/exec" in line and "writer" in line][1:]


async def test_a_guest_that_lies_about_what_it_took_is_found_out_where_the_file_may_be_read(server: Serving) -> None:
    async with FakeGuest(server.folder / "101.qga") as fake, await over_https(server) as admin:
        await (await admin.guest(101)).wait_ready(30)
        take = fake._write
        fake.replies["guest-file-write"] = lambda given: take(given["handle"], b"12") | {"count": 5}
        guest = await guest_as(server, "both", 101)
        async with guest.host:  # type: ignore[attr-defined]  # a Host
            if server.limited:  # guestwire's server believes the count that it compares
                with pytest.raises(ChecksumMismatch, match="the guest took 2 of 5 bytes"):
                    await guest.write_file("/f", b"12345")


async def test_the_administrator_runs_programs(server: Serving) -> None:
    async with await over_https(server) as host:
        assert await host.may_run(100)
