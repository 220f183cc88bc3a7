"""The commands that work inside guests, the same over an agent's own socket and over HTTPS: what they show, do, and end with."""

import asyncio
import base64
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from calling import ANSWERS_WITHIN
from freezes import FrozenGuest
from reaching import BLOCKED, WAYS, Lab, ended, environment, guestwire
from waiting import until

import guestwire as package
from guestwire.agent import results
from guestwire.cli.power import ENDS
from guestwire.cli.program import guestwire as guestwire_group
from guestwire.contract import Effect
from guestwire.contract.registry import ENDPOINTS
from guestwire.contract.results import FileContent, ProcessState
from guestwire.testing import CLOSE, CommandError, Exchange, FakeGuest
from guestwire.testing.fake import Action, honest

pytestmark = pytest.mark.agent

ALL_BYTES = bytes(range(256))
SEVERAL_REQUESTS = 400
"""Bytes; one request for the status of a process has less than 100."""
HOSTILE = "\x1b[31mred\x9b2J[bold]x[/bold]\n"


@pytest.fixture(scope="module", params=WAYS.values(), ids=list(WAYS))
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with request.param() as lab:
        yield lab


@pytest.fixture
def fake(lab: Lab) -> FakeGuest:
    """The fake guest as it was at the beginning."""
    lab.fake.received.clear()
    lab.fake.replies = {"guest-fsfreeze-freeze": 2, "guest-fsfreeze-thaw": 2}
    lab.fake.fault = leaves
    return lab.fake


def leaves(exchange: Exchange) -> list[Action]:
    """As a guest does that shuts down, or is suspended: it says no more."""
    return [CLOSE] if exchange.request["execute"].startswith(("guest-shutdown", "guest-suspend")) else exchange.honest


# What a guest tells


class Memory(msgspec.Struct, forbid_unknown_fields=True):
    size: int
    blocks: list[results.MemoryBlock]


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


VIEWS: dict[str, tuple[Any, str]] = {
    "ping": (Nothing, "the agent answers"),
    "info": (results.AgentInfo, "guest-ping"),
    "osinfo": (results.OsInfo, "kernel"),
    "hostname": (results.HostName, "web\n"),
    "time": (int, "this machine"),
    "timezone": (results.TimeZone, "00"),
    "users": (list[results.User], "SINCE"),
    "ip": (list[results.Interface], "127.0.0.1/8"),
    "df": (list[results.FileSystem], "MOUNTED ON"),
    "vcpus": (list[results.Vcpu], "ONLINE"),
    "memory": (Memory, " online"),
    "freeze-status": (str, "thawed"),
}


@pytest.mark.parametrize("command", VIEWS)
async def test_what_a_guest_tells_is_words_for_people_and_the_apis_fields_in_json(lab: Lab, command: str) -> None:
    shape, word = VIEWS[command]

    people, programs = await asyncio.gather(lab("web", command, "web"), lab("web", command, "web", "--json"))

    assert (people.code, people.errors, programs.code, programs.errors) == (0, "", 0, "")
    assert word in people.text
    found = msgspec.json.decode(programs.output, type=shape)
    assert msgspec.json.decode(programs.output) == msgspec.to_builtins(found), "fields that no type has"


async def test_each_command_of_the_agent_is_said_to_be_enabled_or_not(lab: Lab) -> None:
    people, programs = await asyncio.gather(lab("web", "info", "web"), lab("web", "info", "web", "--json"))

    words = {line.split()[0]: line.split()[1] for line in people.text.splitlines()[2:]}
    assert {command["enabled"] for command in programs.json["supported_commands"]} == {True, False}
    assert words == {
        command["name"]: "yes" if command["enabled"] else "no" for command in programs.json["supported_commands"]
    }


async def test_df_of_all_guests_shows_the_fullest_file_system_of_each_and_says_who_did_not(
    lab: Lab, fake: FakeGuest
) -> None:
    def system(name: str, kind: str, used: int) -> dict[str, object]:
        return {
            "name": name, "mountpoint": f"/{name}", "type": kind, "used-bytes": used, "total-bytes": 1000, "disk": [],
        }  # fmt: skip

    fake.replies["guest-get-fsinfo"] = [
        system("snap", "squashfs", 1000), system("half", "ext4", 500), system("full", "xfs", 999),
    ]  # fmt: skip
    at = "web" if lab.kind != "unix" else "fake"
    people, programs = await lab(at, "df", "--all"), await lab(at, "df", "--all", "--json")

    rows = json.loads(programs.output)
    if lab.kind == "unix":
        assert (people.code, programs.code, people.errors) == (0, 0, "")
    else:
        # Guest `gone` has no agent, and `off` does not run.
        assert (people.code, programs.code) == (3, 3)
        [error] = [line for line in people.errors.splitlines() if "gone" in line]
        assert error.startswith("guestwire: guest gone (103) on https://")
        assert "QEMU guest agent is not running" in error
        assert {row["name"] for row in rows} == {"web", "fake", "gone"}
        assert [row["name"] for row in rows if "error" in row and row["name"] != "web"] == ["gone"]
    assert (rows[0]["name"], rows[0]["fullest"]) == (rows[0]["name"], system("full", "xfs", 999))
    first = people.text.splitlines()[1].split()
    assert "100%" in first
    assert first[-1] == "/full"


