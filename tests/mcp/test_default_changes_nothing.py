"""Without options the server changes nothing in a guest: it is compared before and after each listed tool was called."""

from pathlib import Path
from typing import Any

import pytest
from assistants import assistant, text_of
from ways import Target

from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

SENSIBLE: dict[str, dict[str, Any]] = {
    "list_guests": {},
    "read_more": {"cursor": "x:0"},
    "ssh_get_authorized_keys": {"guest": "web", "username": "root"},
}
"""All other tools that only read are about a guest, and need no more."""

LACKING = ("there is one since QEMU", "no agent of this system", "has no keys yet", "Proxmox VE does not have it")
"""What is said of tools that this agent or host does not have."""


def home_of(agent: SandboxedAgent) -> dict[str, Any]:
    """Each file below the guest's home, /etc and the agent's state: what it is, its bytes, permissions and times."""
    root = agent.home.parent
    return {
        str(path.relative_to(root)): (
            path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None,
            *(getattr(path.lstat(), key) for key in ("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")),
        )
        for path in sorted(root.rglob("*"))
    }


def processes_of(agent: SandboxedAgent) -> list[tuple[int, str]]:
    """Processes in the guest: those in the agent's own namespace."""
    space = namespace(Path(f"/proc/{agent._pids()[0]}"))
    return sorted(
        (int(path.name), (path / "comm").read_text())
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and namespace(path) == space
    )


def namespace(process: Path) -> str:
    try:
        return str((process / "ns" / "pid").readlink())
    except OSError:
        return ""


async def test_the_default_changes_nothing_in_a_guest(target: Target, tmp_path: Path) -> None:
    (target.agent.home / "kept").write_text("kept")
    async with assistant(tmp_path, target.options) as ai:
        await ai.did("ping", guest="web")
        before = home_of(target.agent), processes_of(target.agent), target.agent.handles()
        called = set()
        for tool in (await ai.client.list_tools()).tools:
            assert tool.annotations
            assert tool.annotations.read_only_hint
            assert not tool.annotations.destructive_hint
            needed = set(tool.input_schema["required"]) - {"guest"}
            given = SENSIBLE.get(tool.name, {"guest": "web"})
            assert needed <= given.keys()
            result = await ai(tool.name, **given)
            assert not result.is_error or tool.name == "read_more", text_of(result)
            called.add(tool.name)
        after = home_of(target.agent), processes_of(target.agent), target.agent.handles()

    assert after == before
    assert len(before[1]) >= 1
    assert {"guest_overview", "diagnose", "ping", "list_guests", "get_fsinfo", "get_osinfo"} <= called
    assert [record["outcome"] for record in ai.records].count("ok") == len(called)


async def test_every_read_only_tool_changes_nothing_and_freezes_nothing(target: Target, tmp_path: Path) -> None:
    async with assistant(tmp_path, target.options, "--tools", "every") as ai:
        assert (await ai.did("fsfreeze_status", guest="web"))["result"] == "thawed"
        before = home_of(target.agent), processes_of(target.agent)
        for tool in await ai.names():
            result = await ai(tool, **SENSIBLE.get(tool, {"guest": "web"}))
            fails = tool == "read_more" or "memory" in tool or (tool.startswith("vm_") and "unix:" in target.options[1])
            lacks = any(words in text_of(result) for words in LACKING)
            assert not result.is_error or fails or lacks, text_of(result)
        assert (home_of(target.agent), processes_of(target.agent)) == before
        assert (await ai.did("fsfreeze_status", guest="web"))["result"] == "thawed"
