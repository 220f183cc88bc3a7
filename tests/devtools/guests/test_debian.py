"""The Debian guest: systemd, the agent and OpenSSH come up without a network, and what terminals are tried with is there."""

from collections.abc import AsyncIterator

import pytest

from devtools.guests import Machine, build_debian, default_cache
from guestwire import Guest, connect

pytestmark = pytest.mark.guest

BOOTS_WITHIN = 60.0


@pytest.fixture
async def inside(debian: Machine) -> AsyncIterator[Guest]:
    async with await connect(f"unix:{debian.agent_socket}") as host:
        yield await host.guest("debian")


async def _output(guest: Guest, script: str) -> str:
    done = await guest.run(["sh", "-ec", script], check=True)
    return done.output.strip()


async def test_systemd_comes_up_with_every_unit(inside: Guest) -> None:
    done = await inside.run(["systemctl", "is-system-running", "--wait"], timeout=BOOTS_WITHIN)
    failed = await inside.run(["systemctl", "--failed", "--plain", "--no-legend"])

    assert (done.output.strip(), failed.output) == ("running", "")


async def test_it_has_no_network(inside: Guest) -> None:
    assert await _output(inside, "ls /sys/class/net") == "lo"


@pytest.mark.parametrize("program", ["bash", "less", "python3", "rsync", "script", "sftp", "tmux", "top", "vim"])
async def test_what_terminals_and_copies_are_tried_with_is_there(inside: Guest, program: str) -> None:
    assert await _output(inside, f"command -v {program}") == f"/usr/bin/{program}"


async def test_the_journal_tells_of_the_boot(inside: Guest) -> None:
    lines = await _output(inside, "journalctl --boot --unit ssh --no-pager --output cat")

    assert "Server listening on" in lines


async def test_a_key_that_the_agent_put_there_logs_in_and_no_other(inside: Guest) -> None:
    await _output(inside, "rm -f /tmp/key*; ssh-keygen -q -t ed25519 -N '' -f /tmp/key")
    key = await _output(inside, "cat /tmp/key.pub")
    login = "ssh -q -i /tmp/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null labuser@127.0.0.1 'id -un; pwd'"

    refused = await inside.run(["sh", "-c", login])
    await inside.ssh_add_authorized_keys("labuser", [key])
    accepted = await _output(inside, login)
    await inside.ssh_remove_authorized_keys("labuser", [key])

    assert (refused.code, accepted) == (255, "labuser\n/home/labuser")


async def test_the_configuration_of_sshd_is_valid_and_its_host_keys_are_its_own(inside: Guest) -> None:
    await _output(inside, "sshd -t")
    derived = await _output(inside, "ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key")
    public = await _output(inside, "cat /etc/ssh/ssh_host_ed25519_key.pub")

    assert derived.split()[1] == public.split()[1]


async def test_machines_of_one_image_keep_what_they_write_for_themselves(inside: Guest) -> None:
    image = build_debian(default_cache())
    assert image.disk is not None
    before = image.disk.stat().st_mtime_ns

    await _output(inside, "echo mine > /etc/mine; sync; test -s /etc/mine")

    assert image.disk.stat().st_mtime_ns == before