@pytest.mark.parametrize("words", [(), ("--all", "web")])
async def test_df_is_of_one_guest_or_of_all(lab: Lab, words: tuple[str, ...]) -> None:
    done = await lab("web", "df", *words)

    assert (done.code, done.line) == (2, "Name one guest, or give --all. See 'guestwire df --help'.")


async def test_ls_lists_guests(lab: Lab) -> None:
    found = (await lab("web", "ls", "--json")).json

    assert all(
        row.keys()
        == {"vmid", "name", "status", "node", "frozen_by", "frozen_since", "frozen_until", "last_answer", "tags"}
        for row in found
    )
    names = {row["name"]: row["status"] for row in found}
    assert names == (
        {"web": "running"}
        if lab.kind == "unix"
        else {"web": "running", "fake": "running", "off": "stopped", "gone": "running"}
    )
    assert "web" in (await lab("web", "ls")).text


async def test_ls_of_a_folder_lists_what_is_in_it(lab: Lab) -> None:
    (lab.agent.home / "a folder" / "below").mkdir(parents=True)
    (lab.agent.home / "a folder" / "file \n\x1b").write_bytes(b"12345")

    people = await lab("web", "ls", "web:/root/a folder")
    found = (await lab("web", "ls", "web:/root/a folder", "--json")).json

    assert [(row["kind"], row["path"]) for row in found] == [("d", "below"), ("f", "file \n\x1b")]
    assert (found[1]["size"], found[1].keys()) == (
        5,
        {"kind", "path", "size", "mode", "mtime", "owner", "group", "link"},
    )
    assert people.text.count("\n") == 3
    assert "drwx" in people.text
    assert r"file \n\x1b" in people.text


async def test_ls_of_a_folder_says_whose_a_file_is_and_where_a_link_leads(lab: Lab) -> None:
    folder = lab.agent.home / "owned"
    folder.mkdir()
    (folder / "mine").touch()
    (folder / "link").symlink_to("/no: where\x1b")
    # In the guest, the user of this process is root.
    people = await lab("web", "ls", "web:/root/owned")
    found = {row["path"]: row for row in (await lab("web", "ls", "web:/root/owned", "--json")).json}

    names = await lab("web", "exec", "web", "--", "stat", "-c", "%U %G", "/root/owned/mine")
    assert f"{found['mine']['owner']} {found['mine']['group']}" == names.text.strip()
    assert (found["mine"]["link"], found["link"]["kind"], found["link"]["link"]) == ("", "l", "/no: where\x1b")
    assert r"link -> /no: where\x1b" in people.text
    assert people.text.split()[:3] == ["MODE", "OWNER", "GROUP"]


async def test_what_a_guest_says_reaches_no_terminal_unseen(lab: Lab, fake: FakeGuest) -> None:
    fake.replies["guest-get-users"] = [{"user": HOSTILE, "login-time": 1.5, "domain": HOSTILE}]
    fake.replies["guest-get-host-name"] = {"host-name": HOSTILE}
    fake.replies["guest-get-osinfo"] = {"pretty-name": HOSTILE}

    for command in ("users", "hostname", "osinfo"):
        people = await lab("fake", command, "fake")
        assert r"\x1b[31mred\x9b2J[bold]x[/bold]\n" in people.text
        assert not {"\x1b", "\x9b"} & set(people.text)
    assert HOSTILE in (await lab("fake", "users", "fake", "--json")).json[0]["user"]


async def test_an_agents_own_error_is_one_line_with_the_next_step(lab: Lab, fake: FakeGuest) -> None:
    fake.replies.pop("guest-get-users", None)

    done = await lab("fake", "users", "fake")

    assert done.code == 3
    assert "guest fake" in done.line
    assert "guest-get-users has not been found" in done.line
    assert "--allow-rpcs" in done.line


# Processes


