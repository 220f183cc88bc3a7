"""Every command of docs/cli.md runs, and what the page says of exit codes and JSON is so."""

import asyncio
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import click
import pytest
from calling import site, vm
from reaching import environment, guestwire
from serving import Serving

from guestwire.cli.processes import EXIT_CODES
from guestwire.cli.program import guestwire as guestwire_group
from guestwire.client import errors, processes
from guestwire.client.settings import settings_for
from guestwire.testing import CLOSE, Exchange, FakeGuest, Fault, SandboxedAgent
from guestwire.testing.fake import Action

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
TEXT = PAGE.read_text()
ADDRESS, STATE_DIR, SOCKETS = "127.0.0.1:8006", "/var/lib/guestwire", "/run/vm"
ALONE = tuple(
    f"guestwire {name}" for name in ("freeze", "thaw", "suspend", "shutdown", "trim", "set-time", "vcpus --online")
)
"""What a sandboxed agent must not be asked for: the fake one is."""


def blocks(language: str = "sh") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def leaving(fake: FakeGuest) -> Fault:
    """As a guest does that shuts down, or is suspended."""

    def fault(exchange: Exchange) -> list[Action]:
        name = exchange.request["execute"]
        if name == "guest-shutdown":
            fake.path.unlink()
        return [CLOSE] if name.startswith(("guest-shutdown", "guest-suspend")) else exchange.honest

    return fault


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Serving]:
    async with (
        Serving.of(site(vm(100, "web"), vm(101, "fake"))) as server,
        SandboxedAgent(server.folder / "100.qga", name="web"),
        SandboxedAgent(server.folder / "own.qga", name="web"),
        FakeGuest(server.folder / "101.qga") as fake,
    ):
        fake.fault = leaving(fake)
        fake.replies = {"guest-fsfreeze-freeze": 1, "guest-fsfreeze-thaw": 1, "guest-fstrim": {"paths": []}}
        root = {"name": "sda1", "mountpoint": "/", "type": "ext4", "disk": [], "used-bytes": 1, "total-bytes": 2}
        fake.replies |= {"guest-get-fsinfo": [root], "guest-set-time": {}, "guest-get-time": 1, "guest-set-vcpus": 4}
        yield server


def here(served: Serving, code: str) -> str:
    """The same commands, for a server that listens and keeps its state elsewhere."""
    code = code.replace(ADDRESS, f"127.0.0.1:{served.port}").replace(STATE_DIR, f"{served.folder}/state")
    code = code.replace(f"{SOCKETS}/100.qga", f"{served.folder}/own.qga").replace("uname -a", "echo ran")
    lines = [line.replace("web", "fake") if line.startswith(ALONE) else line for line in code.splitlines()]
    return "\n".join(lines)


async def run(served: Serving, code: str) -> str:
    (served.folder / "secret").write_text("Tr0ub4dor&3\n")
    (served.folder / "site.tar").write_bytes(b"any bytes")
    (served.folder / "site.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB me@here\n")
    pipe = asyncio.subprocess.PIPE
    command = f'guestwire() {{ {shlex.quote(sys.executable)} -m guestwire "$@"; }}\nset -ex\n'
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command + here(served, code), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        cwd=served.folder, env=environment(served.folder / "config"),
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            output, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            print((await process.communicate())[1].decode())
    assert process.returncode == 0, said.decode()
    return output.decode()


@pytest.mark.agent
async def test_every_command_of_the_page_does_what_it_is_there_for(served: Serving) -> None:
    output = await run(served, "\n".join(blocks()))

    for word in (
        "the agent answers",
        "127.0.0.1/8",
        "MOUNTED ON",
        "HELLO",
        "ran\n",
        "Host *.guest",
        '"vmid": 100, "line": "web"',
        "VM.GuestAgent.FileWrite",
        '"pid"',
    ):
        assert word in output, word
    assert (served.folder / "os-release").read_bytes() == Path("/etc/os-release").read_bytes()
    assert (served.folder / "backup").is_dir()
    assert re.search(r"^ok +agent", output, re.MULTILINE)


