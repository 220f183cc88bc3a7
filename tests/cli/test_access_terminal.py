"""What `guestwire access` asks and shows on a terminal, tried on one."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from calling import Ended, guestwire
from commands import Site, on_terminal

from guestwire.stores import SqliteStore, User

pytestmark = pytest.mark.slow

PASSWORD = "Tr0ub4dor&3"


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return await Site.made(tmp_path)


async def access(site: Site, *arguments: str, answers: tuple[tuple[str, str], ...] = ()) -> Ended:
    return await on_terminal("access", "--state-dir", str(site.state_dir), *arguments, answers=answers)


async def user_of(site: Site, userid: str) -> User | None:
    store = await SqliteStore.open(site.store)
    await store.close()
    return store.snapshot.users.get(userid)


async def test_a_password_is_asked_for_twice_and_never_seen(site: Site) -> None:
    await site.done("user", "add", "anna@pve")

    ended = await access(
        site, "user", "password", "anna@pve",
        answers=(("New password for anna@pve: ", PASSWORD + "\n"), ("The same again: ", PASSWORD + "\n")),
    )  # fmt: skip

    assert (ended.code, PASSWORD in ended.output) == (0, False)
    user = await user_of(site, "anna@pve")
    assert user
    assert user.password_hash


async def test_two_different_passwords_change_nothing(site: Site) -> None:
    await site.done("user", "add", "anna@pve")

    ended = await access(
        site, "user", "password", "anna@pve",
        answers=(("New password", PASSWORD + "\n"), ("again: ", "another one\n")),
    )  # fmt: skip

    assert ended.code == 2
    assert "these are two different passwords; nothing was changed" in ended.output
    anna = await user_of(site, "anna@pve")
    assert anna
    assert anna == User("anna@pve", ticket_version=anna.ticket_version)


async def test_nobody_is_asked_for_the_password_of_a_user_who_is_not_there(site: Site) -> None:
    ended = await access(site, "user", "password", "none@pve")

    assert ended == Ended(2, "guestwire: no such user ('none@pve')\r\n", "")


async def test_ctrl_c_at_a_question_changes_nothing_and_shows_no_trace(site: Site) -> None:
    await site.done("user", "add", "anna@pve")

    for words, question in (
        (("user", "password", "anna@pve"), "New password"),
        (("user", "remove", "anna@pve"), "[y/N]"),
    ):
        ended = await access(site, *words, answers=((question, "\x03"),))
        assert (ended.code, "Traceback" in ended.output) == (130, False)

    anna = await user_of(site, "anna@pve")
    assert anna
    assert anna == User("anna@pve", ticket_version=anna.ticket_version)


async def test_removing_asks_and_anything_but_yes_changes_nothing(site: Site) -> None:
    await site.done("user", "add", "anna@pve")
    await site.done("token", "add", "anna@pve", "job")
    question = "Remove user anna@pve with 1 token? [y/N] "

    for answer in ("n\n", "\n", "x\n", "\x04"):
        ended = await access(site, "user", "remove", "anna@pve", answers=((question, answer),))
        assert ended.code == 2
        assert "nothing was changed" in ended.output
    assert await user_of(site, "anna@pve")

    assert (await access(site, "user", "remove", "anna@pve", answers=((question, "y\n"),))).code == 0
    assert await user_of(site, "anna@pve") is None


async def test_yes_is_not_asked_about(site: Site) -> None:
    await site.done("user", "add", "anna@pve")

    ended = await access(site, "user", "remove", "anna@pve", "--yes")

    assert ended == Ended(0, "user anna@pve: removed\r\n", "")


async def test_there_is_colour_on_a_terminal_and_none_elsewhere(site: Site) -> None:
    await site.done("user", "add", "anna@pve", "--comment", "\x1b[31m\x07")

    on_one = await access(site, "user", "list")
    elsewhere = await guestwire("access", "--state-dir", str(site.state_dir), "user", "list")

    assert "\x1b[1m" in on_one.output
    assert "\x1b[31m" not in on_one.output
    assert "\x07" not in on_one.output
    assert "\x1b" not in elsewhere.output


async def test_audit_that_follows_ends_well_on_ctrl_c(site: Site) -> None:
    await site.done("user", "add", "anna@pve")

    ended = await on_terminal(
        "audit", "--state-dir", str(site.state_dir), "--follow", answers=(("POST /access/users", "\x03"),)
    )

    assert (ended.code, "Traceback" in ended.output) == (0, False)


async def test_a_reader_that_leaves_early_is_no_trouble(site: Site) -> None:
    for _ in range(3):
        await site.done("role", "list")
    line = [sys.executable, "-m", "guestwire", "access", "--state-dir", str(site.state_dir), "role", "list", "--json"]
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(*line, stdout=write, stderr=asyncio.subprocess.PIPE)
    os.close(write)
    async with asyncio.timeout(20):
        _, errors = await process.communicate()

    assert errors == b""
    assert process.returncode in (1, -signal.SIGPIPE)
