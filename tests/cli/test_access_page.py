"""Every command of docs/access.md runs, in its order, beside a server that runs; and does what the page says."""

import asyncio
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from access_calls import stranger
from calling import Answer, Client, agent, site, vm
from commands import on_terminal
from serving import Serving, start

from guestwire.testing import FakeGuest, SandboxedAgent

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "access.md"
PASSWORD = "Tr0ub4dor&3"
ADDRESS, STATE_DIR, BACKUP = "127.0.0.1:8006", "/var/lib/guestwire", "/var/backups"


def block_with(word: str) -> str:
    [found] = [
        block
        for block in re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        if word in block
    ]
    return str(found)


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100))) as server, FakeGuest(server.folder / "100.qga") as guest:
        guest.files["/etc/hosts"] = bytearray(b"127.0.0.1 localhost\n")
        yield server


def here(server: Serving, code: str) -> str:
    """The same commands, for a server that listens and keeps its state elsewhere."""
    state = shlex.quote(f"{server.folder}/state")
    code = re.sub(r"^guestwire (access|audit)", rf"guestwire \1 --state-dir {state}", code, flags=re.MULTILINE)
    code = code.replace("user password anna@pve", "user password anna@pve --stdin")
    command = f'guestwire() {{ {shlex.quote(sys.executable)} -m guestwire "$@"; }}\nset -e\n'
    return command + code.replace(ADDRESS, f"127.0.0.1:{server.port}").replace(STATE_DIR, state).replace(
        BACKUP, str(server.folder)
    )


async def run(server: Serving, code: str) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", here(server, code), stdin=pipe, stdout=pipe, stderr=pipe, cwd=server.folder
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate(f"{PASSWORD}\n".encode())
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def answers(server: Serving, token: str, path: str, wanted: int) -> None:
    """Within a few seconds the API answers this token so."""
    client = Client(server)
    client.authorization = f"Authorization: PVEAPIToken={token}"
    async with asyncio.timeout(5):
        while (await client.post(path)).status != wanted:
            await asyncio.sleep(0.05)


async def login(server: Serving) -> Answer:
    """The colleague's; one that fails takes three seconds."""
    async with asyncio.timeout(15):
        while True:
            answer = await stranger(server).post("/api2/json/access/ticket", username="anna@pve", password=PASSWORD)
            if answer.status == 200:
                return answer


async def restarts(server: Serving) -> None:
    server.process = await start(server.folder, {})
    await server.listens()


def on_its_way(code: str, word: str) -> tuple[str, str]:
    """What comes before and after the line with `word`."""
    before, after = re.split(rf"^.*{re.escape(word)}.*$", code, flags=re.MULTILINE)
    return before, after.strip()


@pytest.mark.skipif(not shutil.which("curl"), reason="the page uses curl")
async def test_the_commands_of_the_page_do_what_it_says(server: Serving) -> None:
    await run(server, block_with("role add Freeze"))
    token = (server.folder / "backup-token").read_text().strip()
    await answers(server, token, agent("fsfreeze-status"), 200)
    assert '"result":' in await run(server, block_with("curl"))
    await answers(server, token, agent("exec") + "?command=ls", 403)
    await answers(server, token, agent("fsfreeze-status", 103), 403)
    shown = await run(server, block_with("permissions --user"))
    assert shown.count("VM.GuestAgent.FileSystemMgmt") == 5
    assert "Freeze of user backup@pve on /pool/nightly, by way of pool nightly" in shown

    await run(server, block_with("user password"))
    assert (await login(server)).data["cap"]["vms"]["VM.GuestAgent.FileRead"]

    await run(server, block_with("--disable"))
    await answers(server, token, agent("fsfreeze-status"), 401)

    looks, after = on_its_way(block_with("guestwire audit"), "--follow")
    made = "POST /access/users/{userid}/token/{tokenid}"
    shown = await run(server, looks)
    assert made in shown
    assert re.search(r"backup@pve!job +127\.0\.0\.1 +100 +POST \S+/fsfreeze-freeze +200 +OK", shown)
    assert re.search(r"backup@pve!job +127\.0\.0\.1 +100 +POST \S+/exec +403 +Permission check failed", shown)
    follow = ("audit", "--state-dir", f"{server.folder}/state", "--follow")
    assert (await on_terminal(*follow, answers=((made, "\x03"),))).code == 0
    assert not after


async def test_the_token_of_the_page_reads_files_and_leaves_a_record(server: Serving, tmp_path: Path) -> None:
    await run(server, block_with("ReadFiles"))
    options = f"--host https://127.0.0.1:{server.port} --token-file reader-token --ca {server.folder}/state/server.pem"

    assert await run(server, f"guestwire {options} cat 100:/etc/hosts") == "127.0.0.1 localhost\n"
    await run(server, f"guestwire {options} cp 100:/etc/hosts {tmp_path}")
    shown = await run(server, "guestwire audit --user reader@pve")

    assert (tmp_path / "hosts").read_text() == "127.0.0.1 localhost\n"
    assert re.search(r"reader@pve!logs .*file-read +200 +OK, 20 bytes", shown)
    assert "403" not in shown


async def test_the_token_of_the_page_lists_folders_and_copies_trees_of_a_real_guest(tmp_path: Path) -> None:
    async with Serving.of(site(vm(100))) as server, SandboxedAgent(server.folder / "100.qga") as agent:
        (agent.home / "x/sub").mkdir(parents=True)
        (agent.home / "x/sub/f").write_text("deep")
        await run(server, block_with("ReadFiles"))
        host = f"--host https://127.0.0.1:{server.port} --token-file reader-token --ca {server.folder}/state/server.pem"

        assert re.search(r"^d\S+ .*sub *$", await run(server, f"guestwire {host} ls 100:/root/x"), re.MULTILINE)
        await run(server, f"guestwire {host} cp -r 100:/root/x {tmp_path}/x")
        shown = await run(server, "guestwire audit --user reader@pve")

    assert (tmp_path / "x/sub/f").read_text() == "deep"
    assert re.search(r'reader@pve!logs .*file-list +200 +OK, \d+ bytes +{"vmid": "100", "folder": "/root/x"', shown)
    assert re.search(r"reader@pve!logs .*file-read +200 +OK, 4 bytes", shown)
    assert "403" not in shown


async def test_the_page_takes_a_backup_and_puts_it_back(server: Serving) -> None:
    await run(server, "guestwire access group add kept\n")
    before, rest = on_its_way(block_with("access backup"), "systemctl stop")
    await run(server, before + "guestwire access group remove kept --yes\n")

    await server.stop()
    restore, after = on_its_way(rest, "systemctl start")
    await run(server, restore)
    await restarts(server)

    assert not after
    assert [group["groupid"] for group in (await Client(server).get("/api2/json/access/groups")).data] == ["kept"]


def test_every_command_of_the_page_is_run_by_one_of_these_tests() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    words = (
        "role add Freeze",
        "curl",
        "permissions --user",
        "ReadFiles",
        "user password",
        "--disable",
        "guestwire audit",
        "access backup",
    )
    assert [block_with(word) for word in words] == blocks
