"""What docs/mcp.md says is so: its configurations start the server, its policy is one, and its roles are enough and no more."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from assistants import ALL, assistant, text_of
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from serving import Serving
from ways import ca_of

from guestwire.contract import Effect, Level
from guestwire.mcp.all_tools import TOOLS
from guestwire.mcp.policy_file import read_policy
from guestwire.mcp.tool import Tool
from guestwire.testing import CLOSE, Exchange, FakeGuest, SandboxedAgent
from guestwire.testing.fake import Action

pytestmark = pytest.mark.agent

PAGE = (Path(__file__).parent.parent.parent / "docs" / "mcp.md").read_text()
ROLES = dict(re.findall(r'^pveum role add (\w+) --privs "(.*)"$', PAGE, re.MULTILINE))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


# Configurations


@pytest.fixture
def environment(server: Serving, served_agent: SandboxedAgent, tmp_path: Path) -> dict[str, str]:  # noqa: ARG001  # it runs
    """A home with the token in its place, and `guestwire` among the programs."""
    token = tmp_path / ".config" / "guestwire" / "assistant.token"
    token.parent.mkdir(parents=True)
    token.touch(0o600)
    token.write_text(server.token)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"HOME": str(tmp_path), "PATH": path, "GUESTWIRE_CA": ca_of(server)}


CONFIGURATIONS = [
    server for text in blocks("json") for servers in json.loads(text).values() for server in servers.values()
]


@pytest.mark.parametrize("given", CONFIGURATIONS)
async def test_every_configuration_gives_an_assistant_tools(
    given: dict[str, Any], server: Serving, environment: dict[str, str]
) -> None:
    words = [word.replace("https://pve1:8006", f"https://127.0.0.1:{server.port}") for word in given["args"]]
    started = StdioServerParameters(command=given["command"], args=words, env=environment | given["env"])
    async with Client(started) as client:
        answer = await client.call_tool("guest_overview", {"guest": "web"})

    assert answer.structured_content, answer
    assert answer.structured_content["host_name"] == "web"


async def test_the_program_of_the_page_runs(agent: SandboxedAgent, environment: dict[str, str]) -> None:
    code = blocks("python")[0].replace("/run/vm/100.qga", str(agent.socket))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        output, errors = await process.communicate()

    assert b"'host_name': 'guest100'" in output, errors.decode()


def test_the_policy_of_the_page_is_one(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(blocks("toml")[0].replace("/srv/exchange", str(tmp_path)))
    policy = read_policy(tmp_path / "policy.toml", TOOLS.levels())

    assert policy.rule_for(1, "web-3").levels == {Level.READ, Level.FILES, Level.EXEC, Level.MANAGE}
    assert policy.rule_for(1, "db-1").levels == set()
    assert policy.rule_for(1, "else").levels == {Level.READ}


# Levels and privileges


def test_the_table_of_levels_names_the_tools_that_people_use() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    assert [level for level, _ in rows] == [level.value for level in Level]
    for level, text in rows:
        for name in re.findall(r"`(\w+)`", text):
            assert next(tool for tool in TOOLS if tool.name == name).level.value == level


def leaves(exchange: Exchange) -> list[Action]:
    """As a guest does that shuts down, or is suspended: it says no more."""
    return [CLOSE] if exchange.request["execute"].startswith(("guest-shutdown", "guest-suspend")) else exchange.honest


@pytest.fixture
async def fake(server: Serving) -> AsyncIterator[FakeGuest]:
    """The things that a sandbox must not do."""
    replies: dict[str, Any] = {"guest-fsfreeze-freeze": 2, "guest-fsfreeze-thaw": 2, "guest-fstrim": {"paths": []}}
    replies |= {"guest-get-memory-blocks": [], "guest-get-memory-block-info": {"size": 1}}
    async with FakeGuest(server.folder / "101.qga", replies=replies, fault=leaves) as fake:
        yield fake


@pytest.fixture(scope="module")
async def tokens(server: Serving) -> dict[str, Path]:
    """A token file for each role of the page, made by the commands of the page."""
    return {role: await token_for(server, role, privileges) for role, privileges in ROLES.items()}


async def token_for(server: Serving, role: str, privileges: str) -> Path:
    text = next(block for block in blocks("sh") if "guestwire access" in block)
    text = text.replace("VM.Audit,VM.GuestAgent.Audit", privileges.replace(" ", ","))
    text = text.replace("/vms/100", "/vms").replace("AssistantRead", role).replace("assistant@pve", f"{role}@pve")
    access = f"{sys.executable} -m guestwire access --state-dir {server.folder}/state"
    text = text.replace("guestwire access", access).replace("--out assistant.token", f"--out {role}.token")
    process = await asyncio.create_subprocess_exec("sh", "-euc", f"umask 077\n{text}", cwd=server.folder)
    assert await process.wait() == 0
    return server.folder / f"{role}.token"


CALLS: dict[str, list[dict[str, Any]]] = {
    "file_write": [{"file": "/root/least", "content": "a\n"}],
    "file_read": [{"file": "/root/least"}],
    "read_text_file": [{"path": "/root/least"}, {"path": "/root/least", "tail": 1}],
    "write_text_file": [{"path": "/root/least", "content": "b\n", "backup": True}],
    "list_directory": [{"path": "/root"}],
    "copy_file": [
        {"direction": "from_guest", "local": "f", "path": "/root/least"},
        {"direction": "to_guest", "local": "f", "path": "/root/least"},
    ],
    "file_append": [{"file": "/root/least", "content": "c\n"}],
    "ssh_get_authorized_keys": [{"username": "root"}],
    "follow_log": [{"file": "/root/least", "seconds": 1}],
    "exec": [{"command": ["true"]}],
    "exec_capture": [{"command": ["true"], "env": ["A=b"]}],
    "run_command": [{"command": ["true"]}],
}
"""Parameters beside the guest's name."""

