"""`guestwire ssh` with the real OpenSSH: into a Debian guest that has no network, with the guest's own users and keys."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from in_process import run

from devtools.guests import Machine

pytestmark = [pytest.mark.guest, pytest.mark.slow]

ENDS_WITHIN = 120.0


class Ssh:
    """A folder with a key of its own, and the guest."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.folder = folder
        self.machine = machine
        self.key = ["-i", str(folder / "id"), "-o", "BatchMode=yes"]
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = os.environ | {"PATH": programs, "XDG_CACHE_HOME": str(folder)}
        self.root = ["--host", f"unix:{machine.agent_socket}"]

    async def __call__(self, *line: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *line,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(ENDS_WITHIN):
            output, errors = await process.communicate()
        return process.returncode, output.decode(), errors.decode()

    async def guestwire(self, *arguments: str) -> tuple[int | None, str, str]:
        return await self(sys.executable, "-m", "guestwire", *self.root, *arguments)

    async def authorized(self) -> str:
        return await self.machine.shell("cat /home/labuser/.ssh/authorized_keys 2>/dev/null || true")


@pytest.fixture
async def ssh(debian: Machine, tmp_path: Path) -> AsyncIterator[Ssh]:
    ssh = Ssh(tmp_path, debian)
    assert (await ssh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id")))[0] == 0
    yield ssh
    await debian.shell("rm -f /home/labuser/.ssh/authorized_keys")


async def test_a_pushed_key_logs_in_and_is_taken_away(ssh: Ssh) -> None:
    code, output, errors = await ssh.guestwire("ssh", "--push-key", "labuser@web", *ssh.key, "id -un; exit 7")

    assert (code, output, errors) == (7, "labuser\n", "")
    assert await ssh.authorized() == ""


async def test_a_key_that_could_log_in_before_stays(ssh: Ssh) -> None:
    code, _, errors = await ssh.guestwire("ssh-key", "push", "web", "labuser", str(ssh.folder / "id.pub"))
    assert code == 0, errors
    before = await ssh.authorized()

    code, _, errors = await ssh.guestwire("ssh", "--push-key", "labuser@web", *ssh.key, "true")

    assert (code, errors, await ssh.authorized()) == (0, "", before)


async def test_its_lines_of_configuration_make_ssh_and_scp_work_as_they_are(ssh: Ssh) -> None:
    code, lines, _ = await ssh.guestwire("ssh", "--config")
    assert code == 0
    config = ssh.folder / "config"
    config.write_text(lines)
    code, _, errors = await ssh.guestwire("ssh-key", "push", "web", "labuser", str(ssh.folder / "id.pub"))
    assert code == 0, errors
    data = ssh.folder / "data"
    data.write_bytes(os.urandom(300_000))
    options = ["-F", str(config), *ssh.key]

    there = await ssh("scp", "-q", *options, str(data), "labuser@web.guest:/tmp/data")
    back = await ssh("scp", "-q", *options, "labuser@web.guest:/tmp/data", str(ssh.folder / "back"))

    assert (there, back) == ((0, "", ""), (0, "", ""))
    assert (ssh.folder / "back").read_bytes() == data.read_bytes()


async def test_nothing_of_it_stays_in_the_guest(ssh: Ssh) -> None:
    await ssh.guestwire("ssh", "--push-key", "labuser@web", *ssh.key, "true")

    async with asyncio.timeout(40):
        while await ssh.machine.shell("ls -d /run/guestwire-stream-* 2>/dev/null; pgrep -f 'sshd -i' || true"):
            await asyncio.sleep(0.2)


async def test_a_key_is_refused_where_none_is_there(ssh: Ssh) -> None:
    code, _, errors = await ssh.guestwire(
        "ssh", "--push-key", "labuser@web", "-o", f"IdentityFile={ssh.folder}/none", "true"
    )

    assert (code, "there is no public key to push" in errors) == (2, True)


async def test_a_guest_is_wanted() -> None:
    ended = await run(["ssh"])

    assert ended.code == 2
    assert b"a guest is missing" in ended.errors