async def test_exec_passes_both_outputs_byte_for_byte_and_ends_as_the_program(lab: Lab) -> None:
    script = r"cat; printf '\000\377err' >&2; exit 7"

    done = await lab("web", "exec", "-i", "web", "--", "sh", "-c", script, stdin=ALL_BYTES)

    assert (done.code, done.output, done.errors) == (7, ALL_BYTES, "\x00\ufffderr")


@pytest.mark.parametrize(("number", "name"), [(9, "KILL"), (15, "TERM")])
async def test_a_process_that_a_signal_ended_is_128_and_its_number(lab: Lab, number: int, name: str) -> None:
    assert (await lab("web", "exec", "web", "sh", "-c", f"kill -{name} $$")).code == 128 + number


async def test_exec_sets_environment_and_directory_and_leaves_the_programs_options_alone(lab: Lab) -> None:
    words = ("-e", "A=b c", "-e", "EMPTY=", "-w", "/usr", "web", "sh", "-c", 'echo "$A$EMPTY$PWD" "$1"', "sh", "--json")

    done = await lab("web", "exec", *words)

    assert (done.code, done.output) == (0, b"b c/usr --json\n")


async def test_standard_input_is_not_read_unless_it_is_wanted(lab: Lab) -> None:
    assert (await lab("web", "exec", "web", "cat", stdin=b"none of it")).output == b""


async def test_exec_json_has_the_fields_of_exec_status_and_still_ends_as_the_program(lab: Lab) -> None:
    done = await lab("web", "exec", "--json", "-i", "web", "--", "sh", "-c", "cat; exit 3", stdin=ALL_BYTES)

    assert done.code == 3
    state = msgspec.json.decode(done.output, type=ProcessState)
    assert (state.exited, state.exitcode, state.out_data) == (1, 3, ALL_BYTES.decode("latin-1"))
    assert msgspec.json.decode(done.output).keys() == {
        "pid", "exited", "exitcode", "out-data", "out-truncated", "err-data", "err-truncated",
    }  # fmt: skip


def run_windows(fake: FakeGuest) -> None:
    """Makes it a guest that has no shell for streams."""

    def execute(arguments: dict[str, Any]) -> dict[str, int]:
        if arguments["path"] == "/bin/sh":
            raise CommandError("GenericError", "Failed to execute helper program (No such file or directory)")
        return {"pid": 4711}

    fake.replies |= {"guest-exec": execute, "guest-get-osinfo": {"id": "mswindows"}}


@pytest.mark.parametrize(("exitcode", "code"), [(0, 74), (3, 3)])
async def test_output_of_which_the_agent_kept_a_part_is_no_success(
    lab: Lab, fake: FakeGuest, exitcode: int, code: int
) -> None:
    state = {
        "exited": True,
        "exitcode": exitcode,
        "out-data": base64.b64encode(b"begin").decode(),
        "out-truncated": True,
    }
    run_windows(fake)
    fake.replies["guest-exec-status"] = state
    done = await lab("fake", "exec", "fake", "--", "cat", "/large")

    assert (done.code, done.output) == (code, b"begin")
    assert "the guest's agent kept its beginning alone" in done.errors


async def test_a_detached_process_is_asked_for_later(lab: Lab) -> None:
    release = lab.agent.home / "release"
    release.unlink(missing_ok=True)
    script = "while [ ! -e /root/release ]; do sleep 0.05; done; echo done; exit 4"

    pid = (await lab("web", "exec", "--detach", "web", "--", "sh", "-c", script)).text.strip()
    running = await lab("web", "status", "web", pid)
    release.touch()
    state = await _exited(lab, pid)

    assert (running.code, running.output, running.errors) == (0, b"", f"process {pid}: still runs\n")
    assert (state.exitcode, state.out_data) == (4, "done\n")


async def _exited(lab: Lab, pid: str) -> ProcessState[str]:
    async with asyncio.timeout(ANSWERS_WITHIN):
        while True:
            done = await lab("web", "status", "web", pid, "--json")
            assert b"null" not in done.output, "what the agent did not say is left out"
            if (state := msgspec.json.decode(done.output, type=ProcessState)).exited:
                return state


async def test_a_process_whose_time_is_up_runs_on(lab: Lab) -> None:
    done = await lab("web", "exec", "--timeout", "0.2", "web", "--", "sleep", "30")

    assert done.code == 124
    assert "still runs after 0.2 seconds; it was left running" in done.line


