"""`guestwire audit`: filters, JSON lines, following, and texts of strangers."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from calling import Ended
from commands import Site, command

from guestwire.stores import AuditRecord, SqliteStore

HOSTILE = "\x1b]0;title\x07\x9b2J\r\nroot@pam\u202e[red]"


def record(number: int, **fields: Any) -> AuditRecord:
    told: dict[str, Any] = {
        "time": 1_700_000_000.0 + number,
        "request_id": f"id{number}",
        "subject": "anna@pve",
        "address": "192.0.2.1",
        "vmid": 100,
        "endpoint": "POST /nodes/{node}/qemu/{vmid}/agent/ping",
        "parameters": {"command": "ls"},
        "status": 200,
        "result": "OK",
        "duration_ms": 1.5,
    }
    return AuditRecord(**told | fields)


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return await Site.made(tmp_path)


@pytest.fixture
async def written(site: Site) -> Site:
    await site.wrote(
        record(0),
        record(1, subject="anna@pve!job", vmid=101),
        record(2, subject="", address="2001:db8::1", status=401, vmid=None, result="No ticket"),
        record(3, subject="backup@pve!job", endpoint="PUT /access/acl", status=403, vmid=None),
    )
    return site


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ((), [1, 2, 3, 4]),
        (("--user", "anna@pve"), [1, 2]),
        (("--user", "anna@pve!job"), [2]),
        (("--user", "job"), []),
        (("--address", "2001:db8::1"), [3]),
        (("--vmid", "101"), [2]),
        (("--endpoint", "PUT /access/acl"), [4]),
        (("--status", "403"), [4]),
        (("--request-id", "id2"), [3]),
        (("--since", "1700000001", "--until", "1700000003"), [2, 3]),
        (("--since", "2023-11-14T22:13:22Z"), [3, 4]),
        (("--until", "2023-11-01"), []),
        (("--since", "1h"), []),
        (("--limit", "2"), [3, 4]),
        (("--status", "200", "--limit", "1"), [2]),
    ],
)
async def test_records_are_chosen_by_each_filter_and_all_together(
    written: Site, words: tuple[str, ...], numbers: list[int]
) -> None:
    assert [found["number"] for found in await written.audit_json(*words)] == numbers


async def test_json_is_one_object_a_line_with_the_documented_fields(written: Site) -> None:
    [first, *_] = await written.audit_json()

    written_fields = msgspec.to_builtins(msgspec.structs.replace(record(0), number=1))
    assert first == {name.replace("_", "-"): value for name, value in written_fields.items()}
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    assert [name for name in first if f"`{name}`" not in page] == []


async def test_the_table_shows_who_did_what_where_and_what_came_of_it(written: Site) -> None:
    ended = await written.audit("--status", "403")

    heading, line = ended.output.splitlines()
    assert heading.split() == ["TIME", "WHO", "FROM", "VM", "CALL", "STATUS", "RESULT", "PARAMETERS"]
    assert all(word in line for word in ("backup@pve!job", "192.0.2.1", "PUT /access/acl", "403", '{"command": "ls"}'))


async def test_what_strangers_wrote_is_shown_and_does_nothing(site: Site) -> None:
    await site.wrote(record(0, subject=HOSTILE, endpoint=HOSTILE, result=HOSTILE, parameters={HOSTILE: HOSTILE}))

    table, lines = await site.audit(), await site.audit("--json")

    for output in (table.output, lines.output):
        assert [character for character in output if not character.isprintable() and character != "\n"] == []
    assert table.output.count("\n") == 2
    assert r"\x1b]0;title\x07\x9b2J\r\nroot@pam\u202e[red]" in table.output
    assert json.loads(lines.output)["result"] == HOSTILE


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--since", "yesterday"), "since: 'yesterday' is not YYYY-MM-DD, YYYY-MM-DDTHH:MM, seconds since the epoch, or how long ago: 30m, 2h, 7d"),
        (("--until", "2030-13-01"), "until: '2030-13-01' is not"),
        (("--vmid", "x"), "--vmid"),
        (("--limit", "0"), "--limit"),
        (("more",), "unexpected extra argument"),
    ],
)  # fmt: skip
async def test_a_filter_that_cannot_be_is_one_line(site: Site, words: tuple[str, ...], says: str) -> None:
    ended = await site.audit(*words)

    assert (ended.code, ended.output, ended.errors.count("\n")) == (2, "", 1)
    assert says in ended.errors


async def test_nothing_to_show_is_no_mistake(site: Site) -> None:
    assert (await site.audit("--json")) == Ended(0, "", "")
    assert (await site.audit()).code == 0


async def test_what_is_changed_on_the_command_line_is_recorded_without_secrets(site: Site) -> None:
    await site.done("user", "add", "anna@pve", "--comment", "c")
    await site.done("user", "password", "anna@pve", "--stdin", stdin=b"Tr0ub4dor&3\n")
    await site.done("user", "list")
    await site.refused("user", "add", "anna@pve")

    added, password, refused = await site.audit_json("--address", "local")

    assert (added["endpoint"], added["status"]) == ("POST /access/users", 200)
    assert added["parameters"] == {"userid": "anna@pve", "comment": "c", "enable": True}
    assert added["subject"].endswith("@pam")
    assert password["parameters"] == {"userid": "anna@pve"}
    assert (refused["status"], refused["result"]) == (500, "create user failed: user 'anna@pve' already exists")
    assert "Tr0ub4dor" not in repr((added, password, refused))


async def test_who_called_sudo_is_who_is_recorded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ben")
    monkeypatch.setattr("os.geteuid", lambda: 0)

    await site.done("group", "add", "ops")

    assert [found["subject"] for found in await site.audit_json()] == ["ben@pam"]


# Following


@asynccontextmanager
async def following(site: Site, *words: str) -> AsyncIterator[asyncio.StreamReader]:
    line = [sys.executable, "-m", "guestwire", "audit", "--state-dir", str(site.state_dir), "--follow", *words]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*line, stdout=pipe, stderr=pipe)
    assert process.stdout
    assert process.stderr
    try:
        yield process.stdout
        process.send_signal(2)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
        assert await process.stderr.read() == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def next_number(lines: asyncio.StreamReader) -> int:
    async with asyncio.timeout(10):
        return int(json.loads(await lines.readline())["number"])


async def test_following_shows_the_last_and_then_each_new_one_once(written: Site) -> None:
    async with following(written, "--json", "--limit", "2", "--user", "anna@pve") as lines:
        assert [await next_number(lines) for _ in range(2)] == [1, 2]

        await written.wrote(record(4, subject="ben@pve"), record(5))
        assert await next_number(lines) == 6
        await written.wrote(*(record(number) for number in range(1500)))
        assert [await next_number(lines) for _ in range(1500)] == list(range(7, 1507))


async def test_following_goes_on_when_old_records_are_thrown_away(written: Site) -> None:
    async with following(written, "--json", "--limit", "1") as lines:
        assert await next_number(lines) == 4
        store = await SqliteStore.open(written.store)
        await store.prune_audit(before=2e9, max_rows=0)
        await store.close()

        await written.wrote(record(6))

        assert await next_number(lines) == 5


async def test_a_vm_is_named_by_its_name_in_the_configuration(written: Site, tmp_path: Path) -> None:
    file = tmp_path / "guestwire.toml"
    vms = [(100, "web"), (101, "db"), (102, "twice"), (103, "twice")]
    text = "".join(f'[[vm]]\nvmid = {vmid}\nname = "{name}"\n' for vmid, name in vms)
    file.write_text(f'[server]\nstate_dir = "{written.state_dir}"\n{text}')

    async def shown(name: str, *where: str) -> Ended:
        return await command("audit", "--vmid", name, "--json", *(where or ("--config", str(file))))

    by_name, by_id = await shown("db"), await shown("101")
    assert [json.loads(line)["vmid"] for line in by_name.output.splitlines()] == [101]
    assert by_name == by_id
    for name, where, words in (
        ("none", (), "No VM of the configuration has the name 'none': give the VM's id."),
        ("twice", (), "Several VMs have the name 'twice': give the VM's id."),
        ("db", ("--state-dir", str(written.state_dir)), "give the VM's id, or --config."),
    ):
        ended = await shown(name, *where)
        assert (ended.code, ended.output, words in ended.errors) == (2, "", True), ended
