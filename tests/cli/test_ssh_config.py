"""The lines of `guestwire ssh --config`: which guest they lead the real OpenSSH to, from where, and with names of every kind."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from calling import NODE, site, vm
from in_process import run
from reaching import ended, environment, started
from serving import Serving

from guestwire.cli.host_keys import guest_of, ssh_name
from guestwire.testing import SandboxedAgent

WITHIN = 30.0
PROGRAMS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def ssh(config: Path, name: str, folder: Path, env: Mapping[str, str]) -> str:
    """What ssh says, which can't log in."""
    line = ["ssh", "-F", str(config), "-o", "BatchMode=yes", "--", name, "true"]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=WITHIN)
    assert done.returncode == 255
    return done.stderr


@pytest.mark.agent
@pytest.mark.parametrize("way", ["options", "environment", "profile", "default profile"])
async def test_they_lead_there_from_any_folder_and_environment(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guests without an SSH server: the sentence about it has the guest's name, and comes from its agent."""
    async with (
        Serving.of(site(vm(100, "web"), vm(101, "db.example"))) as server,
        SandboxedAgent(server.folder / "100.qga", name="web"),
        SandboxedAgent(server.folder / "101.qga", name="db"),
    ):
        monkeypatch.chdir(server.folder)
        given = {
            "host": f"https://127.0.0.1:{server.port}",
            "token_file": "state/admin-token",
            "ca": "state/server.pem",
        }
        profile = tmp_path / "guestwire" / "config.toml"
        profile.parent.mkdir()
        table = "lab" if way == "profile" else "default"
        profile.write_text(f"[{table}]\n" + "".join(f'{name} = "{value}"\n' for name, value in given.items()))
        env = environment(tmp_path, XDG_CACHE_HOME=str(tmp_path), PATH=PROGRAMS)
        named = {f"GUESTWIRE_{name.upper()}": value for name, value in given.items()}
        options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
        root = {"options": options, "profile": ["--profile", "lab"]}.get(way, [])
        done = await ended(await started(*root, "ssh", "--config", env=env | (named if way == "environment" else {})))
        assert (done.code, done.errors) == (0, "")
        config = tmp_path / "ssh"
        config.write_bytes(done.output)

        names = ["web.guest", "100.guest", f"{NODE}+100.guest", "db.example.guest"]
        jobs = [asyncio.to_thread(ssh, config, name, Path("/"), env) for name in names]
        said = await asyncio.gather(*jobs)

    found = [re.match(r"guestwire: guest (.+) on https:\S+: no SSH host keys", one) for one in said]
    assert [one and one[1] for one in found] == ["web (100)", "100", "100", "db.example (101)"], said


async def lines(*root: str) -> str:
    done = await run([*root, "ssh", "--config"])
    assert (done.code, done.errors) == (0, b"")
    return done.output.decode()


async def test_a_socket_that_is_named_from_here_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert f"--host 'unix:{tmp_path}/vm/a.qga?qmp={tmp_path}/vm/a.qmp' proxy" in await lines(
        "--host", "unix:vm/a.qga?qmp=vm/a.qmp"
    )
    assert f"--host hybrid-vsock:{tmp_path}/a.vsock:1234 proxy" in await lines("--host", "hybrid-vsock:a.vsock:1234")


async def test_secrets_stay_in_the_environment() -> None:
    env = environment(Path("/nowhere"), GUESTWIRE_HOST="https://pve", GUESTWIRE_TOKEN="a@pve!b=secret")

    done = await ended(await started("ssh", "--config", env=env))

    assert b"--host https://pve proxy" in done.output
    assert b"secret" not in done.output
    assert "secrets of the environment are not in these lines" in done.errors


DOTTED = ["a.b", "release.2024", "v1.2.345", "pve1.100", "1.100", "a..b", ".a", "a.", "..", "web.guest", "10.0.0.1"]

ODD = [
    "a;touch hit;b.guest",
    "a$(touch hit)b.guest",
    "a`touch hit`b.guest",
    'a"b.guest',
    "a b.guest",
    "a|touch hit.guest",
]


@pytest.mark.parametrize("name", [*ODD, "a'b.guest"])
async def test_ssh_runs_no_name_as_a_command(name: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(await lines("--host", f"unix:{tmp_path}/none"))

    said = ssh(config, name, tmp_path, environment(tmp_path, PATH=PROGRAMS))

    assert "hostname contains invalid characters" in said
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize("name", [*ODD, "-x.guest", "a*b.guest"])
async def test_an_older_ssh_which_takes_any_name_runs_none_as_a_command(name: str, tmp_path: Path) -> None:
    """Such a one puts the name into the line, and has a shell run it."""
    text = await lines("--host", f"unix:{tmp_path}/none")
    [line] = re.findall(r"^ +ProxyCommand (.*)$", text, re.MULTILINE)
    shell = ["sh", "-c", line.replace("%n", name).replace("%%", "%")]
    env = environment(tmp_path, PATH=PROGRAMS)

    done = await asyncio.to_thread(
        subprocess.run, shell, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=WITHIN
    )

    assert re.fullmatch(rf"guestwire: guest {re.escape(name.removesuffix('.guest'))} on .*/none.*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


async def test_a_quote_is_left_to_other_lines() -> None:
    """It would end the quoted name, where an older ssh takes it."""
    [first, *_] = (await lines("--host", "unix:/none")).splitlines()

    assert first == 'Host *.guest "!*\'*"'


@pytest.mark.parametrize("name", ["../../x.guest", "/etc/x.guest", "web", ".guest", ""])
async def test_a_name_that_is_no_guests_is_refused(name: str, tmp_path: Path) -> None:
    done = await run(["--host", "unix:/none", "proxy", "--sshd", "--known-hosts", str(tmp_path / "here"), "--", name])

    assert done.code == 2
    assert b"is no guest's name for ssh; write web.guest, 100.guest or pve1+100.guest" in done.errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("guest", "name"),
    [
        ("web", "web.guest"),
        ("100", "100.guest"),
        ("pve1/100", "pve1+100.guest"),
        *((dotted, f"{dotted}.guest") for dotted in DOTTED),
    ],
)
def test_a_name_for_ssh_means_its_guest(guest: str, name: str) -> None:
    assert (ssh_name(guest), guest_of(name)) == (name, guest)


@pytest.mark.parametrize("name", DOTTED)
async def test_ssh_hands_on_a_name_with_dots_as_it_is(name: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(await lines("--host", f"unix:{tmp_path}/none"))
    env = environment(tmp_path, PATH=PROGRAMS, XDG_CACHE_HOME=str(tmp_path))

    said = await asyncio.to_thread(ssh, config, f"{name}.guest", tmp_path, env)

    assert said.startswith(f"guestwire: guest {name} on unix:{tmp_path}/none: QEMU guest agent is not running")


@pytest.mark.parametrize(("guest", "name"), [("my vm", "my_vm.guest"), ("-x;y", "_x_y.guest"), ("ü", "ü.guest")])
def test_a_guest_of_any_name_has_one_that_ssh_takes(guest: str, name: str) -> None:
    assert ssh_name(guest) == name


async def test_without_the_command_on_the_path_it_is_named_whole(tmp_path: Path) -> None:
    env = environment(tmp_path, PATH=str(tmp_path))
    done = await ended(await started("--host", "unix:/a", "ssh", "--config", env=env))

    assert f"ProxyCommand {sys.executable} -P -m guestwire --host unix:/a proxy" in done.text
    assert shutil.which("guestwire", path=PROGRAMS)