@pytest.mark.parametrize(
    ("script", "code", "output"),
    [
        ("trap 'echo caught; exit 7' INT; touch /root/begun; while :; do sleep 0.1; done", 7, b"caught\n"),
        ("touch /root/begun; sleep 60; echo never", 130, b""),
        ("touch /root/begun; exec sleep 60", 130, b""),
    ],
)
async def test_ctrl_c_is_passed_on_to_the_process_and_those_that_it_started(
    lab: Lab, script: str, code: int, output: bytes
) -> None:
    begun = lab.agent.home / "begun"
    begun.unlink(missing_ok=True)

    process = await lab.start("web", "exec", "web", "--", "sh", "-c", script)
    await until(begun.exists, ANSWERS_WITHIN)
    # Requests for the status of the process arrive one after the other: by then the command knows its id. A single
    # request may be the link's own look at an agent that is slow.
    before = lab.agent.bytes_read()
    await until(lambda: lab.agent.bytes_read() > before + SEVERAL_REQUESTS, ANSWERS_WITHIN)
    process.send_signal(signal.SIGINT)
    done = await ended(process)

    assert (done.code, done.output) == (code, output), done
    assert "Ctrl-C goes to process" in done.errors
    left = await lab("web", "exec", "web", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "sleep 60" not in left.text


async def test_ctrl_c_again_leaves_the_process_running_and_says_so(lab: Lab, fake: FakeGuest) -> None:
    fake.replies |= {"guest-exec": {"pid": 4711}, "guest-exec-status": {"exited": False}}
    fake.replies["guest-get-osinfo"] = {"id": "linux"}

    process = await lab.start("fake", "exec", "--json", "fake", "--", "sleep", "30")
    await until(lambda: "guest-exec-status" in fake.names(), ANSWERS_WITHIN)
    process.send_signal(signal.SIGINT)
    await until(lambda: fake.names().count("guest-exec") == 2, ANSWERS_WITHIN)
    process.send_signal(signal.SIGINT)
    done = await ended(process)

    assert done.code == 130
    assert "process 4711 was left running; `guestwire status fake 4711`" in done.errors


async def test_ctrl_c_again_lets_a_program_run_on_without_its_stream(lab: Lab) -> None:
    script = "trap '' INT; echo $$; sleep 4; sleep 0; echo late; echo late >/root/left; exit 6"
    process = await lab.start("web", "exec", "web", "--", "sh", "-c", script)
    assert process.stdout
    pid = (await process.stdout.readline()).decode().strip()
    process.send_signal(signal.SIGINT)
    assert process.stderr
    assert b"once more leaves it running" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    done = await ended(process)

    assert (done.code, done.output) == (130, b"")
    assert f"process {pid} was left running" in done.errors
    assert (await _exited(lab, pid)).exitcode == 6  # what it wrote then was no error
    assert (lab.agent.home / "left").read_text() == "late\n"
    (lab.agent.home / "left").unlink()


async def test_ctrl_c_does_not_say_that_a_process_runs_that_has_ended(lab: Lab) -> None:
    begun = lab.agent.home / "begun-child"
    begun.unlink(missing_ok=True)
    process = await lab.start("web", "exec", "web", "--", "sh", "-c", "sleep 8 & touch /root/begun-child")
    await until(begun.exists, ANSWERS_WITHIN)
    before = lab.agent.bytes_read()
    await until(lambda: lab.agent.bytes_read() > before + SEVERAL_REQUESTS, ANSWERS_WITHIN)
    process.send_signal(signal.SIGINT)
    done = await ended(process)

    assert done.code == 130
    assert "has ended, and what it started was left running" in done.errors


async def test_ctrl_c_leaves_a_process_in_a_windows_guest_running(lab: Lab, fake: FakeGuest) -> None:
    run_windows(fake)
    fake.replies["guest-exec-status"] = {"exited": False}

    process = await lab.start("fake", "exec", "fake", "--", "ping", "-t", "localhost")
    await until(lambda: "guest-exec-status" in fake.names(), ANSWERS_WITHIN)
    process.send_signal(signal.SIGINT)
    done = await ended(process)

    assert done.code == 130
    assert "Windows has no signal for Ctrl-C" in done.errors
    assert "process 4711 was left running" in done.errors
    assert "process 4711 was left running; `guestwire status fake 4711`" in done.errors


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("web",), "Missing argument"),
        (("web", "--"), "no program to run"),
        (("web", "--timeout", "5", "ls"), "options stand before GUEST"),
        (("--timeout", "nan", "web", "ls"), "'nan' is not a number of seconds"),
        (("-e", "A", "web", "ls"), "'A' is not K=V"),
        (("-e", "=A", "web", "ls"), "'=A' is not K=V"),
    ],
)
async def test_a_wrong_use_of_exec_leads_to_its_help(lab: Lab, words: tuple[str, ...], says: str) -> None:
    done = await lab("web", "exec", *words)

    assert done.code == 2
    assert says in done.line
    assert done.line.endswith("See 'guestwire exec --help'.")


