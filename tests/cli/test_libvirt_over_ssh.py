"""libvirt's VMs on another machine: a real SSH server, on this one, with a key, a port and a configuration of its own."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import ANSWERS_WITHIN
from reaching import Done, ended, environment, started
from serving import free_port

from devtools.libvirt_host import LibvirtHost
from guestwire.testing import SandboxedAgent

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MISSING = [name for name in ("sshd", "ssh", "ssh-keygen", "nc") if not shutil.which(name, path=PATH)]

pytestmark = [
    pytest.mark.agent,
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"these programs are missing: {', '.join(MISSING)}"),
]

CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host-key
AuthorizedKeysFile {folder}/user-key.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
"""


@pytest.fixture
async def uri(libvirt_host: LibvirtHost, folder: Path) -> AsyncIterator[str]:
    """The same libvirt, over SSH."""
    for name in ("host-key", "user-key"):
        made = await asyncio.create_subprocess_exec(
            "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)
        )
        assert await made.wait() == 0
    port = free_port()
    (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder))
    (folder / "run" / "sshd").mkdir(parents=True)
    daemon = await asyncio.create_subprocess_exec(
        "bwrap", "--dev-bind", "/", "/", "--bind", str(folder / "run"), "/run", "--cap-add", "ALL", "--die-with-parent",
        shutil.which("sshd", path=PATH) or "sshd", "-D", "-e", "-f", str(folder / "sshd_config"), stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(ANSWERS_WITHIN):
            while not await _listens(port):  # only asking tells
                await asyncio.sleep(0.05)
        options = f"keyfile={folder}/user-key&no_verify=1&socket={libvirt_host.sockets}/libvirt-sock"
        yield f"qemu+ssh://root@127.0.0.1:{port}/system?{options}"
    finally:
        daemon.kill()
        await daemon.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_the_vms_of_another_machine_are_listed_and_used(
    uri: str, libvirt_web: SandboxedAgent, folder: Path
) -> None:
    async def guestwire(*words: str) -> Done:
        return await ended(await started("--host", uri, *words, env=environment(folder)))

    (folder / "large").write_bytes(os.urandom(3_000_000))

    (web,) = [vm for vm in (await guestwire("ls", "--json")).json if vm["name"] == "web"]
    assert (web["status"], web["node"]) == ("running", "127-0-0-1")
    assert (await guestwire("ping", "web")).code == 0
    assert (await guestwire("exec", "web", "--", "sh", "-c", "echo $((6 * 7)); exit 3")) == Done(3, b"42\n", "")
    assert (await guestwire("cp", str(folder / "large"), "web:/root/large")).code == 0
    assert (libvirt_web.home / "large").read_bytes() == (folder / "large").read_bytes()
    assert (await guestwire("cp", "web:/root/large", str(folder / "back"))).code == 0
    assert (folder / "back").read_bytes() == (folder / "large").read_bytes()


async def test_a_machine_that_lets_nobody_in_is_named_with_sshs_own_reason(uri: str, folder: Path) -> None:
    (folder / "user-key.pub").write_text("")

    done = await ended(await started("--host", uri, "ls", env=environment(folder)))

    assert done.code
    assert "Permission denied" in done.line
