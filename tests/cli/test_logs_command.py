"""`guestwire logs`: files over every way, journals of a guest with systemd, several guests at once."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from calling import site, vm
from commands import on_terminal
from in_process import Outcome
from reaching import ended, environment, line_of, running, started
from serving import Serving
from ways import Target, options_for

from devtools.guests import Machine
from guestwire import connect
from guestwire.testing import SandboxedAgent

WITHIN = 30.0


async def logs(options: list[str], *arguments: str) -> Outcome:
    done = await ended(await started(*options, "logs", *arguments, env=environment(Path("/nowhere"))))
    return Outcome(done.code, done.output, done.errors.encode())


def followed(options: list[str], *arguments: str) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    return running(*options, "logs", "-f", *arguments, env=environment(Path("/nowhere")), within=WITHIN)


async def nothing_runs_on(agent: SandboxedAgent) -> None:
    """No `tail` is left in the guest."""
    async with await connect(f"unix:{agent.socket}") as host:
        guest = await host.guest("web")
        async with asyncio.timeout(WITHIN):
            while (await guest.run(["pgrep", "-x", "tail"])).ok:
                await asyncio.sleep(0.1)


@pytest.mark.agent
async def test_the_last_lines_of_a_file_come_as_they_are(target: Target) -> None:
    (target.agent.home / "log").write_bytes(b"one\ntwo\xff\n\x1b[6nthree\nfour")

    done = await logs(target.options, "-n", "3", target.host_name, "/root/log")

    assert done == (0, b"two\xff\n\x1b[6nthree\nfour\n", b"")


@pytest.mark.agent
async def test_what_is_written_is_followed_until_ctrl_c(target: Target) -> None:
    log = target.agent.home / "log"
    log.write_text("old\n")

    async with followed(target.options, target.host_name, "/root/log") as process:
        assert await line_of(process) == b"old\n"
        with log.open("a") as file:
            file.write("new\n")
        assert await line_of(process) == b"new\n"
        process.send_signal(2)
        assert await process.wait() == 130

    if target.host_name == "guest100":  # nothing else is connected to its agent
        await nothing_runs_on(target.agent)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Serving, SandboxedAgent, SandboxedAgent]]:
    async with (
        Serving.of(site(vm(100, "web"), vm(101, "database"), vm(102, "off", running="false"))) as server,
        SandboxedAgent(server.folder / "100.qga", name="web") as web,
        SandboxedAgent(server.folder / "101.qga", name="database") as database,
    ):
        yield server, web, database


@pytest.mark.agent
async def test_several_guests_have_their_names_in_front(pair: tuple[Serving, SandboxedAgent, SandboxedAgent]) -> None:
    server, web, database = pair
    options = options_for(server)
    (web.home / "log").write_text("a\nb\n")
    (database.home / "log").write_text("c\n")

    assert await logs(options, "web", "database", "/root/log") == (0, b"web       a\nweb       b\ndatabase  c\n", b"")
    assert await logs(options, "--all", "/root/log") == (0, b"database  c\nweb       a\nweb       b\n", b"")
    lines = (await logs(options, "--json", "web", "database", "/root/log")).output.splitlines()
    assert list(map(json.loads, lines)) == [
        {"guest": "web", "vmid": 100, "line": "a"},
        {"guest": "web", "vmid": 100, "line": "b"},
        {"guest": "database", "vmid": 101, "line": "c"},
    ]
    async with followed(options, "-n", "1", "web", "database", "/root/log") as process:
        assert {await line_of(process), await line_of(process)} == {b"web       b\n", b"database  c\n"}
    (database.home / "log").unlink()
    code, output, errors = await logs(options, "web", "database", "/root/log")
    assert (code, output) == (3, b"web       a\nweb       b\n")
    assert errors.startswith(b"guestwire: guest database (101) on ")
    assert b"there is no /root/log; `guestwire ls" in errors


@pytest.mark.agent
@pytest.mark.parametrize("follow", [(), ("-f",)])
async def test_an_error_does_not_wait_for_other_guests(
    pair: tuple[Serving, SandboxedAgent, SandboxedAgent], follow: tuple[str, ...]
) -> None:
    """The log of the first has no line yet: a pipe, into which nothing was written."""
    server, _, database = pair
    os.mkfifo(database.home / "pipe")
    line = [*options_for(server), "logs", *follow, "database", "web", "off", "/root/pipe"]
    async with running(*line, env=environment(Path("/nowhere")), within=WITHIN) as process:
        assert process.stdout
        assert process.stderr
        errors = sorted([await process.stderr.readline(), await process.stderr.readline()])
        assert errors[0].startswith(b"guestwire: guest off (102) on ")
        assert b"VM 102 is not running" in errors[0]
        assert errors[1].startswith(b"guestwire: guest web (100) on ")
        assert b"there is no /root/pipe" in errors[1]
        await asyncio.to_thread((database.home / "pipe").write_bytes, b"a\n")
        assert await process.stdout.readline() == b"database  a\n"
        if follow:
            process.send_signal(2)
        rest = b"\nguestwire: interrupted\n" if follow else b""
        assert (await process.wait(), await process.stderr.read()) == (130 if follow else 3, rest)


@pytest.mark.agent
async def test_a_terminal_gets_colour_of_ours_alone(pair: tuple[Serving, SandboxedAgent, SandboxedAgent]) -> None:
    server, web, database = pair
    (web.home / "log").write_bytes(b"\x1b[31mred\x1b[A\tx\n")
    (database.home / "log").write_bytes(b"y\n")

    done = await on_terminal(*options_for(server), "logs", "web", "database", "/root/log")

    assert done.output.splitlines() == [
        "\x1b[36mweb     \x1b[0m  \\x1b[31mred\\x1b[A\tx",
        "\x1b[32mdatabase\x1b[0m  y",
    ]


@pytest.mark.agent
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["web", "/nowhere"], 3, "there is no /nowhere; `guestwire ls GUEST:FOLDER` lists what there is"),
        (["web", "/root"], 3, "/root is a folder; name a file in it"),
        (["web"], 3, "no /var/log/syslog and no /var/log/messages; name a file"),
        (["web", "ssh.service"], 3, "it has no journal, and so no log of ssh.service; name a file"),
        (["web", "-u", "ssh"], 3, "it has no journal, and so no log of ssh; name a file"),
        (["/var/log/messages"], 2, "Name guests, or give --all or --tag."),
        (["web", "--all"], 2, "Name guests, or give --all or --tag."),
        (["web", "-u", "ssh", "/x"], 2, "Name a unit or a file, and not both."),
    ],
)
async def test_what_is_not_there_is_one_sentence(
    agent: SandboxedAgent, words: list[str], code: int, sentence: str
) -> None:
    done = await logs(["--host", f"unix:{agent.socket}"], *words)

    assert (done.code, done.output, done.errors.count(b"\n")) == (code, b"", 1)
    assert sentence in done.errors.decode()


@pytest.mark.guest
async def test_the_journal_of_a_guest_with_systemd(debian: Machine) -> None:
    options = ["--host", f"unix:{debian.agent_socket}"]

    assert b"Server listening on" in (await logs(options, "-n", "1000", "web", "ssh.service")).output
    missing = await logs(options, "web", "nowhere.service")
    assert (missing.code, missing.errors.count(b"\n")) == (3, 1)
    assert b"systemd has no unit nowhere.service; `guestwire exec" in missing.errors
    async with followed(options, "-n", "0", "web") as process:
        await asyncio.gather(line_with(process, b"told by a test"), tell(debian, process))


async def line_with(process: asyncio.subprocess.Process, text: bytes) -> None:
    while text not in await line_of(process):
        assert process.returncode is None
    process.send_signal(2)
    assert await process.wait() == 130


async def tell(machine: Machine, process: asyncio.subprocess.Process) -> None:
    """Until it is heard: whether it is followed already can't be seen."""
    while process.returncode is None:
        await machine.shell("logger told by a test")
        await asyncio.sleep(0.5)