async def test_a_program_that_is_not_there_is_the_agents_error(lab: Lab) -> None:
    done = await lab("web", "exec", "web", "no-such-program")

    assert done.code == 3
    assert "no-such-program" in done.line


# Lines


async def test_shell_keeps_directory_and_environment_from_line_to_line(lab: Lab) -> None:
    lines = 'cd /usr\nexport A="it\'s"\npwd\n\necho "$A"; echo err >&2; false\n'

    done = await lab("web", "shell", "web", stdin=lines.encode())

    assert (done.code, done.output, done.errors) == (1, b"/usr\nit's\n", "err\n")


async def test_shell_ends_where_a_line_exits_and_outlives_lines_that_are_no_shell(lab: Lab) -> None:
    done = await lab("web", "shell", "web", stdin=b"if\necho still\nfalse || exit 5\necho no\n")

    assert (done.code, done.output) == (5, b"still\n")
    assert "yntax" in done.errors


async def test_shell_passes_bytes_and_its_json_is_one_object_a_line(lab: Lab) -> None:
    lines = rb"printf '\377\n\n\000'" + b"\nexit 2\n"

    assert (await lab("web", "shell", "web", stdin=lines)).output == b"\xff\n\n\0"
    found = await lab("web", "shell", "web", "--json", stdin=lines)
    states = [msgspec.json.decode(line, type=ProcessState) for line in found.output.splitlines()]
    assert [(state.exitcode, state.out_data) for state in states] == [(0, "\xff\n\n\0"), (2, "")]


async def test_shell_is_not_for_windows_and_says_what_is(lab: Lab, fake: FakeGuest) -> None:
    fake.replies["guest-get-osinfo"] = {"id": "mswindows"}

    done = await lab("fake", "shell", "fake")

    assert done.code == 3
    assert "guestwire exec fake -- cmd /c" in done.line


# Files


async def test_cat_passes_bytes_and_json_has_one_character_for_each(lab: Lab) -> None:
    (lab.agent.home / "bytes").write_bytes(ALL_BYTES)

    assert (await lab("web", "cat", "web:/root/bytes")).output == ALL_BYTES
    content = msgspec.json.decode((await lab("web", "cat", "web:/root/bytes", "--json")).output, type=FileContent)
    assert (content.data, content.bytes_read) == (ALL_BYTES, 256)


async def test_a_file_that_is_not_there_is_one_line(lab: Lab) -> None:
    done = await lab("web", "cat", "web:/root/none")

    assert done.code == 3
    assert "'/root/none'" in done.line


@pytest.mark.parametrize("words", [("cat", "web"), ("cat", "web:"), ("cat", ":/etc"), ("ls", "web:")])
async def test_a_path_without_guest_or_a_guest_without_path_is_wrong_use(lab: Lab, words: tuple[str, ...]) -> None:
    done = await lab("web", *words)

    assert done.code == 2
    assert "is not GUEST:PATH" in done.line


async def test_a_path_alone_is_answered_with_that_path_in_a_guest(lab: Lab) -> None:
    done = await lab("web", "ls", "/etc")

    assert (done.code, "for example GUEST:/etc." in done.line) == (2, True)


# What changes a guest

DISRUPTING = {
    ("freeze", "fake"): "guest-fsfreeze-freeze",
    ("shutdown", "fake"): "guest-shutdown",
    ("suspend", "ram", "fake"): "guest-suspend-ram",
    ("suspend", "disk", "fake"): "guest-suspend-disk",
    ("suspend", "hybrid", "fake"): "guest-suspend-hybrid",
}


@pytest.mark.parametrize("words", DISRUPTING, ids=" ".join)
async def test_what_disrupts_a_guest_needs_yes_where_nobody_can_be_asked(
    lab: Lab, fake: FakeGuest, words: tuple[str, ...]
) -> None:
    refused = await lab("fake", *words)
    assert (refused.code, fake.names()) == (2, [])
    assert "give --yes if you mean it" in refused.line

    done = await lab("fake", *words, "--yes", "--json")
    assert done.code == 0, done
    assert DISRUPTING[words] in fake.names()
    assert done.json in (2, {})


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda signum: signum.name)
async def test_a_signal_while_freezing_thaws_and_says_so(lab: Lab, fake: FakeGuest, signum: signal.Signals) -> None:
    guest = FrozenGuest(fake, 2, 2)
    fake.delay["guest-fsfreeze-freeze"] = 0.5
    try:
        process = await lab.start("fake", "freeze", "--yes", "fake")
        await until(lambda: "guest-fsfreeze-freeze" in fake.names(), ANSWERS_WITHIN)
        process.send_signal(signum)
        done = await ended(process)
    finally:
        fake.delay.clear()

    assert done.code == 128 + signum
    assert "fake: interrupted; its file systems are thawed" in done.errors
    assert not guest.is_frozen


