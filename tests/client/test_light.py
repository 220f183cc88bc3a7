"""The client is light: what connects to a server over HTTPS loads nothing of the server, and nothing of an agent's socket."""

import asyncio
import subprocess
import sys

import pytest
from serving import Serving
from ways import ca_of

from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

CODE = """
import asyncio, sys
import guestwire, guestwire.client

async def main(target, token, ca):
    async with await guestwire.connect(target, token=token, ca=ca) as host:
        guest = await host.guest("web")
        await guest.ping()
        await guest.write_file("/root/light", b"light" * 100_000)
        assert (await guest.run(["wc", "-c", "/root/light"], check=True)).output.startswith("500000")
        assert [entry.path for entry in await guest.folders.listdir("/root") if entry.path == "light"]

asyncio.run(main(*sys.argv[1:]))
print(*sys.modules)
"""


@pytest.fixture(scope="module")
async def loaded(server: Serving, served_agent: SandboxedAgent) -> set[str]:
    """The modules that a fresh interpreter has loaded when it has worked with a guest."""
    command = [sys.executable, "-c", CODE, f"https://127.0.0.1:{server.port}", server.token, ca_of(server)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    (served_agent.home / "light").unlink()
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "part",
    [
        "guestwire.channels", "guestwire.stores", "guestwire.server", "guestwire.inventory", "guestwire.app", "guestwire.mcp", "guestwire.cli",
        "cryptography", "argon2", "qemu", "mcp", "uvloop", "anyio", "click", "rich", "pamela",
    ],
)  # fmt: skip
def test_a_part_that_it_does_not_need_is_not_loaded(loaded: set[str], part: str) -> None:
    assert "guestwire.client.transfer.upload" in loaded
    assert [name for name in loaded if f"{name}.".startswith(f"{part}.")] == []


async def test_a_target_with_a_qmp_socket_says_what_it_needs() -> None:
    code = "import sys; sys.modules['qemu'] = None; from guestwire.cli import main; main()"
    command = [sys.executable, "-c", code, "--host", "unix:/run/none.qga?qmp=/run/none.qmp", "ping", "web"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 78  # EX_CONFIG
    assert "pip install 'guestwire[server]'" in done.stderr
