"""`guestwire access` beside a running server: what is changed there holds here, within a second."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from access_calls import stranger
from calling import Client
from calling import site as site_config
from commands import Site, command
from serving import Serving

from guestwire import errors

WITHIN = 1.0


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site_config()) as server:
        yield server


@pytest.fixture
def running(server: Serving) -> Site:
    return Site(server.folder / "state")


async def status(server: Serving, token: str) -> int:
    client = Client(server)
    client.authorization = f"Authorization: PVEAPIToken={token}"
    return (await client.get("/api2/json/version")).status


async def becomes(server: Serving, token: str, wanted: int) -> None:
    """Within a second, and stays so."""
    async with asyncio.timeout(WITHIN):
        while await status(server, token) != wanted:
            await asyncio.sleep(0.02)
    assert await status(server, token) == wanted


async def there_is(server: Serving, what: str, is_so: Callable[[Any], bool]) -> None:
    """Within a second the API lists it so."""
    path = f"/api2/json/access/{what}{'?full=1' if what == 'users' else ''}"
    async with asyncio.timeout(WITHIN):
        while not is_so((await Client(server).get(path)).data):
            await asyncio.sleep(0.02)


async def test_a_token_made_here_works_there_until_it_is_removed(server: Serving, running: Site) -> None:
    token = (await running.done("token", "add", "root@pam", "job")).strip()
    await becomes(server, token, 200)

    await running.done("token", "remove", "root@pam", "job", "--yes")
    await becomes(server, token, 401)


async def test_a_role_on_a_vm_that_the_server_does_not_have_is_given_with_a_warning(server: Serving) -> None:
    where = ("--config", str(server.folder / "guestwire.toml"))
    ended = await command("access", "acl", "add", "/vms/555", "PVEAuditor", "--user", "root@pam", *where)

    assert (ended.code, ended.output) == (0, "")
    assert "warning: the configuration has no VM 555" in ended.errors
    await there_is(server, "acl", lambda acl: any(entry["path"] == "/vms/555" for entry in acl))


async def test_an_expired_token_and_a_disabled_or_removed_user_are_refused(server: Serving, running: Site) -> None:
    await running.done("user", "add", "anna@pve")
    token = (await running.done("token", "add", "anna@pve", "job")).strip()
    await becomes(server, token, 200)

    await running.done("token", "change", "anna@pve", "job", "--expire", "1")
    await becomes(server, token, 401)
    await running.done("token", "change", "anna@pve", "job", "--expire", "never")
    await becomes(server, token, 200)
    await running.done("user", "change", "anna@pve", "--disable")
    await becomes(server, token, 401)
    await running.done("user", "change", "anna@pve", "--enable")
    await becomes(server, token, 200)
    await running.done("user", "remove", "anna@pve", "--yes")
    await becomes(server, token, 401)


async def test_a_password_set_here_logs_in_there(server: Serving, running: Site) -> None:
    await running.done("user", "add", "ben@pve")
    await running.done("user", "password", "ben@pve", "--stdin", stdin=b"Tr0ub4dor&3\n")
    await running.done("user", "change", "ben@pve", "--comment", "ready")

    await there_is(server, "users", lambda users: "ready" in [user.get("comment") for user in users])
    answer = await stranger(server).post("/api2/json/access/ticket", username="ben@pve", password="Tr0ub4dor&3")

    assert answer.data["username"] == "ben@pve"


async def test_lists_are_what_the_api_answers(server: Serving, running: Site) -> None:
    await running.done("group", "add", "ops")
    await running.done("acl", "add", "/vms", "PVEVMUser", "--group", "ops")

    for kind in ("acl", "role", "group", "user"):
        listed = await running.json(kind, "list")
        await there_is(server, kind if kind == "acl" else f"{kind}s", listed.__eq__)


async def test_changes_from_both_sides_at_once_are_all_there(server: Serving, running: Site) -> None:
    client = Client(server)
    there = (client.post("/api2/json/access/groups", groupid=f"there{number}") for number in range(4))
    ended, answers = await asyncio.gather(running.access("group", "add", "here0"), asyncio.gather(*there))

    assert (ended.code, {answer.status for answer in answers}) == (0, {200})
    names = {group["groupid"] for group in await running.json("group", "list")}
    assert {"here0", *(f"there{number}" for number in range(4))} <= names


async def test_a_backup_is_taken_while_the_server_runs_and_put_back_only_when_it_is_stopped(running: Site) -> None:
    file = str(running.state_dir / "backup")
    await running.done("backup", file)

    text = await running.refused("restore", file, "--yes", code=errors.StoreError.exit_code)

    assert text.endswith("it is in use; stop the server first")