async def test_a_signal_ends_the_command_that_runs_while_a_guest_is_frozen_and_thaws(
    lab: Lab, fake: FakeGuest, tmp_path: Path
) -> None:
    guest, note = FrozenGuest(fake, 2, 2), tmp_path / "running"
    command = ["sh", "-c", f"echo $$ >{note}.new; mv {note}.new {note}; exec sleep 600"]
    process = await lab.start("fake", "freeze", "--lease", "600", "fake", "--", *command)
    await until(note.exists, ANSWERS_WITHIN)
    assert guest.is_frozen
    process.send_signal(signal.SIGTERM)
    done = await ended(process)

    assert (done.code, guest.is_frozen) == (128 + signal.SIGTERM, False)
    assert not Path("/proc", note.read_text().strip()).exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("fake", "--", "no-such-command", "x"), "no-such-command: there is no such command on this machine"),
        (("fake", "fake", "--", "true"), "a guest is named twice"),
    ],
)
async def test_a_mistake_on_the_command_line_freezes_nothing(
    lab: Lab, fake: FakeGuest, words: tuple[str, ...], why: str
) -> None:
    done = await lab("fake", "freeze", *words)

    assert (done.code, done.line) == (2, f"{why}: nothing was frozen")
    assert "guest-fsfreeze-freeze" not in fake.names()


async def test_a_guest_of_which_nothing_can_be_frozen_has_no_backup(lab: Lab, fake: FakeGuest, tmp_path: Path) -> None:
    FrozenGuest(fake, 0, 0)
    done = await lab("fake", "freeze", "fake", "--", "touch", str(tmp_path / "backup"))

    assert (done.code, (tmp_path / "backup").exists()) == (3, False)
    assert done.line.endswith("guest fake: it has no file system that can be frozen: touch was not run")


async def test_a_lease_that_nothing_would_keep_is_refused_where_there_is_no_server(lab: Lab, fake: FakeGuest) -> None:
    guest = FrozenGuest(fake, 2, 2)
    done = await lab("fake", "freeze", "--yes", "--lease", "60", "fake")

    # The guest can run no program; a server of guestwire thaws all the same.
    if lab.server and not lab.server.limited:
        assert (done.code, guest.is_frozen) == (0, True)
    else:
        assert (done.code, guest.is_frozen) == (3, False)
        assert "nothing would thaw it after its lease, so it is thawed again" in done.line


async def test_a_thaw_says_when_nothing_is_frozen_and_when_the_freeze_was_lost(lab: Lab, fake: FakeGuest) -> None:
    FrozenGuest(fake, 2, 0, 0)
    nothing = await lab("fake", "thaw", "fake")
    await lab("fake", "freeze", "fake", "--yes")
    lost = await lab("fake", "thaw", "fake")

    assert (nothing.code, nothing.errors) == (0, "fake: no file systems were frozen\n")
    assert lost.code == 7
    assert "none was frozen any more; what was copied meanwhile may be inconsistent" in lost.line


def test_every_endpoint_that_disrupts_has_a_command_that_asks_or_is_one_for_programs() -> None:
    names = {endpoint.name for endpoint in ENDPOINTS if endpoint.effect is Effect.DISRUPTS}
    asked = {command.removeprefix("guest-") for command in DISRUPTING.values()} | {f"vm-{action}" for action in ENDS}

    assert names - asked == {
        "exec", "agent", "exec-capture", "stream",
        "fsfreeze-with-lease",  # `freeze --lease`
        "shutdown-mode",  # `reboot` and `halt`, which Proxmox VE does not have: test_further_views.py
    }  # fmt: skip


async def test_thaw_and_trim_need_no_question(lab: Lab, fake: FakeGuest) -> None:
    fake.replies["guest-fstrim"] = {"paths": [{"path": "/", "trimmed": 2048, "minimum": 0}]}

    thawed = await lab("fake", "thaw", "fake")
    trimmed = await lab("fake", "trim", "fake")

    assert (thawed.code, thawed.output, thawed.errors) == (0, b"", "fake: 2 file systems were thawed\n")
    assert "2.0 KiB" in trimmed.text
    assert (await lab("fake", "thaw", "fake", "--json")).json == 2
    msgspec.json.decode((await lab("fake", "trim", "fake", "--json")).output, type=results.TrimResult)