MISTAKES = (
    (("sl",), "See 'guestwire --help'"),
    (("osinfo",), "See 'guestwire osinfo --help'"),
    (("osinfo", "webb"), "`guestwire ls` lists"),
    (("ping", "999"), "`guestwire ls` lists"),
    (("exec", "web", "--", "no-such-program"), "no shell is between: for a command of a shell"),
    (("exec", "--timeout", "0.1", "web", "--", "sleep", "2"), "`guestwire status GUEST "),
    (("status", "web", "99999999"), "this agent did not start such a process"),
    (("proxy", "web", "9"), "guestwire exec GUEST -- ss -ltn"),
    (("logs", "web", "/nowhere"), "`guestwire ls GUEST:FOLDER`"),
    (("status", "web", "x"), "integer. See 'guestwire status --help'"),
    (("cat", "web:/nowhere"), "`guestwire ls GUEST:FOLDER`"),
    (("ls", "web:/nowhere"), "`guestwire ls GUEST:FOLDER`"),
    (("cp", "nowhere", "web:/root/x"), "check the path on this machine"),
    (("cp", "web:/etc", "."), "guestwire cp -r"),
    (("cp", "a", "b"), "See 'guestwire cp --help'"),
    (("freeze", "web"), "--yes"),
    (("passwd", "web", "root"), "--stdin"),
    (("raw", "GET", "/nothing"), "`guestwire api` lists"),
    (("completion",), "Choose from: bash, zsh, fish. See 'guestwire completion --help'"),
    (("mcp", "--allow", "nothing"), "See 'guestwire mcp --help'"),
    (("mcp", "--json"), "--check"),
    (("mcp", "--policy", "nothing.toml"), "name a file in TOML"),
    (("--token-file", "nothing", "ls"), "USER@REALM!NAME=SECRET"),
    (("--host", "https://127.0.0.1:1", "ls"), "check the address"),
    (("--host", "unix:/nothing.qga", "ping", "web"), "check the path, that QEMU runs"),
    (("--host", "x:y", "ls"), "write https://HOST:8006"),
)


@pytest.mark.agent
@pytest.mark.parametrize(("words", "next_step"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
async def test_an_error_says_what_to_do_next(served: Serving, words: tuple[str, ...], next_step: str) -> None:
    state = served.folder / "state"
    env = environment(
        served.folder / "config",
        GUESTWIRE_HOST=f"https://127.0.0.1:{served.port}",
        GUESTWIRE_CA=f"{state}/server.pem",
        GUESTWIRE_TOKEN_FILE=f"{state}/admin-token",
    )

    assert next_step in (await guestwire(*words, env=env)).line


def test_the_profile_of_the_page_can_be_used(tmp_path: Path) -> None:
    [profile] = blocks("toml")
    (tmp_path / "guestwire").mkdir()
    (tmp_path / "guestwire" / "config.toml").write_text(profile)

    settings = settings_for({}, profile="lab", environ={"XDG_CONFIG_HOME": str(tmp_path)})

    assert (settings.host, settings.ca) == ("https://pve1:8006", "/etc/ssl/lab.pem")


def test_the_page_names_every_command_that_works_in_guests() -> None:
    for command in set(guestwire_group.list_commands(click.Context(guestwire_group))) - {"access", "audit", "serve"}:
        assert re.search(rf"`{command}[` ]|guestwire {command}\b", TEXT), command


def test_page_and_help_have_the_same_exit_codes_and_these_are_the_errors() -> None:
    on_page = dict(re.findall(r"^\| (\d+) \| (.*) \|$", TEXT, re.MULTILINE))
    in_help = dict(re.findall(r"^  (\d+) +(.*)$", EXIT_CODES, re.MULTILINE))

    assert on_page == in_help
    kinds: dict[int, type[errors.CallFailed]] = {
        2: errors.WrongParameters, 3: errors.AgentUnavailable, 4: errors.NoSuchGuest, 5: errors.LoginFailed,
        6: errors.PrivilegeMissing, 7: errors.StillFrozen, 69: errors.Unreachable, 74: errors.LocalFile,
        124: processes.StillRunning,
    }  # fmt: skip
    assert {code: kind.exit_code for code, kind in kinds.items()} == {code: code for code in kinds}
    assert errors.NotReady.exit_code == 124