OTHERWISE = {
    "read_more", "exec_status",
    "set_user_password", "ssh_add_authorized_keys", "ssh_remove_authorized_keys", "set_time", "set_vcpus", "set_memory_blocks",
}  # fmt: skip
"""One needs a cursor, one a pid, and the others another privilege than their level."""

LACKING = ("there is one since QEMU", "no agent of this system", "has no keys yet")
"""What the agent of a sandbox, which may be old, says to some: it was asked."""


def of_level(level: Level) -> list[Tool]:
    known = [tool for tool in TOOLS if tool.level is level and tool.name not in OTHERWISE]
    return sorted(known, key=lambda tool: (tool.name != "file_write", tool.effect is Effect.DISRUPTS))


@pytest.mark.parametrize("level", Level)
async def test_the_role_of_a_level_is_enough_for_its_tools(
    level: Level,
    tokens: dict[str, Path],
    server: Serving,
    served_agent: SandboxedAgent,  # noqa: ARG001  # it runs
    fake: FakeGuest,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    guest = "fake" if level in (Level.MANAGE, Level.POWER) else "web"
    async with connected(server, tokens[f"Assistant{level.value.title()}"], tmp_path) as ai:
        for tool in of_level(level):
            given = {"guest": guest} if "guest" in tool.input_schema["properties"] else {}
            for more in CALLS.get(tool.name, [{}]):
                result = await ai(tool.name, **given, **more)
                said = text_of(result)
                assert not result.is_error or any(words in said for words in LACKING), said


@pytest.mark.parametrize("level", [Level.FILES, Level.EXEC, Level.MANAGE, Level.POWER])
async def test_the_role_of_reading_is_not(
    level: Level,
    tokens: dict[str, Path],
    server: Serving,
    served_agent: SandboxedAgent,  # noqa: ARG001  # it runs
    tmp_path: Path,
) -> None:
    (tmp_path / "f").write_text("here")
    async with connected(server, tokens["AssistantRead"], tmp_path) as ai:
        for tool in of_level(level):
            said = await ai.refused(tool.name, guest="web", **CALLS.get(tool.name, [{}])[-1])
            assert "VM." in said


async def test_files_without_programs_are_read_and_written_as_the_page_says(
    server: Serving,
    served_agent: SandboxedAgent,  # noqa: ARG001  # it runs
    tmp_path: Path,
) -> None:
    privileges = "VM.Audit VM.GuestAgent.Audit VM.GuestAgent.FileRead VM.GuestAgent.FileWrite"
    assert "`VM.GuestAgent.FileRead VM.GuestAgent.FileWrite` alone" in " ".join(PAGE.split())
    async with connected(server, await token_for(server, "Plain", privileges), tmp_path) as ai:
        for tool in ("file_write", "file_read", "read_text_file"):
            await ai.did(tool, guest="web", **CALLS[tool][0])


def connected(server: Serving, token: Path, folder: Path) -> Any:
    host = ["--host", f"https://127.0.0.1:{server.port}", "--token-file", str(token), "--ca", ca_of(server)]
    return assistant(folder, host, *ALL, "--copy-folder", str(folder))