@pytest.mark.parametrize(("second", "code"), [({"error": "not supported"}, 3), ({"trimmed": 4096}, 0)])
async def test_a_trim_of_nothing_is_exit_code_3(lab: Lab, fake: FakeGuest, second: dict[str, Any], code: int) -> None:
    fake.replies["guest-fstrim"] = {"paths": [{"path": "/", "error": "not supported"}, {"path": "/b", **second}]}

    for words in (["trim", "fake"], ["trim", "fake", "--json"]):
        done = await lab("fake", *words)
        assert (done.code, "not supported" in done.text) == (code, True)


async def test_a_shutdown_that_takes_longer_than_one_waits_is_exit_code_124(lab: Lab, fake: FakeGuest) -> None:
    fake.fault = honest  # it goes on answering

    done = await lab("fake", "shutdown", "fake", "--yes", "--wait", "0.3")

    assert done.code == 124
    assert "it still runs after 0.3 seconds; it may need longer, or its system ignores the request" in done.line
    assert "guest-shutdown" in fake.names()


async def test_a_password_comes_on_standard_input_and_is_shown_nowhere(lab: Lab, fake: FakeGuest) -> None:
    fake.replies["guest-set-user-password"] = {}

    done = await lab("fake", "passwd", "--stdin", "fake", "root", stdin="Tr0ub4dör\n".encode())
    refused = await lab("fake", "passwd", "fake", "root")

    assert (done.code, done.output, done.errors) == (0, b"", "fake: password of root changed\n")
    [given] = [one["arguments"] for one in fake.received if one["execute"] == "guest-set-user-password"]
    assert base64.b64decode(given["password"]).decode() == "Tr0ub4dör"
    assert (refused.code, "--stdin" in refused.line) == (2, True)


async def test_wait_ends_when_the_agent_answers_or_the_time_is_up(lab: Lab) -> None:
    assert (await lab("web", "wait", "web", "--json")).json == {}

    late = await lab("gone", "wait", "gone", "--timeout", "0.3")
    assert late.code == 124
    assert "not ready after 0.3 seconds" in late.line
    assert "guestwire doctor" in late.line


# Any call


async def test_raw_makes_any_call(lab: Lab) -> None:
    node = (await lab("web", "raw", "GET", "/nodes")).json[0]["node"]
    below = f"/api2/json/nodes/{node}/qemu/100/agent"

    assert (await lab("web", "raw", "get", f"{below}/get-host-name")).json == {"result": {"host-name": "web"}}
    asked = await lab("web", "raw", "POST", f"{below}/exec", "command=echo", "command=a=b")
    assert (asked.code, "may disrupt a guest" in asked.line) == (2, True)
    started = await lab("web", "raw", "--yes", "POST", f"{below}/exec", "command=echo", "command=a=b")
    assert (await _exited(lab, str(started.json["pid"]))).out_data == "a=b\n"


async def test_raw_knows_wrong_words(lab: Lab) -> None:
    assert "is none of" in (await lab("web", "raw", "PATCH", "/nodes")).line
    assert "is not K=V" in (await lab("web", "raw", "GET", "/nodes", "x")).line
    refused = await lab("web", "raw", "GET", "/version", "x=1")
    assert (refused.code, "x: " in refused.line) == (2, True)
    unknown = await lab("web", "raw", "DELETE", "/none", "--yes")
    assert (unknown.code, "not implemented" in unknown.line) == (3, True)


# Doctor


def steps(found: Any) -> list[tuple[str, str]]:
    assert all(step.keys() == {"step", "result", "found", "next"} for step in found)
    return [(step["step"], step["result"]) for step in found]


async def test_doctor_shows_what_is_well_and_which_commands_are_disabled(lab: Lab) -> None:
    people = await lab("web", "doctor", "web")
    found = (await lab("web", "doctor", "web", "--json")).json

    server = [] if lab.kind == "unix" else [(step, "ok") for step in ("address", "tls", "credentials", "server", "vm")]
    [version] = [step for step in found if step["step"] == "version"]
    assert steps([step for step in found if step is not version]) == [
        *server, ("agent", "ok"), ("privilege", "ok"), ("commands", "warning"),
    ]  # fmt: skip
    # This machine's agent may be any.
    assert (version["result"] == "warning") == bool(version["next"]) == (" is older than " in version["found"])
    assert people.code == 0
    assert "privilege    sufficient" in people.text
    if lab.server and not lab.server.limited:
        assert f"server       guestwire {package.__version__} (API of Proxmox VE " in people.text
    assert BLOCKED in people.text
    assert "next: in the guest" in people.text
    assert "block-rpcs=; then " in people.text


