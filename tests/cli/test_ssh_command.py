"""`guestwire ssh` with the real OpenSSH: into a Debian guest that has no network, with the guest's own users and keys."""

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from in_process import run
from reaching import ended, started

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

    async def __call__(self, *line: str, **more: str) -> tuple[int | None, str, str]:
        """Runs a program, with more in its environment, to its end."""
        process = await asyncio.create_subprocess_exec(
            *line,
            env=self._environment | more,
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


@pytest.fixture
async def config(ssh: Ssh) -> Path:
    """The lines for `~/.ssh/config`, in a file, and a key that may log in."""
    code, lines, _ = await ssh.guestwire("ssh", "--config")
    assert code == 0
    code, _, errors = await ssh.guestwire("ssh-key", "push", "web", "labuser", str(ssh.folder / "id.pub"))
    assert code == 0, errors
    config = ssh.folder / "config"
    config.write_text(f"{lines}    User labuser\n    IdentityFile {ssh.folder}/id\n    BatchMode yes\n")
    return config


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_its_lines_of_configuration_make_programs_work_as_they_are(ssh: Ssh, config: Path) -> None:
    """One login after the other: each takes seconds in an emulated guest."""
    data = ssh.folder / "data"
    (data / "below").mkdir(parents=True)
    (data / "large").write_bytes(os.urandom(300_000))
    (data / "below" / "a b'c").write_bytes(bytes(range(256)))
    here, through = str(ssh.folder), ("-F", str(config))

    done = [
        await ssh("scp", "-q", "-r", *through, str(data), "web.guest:/tmp/scp"),
        await ssh("rsync", "-a", "--delete", "-e", f"ssh -F {config}", "web.guest:/tmp/scp/", f"{here}/rsync"),
        await ssh("rsync", "-a", "-e", f"ssh -F {config}", f"{here}/rsync/", "web.guest:/tmp/rsync"),
        await ssh("sftp", "-q", "-r", *through, "web.guest:/tmp/rsync", f"{here}/sftp"),
    ]

    assert [(code, errors) for code, _, errors in done] == [(0, "")] * len(done), done
    assert tree(ssh.folder / "rsync") == tree(ssh.folder / "sftp") == tree(data)


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.raw: id -un
      register: as_it_is
    - ansible.builtin.script: script
      register: script
    - ansible.builtin.assert:
        that:
          - as_it_is.stdout_lines == ["labuser"]
          - script.stdout_lines == ["{checksum}"]
"""
"""What needs no Python in the guest, whose own has not all that Ansible's modules want. A script is copied there."""


@pytest.fixture
async def kept(ssh: Ssh, config: Path, folder: Path) -> AsyncIterator[Path]:
    """The lines of `--config` over a port of our own, with a connection that is kept for a while."""
    machine = ssh.machine
    with_port = f"'unix:{machine.agent_socket}?qmp={machine.qmp_socket}'"
    text = config.read_text().replace(f"unix:{machine.agent_socket}", with_port)
    config.write_text(f"{text}    ControlMaster auto\n    ControlPath {folder}/%C\n    ControlPersist 60\n")
    yield config
    await ssh("ssh", "-q", "-F", str(config), "-O", "exit", "web.guest")


async def test_ansible_works_over_them(ssh: Ssh, kept: Path) -> None:
    script = b'#!/bin/sh\nsha256sum "$0" | cut -c1-64\nexit\n' + os.urandom(100_000)
    (ssh.folder / "script").write_bytes(script)
    playbook = ssh.folder / "playbook.yml"
    playbook.write_text(PLAYBOOK.format(checksum=hashlib.sha256(script).hexdigest()))
    own = {"ANSIBLE_HOME": str(ssh.folder), "ANSIBLE_SSH_ARGS": f"-F {kept}", "LC_ALL": "C.UTF-8"}

    code, output, errors = await ssh("ansible-playbook", "-i", "web.guest,", str(playbook), **own)

    assert (code, "ok=3 " in output) == (0, True), output + errors


@pytest.mark.skipif(not shutil.which("git"), reason="this machine has no git")
async def test_git_works_over_them(ssh: Ssh, kept: Path) -> None:
    """The guest is made of this host's packages: the git that is installed here runs there, too."""
    guest_git = "/usr/bin/git"
    assert (await ssh("scp", "-q", "-F", str(kept), str(shutil.which("git")), "web.guest:/tmp/git"))[0] == 0
    await ssh.machine.shell(f"mv /tmp/git {guest_git}")
    await ssh.machine.shell(f"for one in upload-pack receive-pack; do ln -sf git {guest_git}-$one; done")
    await ssh.machine.shell("su labuser -c 'git init -q --bare -b main /tmp/site.git' 2>&1")
    own = {"GIT_SSH_COMMAND": f"ssh -F {kept}", "GIT_CONFIG_GLOBAL": "/dev/null"}
    there, here = "web.guest:/tmp/site.git", str(ssh.folder / "here")
    by_name = ["-c", "user.name=x", "-c", "user.email=x@example"]
    steps = [
        ["clone", "-q", there, here],
        ["-C", here, *by_name, "commit", "-q", "--allow-empty", "-m", "from here"],
        ["-C", here, "push", "-q", "origin", "HEAD:main"],
        ["clone", "-q", there, str(ssh.folder / "again")],
    ]

    done = [await ssh("git", *step, **own) for step in steps]
    code, subject, _ = await ssh("git", "-C", str(ssh.folder / "again"), "log", "--format=%s")

    assert ([one[0] for one in done], code, subject) == ([0] * len(steps), 0, "from here\n"), done


async def test_a_guest_without_an_ssh_server_is_one_sentence(machine: Machine) -> None:
    done = await ended(await started("--host", f"unix:{machine.agent_socket}", "ssh", "web", env=os.environ))

    assert done.code == 3
    assert "no SSH host keys in /etc/ssh; install an SSH server in the guest, as openssh-server" in done.line


async def test_nothing_of_it_stays_in_the_guest(ssh: Ssh) -> None:
    await ssh.guestwire("ssh", "--push-key", "labuser@web", *ssh.key, "true")

    async with asyncio.timeout(40):
        while await ssh.machine.shell("ls -d /run/guestwire-stream-* 2>/dev/null; pgrep -f 'sshd -i' || true"):
            await asyncio.sleep(0.2)


async def test_a_server_ends_with_an_ssh_that_was_killed(ssh: Ssh) -> None:
    """It says nothing then: the input of its proxy ends."""
    target = f"unix:{ssh.machine.agent_socket}?qmp={ssh.machine.qmp_socket}"

    done = await ended(await started("--host", target, "proxy", "--sshd", "112", env=os.environ))

    assert (done.output.startswith(b"SSH-2.0-"), done.errors) == (True, "")
    assert await ssh.machine.shell("pgrep -f 'sshd -i' || true") == ""


async def test_a_key_is_refused_where_none_is_there(ssh: Ssh) -> None:
    code, _, errors = await ssh.guestwire(
        "ssh", "--push-key", "labuser@web", "-o", f"IdentityFile={ssh.folder}/none", "true"
    )

    assert (code, "there is no public key to push" in errors) == (2, True)


async def test_a_guest_is_wanted() -> None:
    ended = await run(["ssh"])

    assert ended.code == 2
    assert b"a guest is missing" in ended.errors