async def test_doctor_knows_an_agent_that_is_not_there(lab: Lab) -> None:
    done = await lab("gone", "doctor", "gone", "--json")

    assert done.code == 3
    *_, last = msgspec.json.decode(done.output)
    assert (last["step"], last["result"]) == ("agent", "failed")
    assert "QEMU guest agent is not running" in last["found"]
    assert ("check the path" if lab.kind == "unix" else "install qemu-guest-agent") in last["next"]


async def test_doctor_says_until_when_an_agent_answered_that_answers_no_more(lab: Lab) -> None:
    if lab.kind == "unix":
        pytest.skip("no server remembers it")
    before = int(time.time())
    assert (await lab("web", "ping", "web")).code == 0
    after = time.time()
    lab.agent.pause()
    try:
        pings = [await lab("web", "ping", "web") for _ in range(2)]
        done = await lab("web", "doctor", "web", "--json")
        [row] = [row for row in (await lab("web", "ls", "--json")).json if row["name"] == "web"]
    finally:
        lab.agent.resume()
    assert (await lab("web", "wait", "web", "--timeout", "60")).code == 0

    # The messages are Proxmox VE's all the same.
    assert {ping.code for ping in pings} == {3}
    assert all("got timeout" in ping.errors or "QEMU guest agent is not running" in ping.errors for ping in pings)
    last = json.loads(done.output)[-1]
    assert (last["step"], last["result"]) == ("agent", "failed")
    assert lab.server
    if lab.server.limited:  # Proxmox VE does not remember it
        assert "it answered until" not in last["next"] + pings[1].errors
        return
    assert "; it answered until 2" in pings[1].errors
    when = re.match(r"it answered until (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) ", last["next"])
    assert when, last
    assert before <= time.mktime(time.strptime(when[1], "%Y-%m-%d %H:%M:%S")) <= after
    assert before <= row["last_answer"] <= after
    [row] = [row for row in (await lab("web", "ls", "--json")).json if row["name"] == "web"]
    assert row["last_answer"] is None


async def test_doctor_knows_a_disabled_command(lab: Lab, fake: FakeGuest) -> None:
    fake.replies.pop("guest-info", None)

    done = await lab("fake", "doctor", "fake", "--json")

    assert done.code == 3
    *_, last = msgspec.json.decode(done.output)
    assert (last["step"], last["result"]) == ("command", "failed")
    assert "--block-rpcs" in last["next"]


# Completion


async def test_names_of_guests_complete_with_tab(lab: Lab) -> None:
    words = " ".join(["guestwire", *lab.options["web"], "ping", "w"])
    asking = {"_GUESTWIRE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}

    done = await guestwire(env={**lab.env, **asking})

    assert (done.output, done.errors) == (b"plain,web\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_a_script_for_the_shell(shell: str, lab: Lab) -> None:
    done = await guestwire("completion", shell, env=environment(lab.home))

    assert done.code == 0
    assert f"_GUESTWIRE_COMPLETE={shell}_complete" in done.text


# Without a host


async def test_api_lists_every_endpoint_with_privilege_and_effect_and_needs_no_host(lab: Lab) -> None:
    found = (await guestwire("api", "--json", env=environment(lab.home))).json
    people = await guestwire("api", env=environment(lab.home))

    assert {(row["method"], row["path"], row["effect"]) for row in found} == {
        (endpoint.method, endpoint.path, endpoint.effect.value) for endpoint in ENDPOINTS
    }
    assert people.text.count("\n") == len(found) + 1
    assert "VM.GuestAgent.FileRead or VM.GuestAgent.Unrestricted on /vms/{vmid}" in people.text


def _all(command: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """Every command and every group of commands, with the words that lead to it."""
    yield " ".join(names), command
    context = click.Context(command)
    for name in getattr(command, "list_commands", lambda _: ())(context):
        yield from _all(command.get_command(context, name), *names, name)


@pytest.mark.parametrize(
    ("names", "command"),
    list(_all(guestwire_group, "guestwire")),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_help_has_an_example(names: str, command: Any) -> None:
    assert "Example" in command.epilog
    assert re.search(rf"\b{names}\b", command.epilog)
