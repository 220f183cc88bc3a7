"""Every endpoint's tool in a real guest; what it did is looked for over the guest's serial console, not through its agent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from assistants import ALL, Assistant, assistant
from calling import site
from listening import listening
from serving import Serving
from ways import options_for

from devtools.guests import Machine

pytestmark = pytest.mark.guest

TEXT = "by an assistant: grüße\n"
BOOTS_WITHIN = 90.0


@contextlib.asynccontextmanager
async def reached(way: str, machine: Machine) -> AsyncIterator[list[str]]:
    """What stands before the command to reach the guest one way; nobody else is connected to its agent."""
    await machine.wait_for_agent()
    if way == "unix":
        yield ["--host", f"unix:{machine.agent_socket}"]
        return
    text = (
        f'[[vm]]\nvmid = 100\nname = "web"\nagent = "unix:{machine.agent_socket}"\nqmp = "unix:{machine.qmp_socket}"\n'
    )
    async with Serving.of(site(text), limited=way == "limited") as server:
        yield options_for(server)


@contextlib.asynccontextmanager
async def over_http(_: Path, options: list[str], *more: str) -> AsyncIterator[Assistant]:
    async with listening(options, *more) as server, server.client() as ai:
        yield ai


# Each way to the guest and each transport to the assistant is here; tools know nothing of the latter.
@pytest.mark.parametrize(
    ("way", "connected"),
    [("unix", over_http), ("guestwire", assistant), ("limited", assistant)],
)
async def test_every_tool_does_its_work_in_a_real_guest(
    way: str, connected: Callable[..., AbstractAsyncContextManager[Assistant]], machine: Machine, tmp_path: Path
) -> None:
    async with reached(way, machine) as options, connected(tmp_path, options, *ALL) as ai:
        await reads(ai, machine)
        await writes(ai, machine)
        await freezes_and_thaws(ai, machine)
        await ai.did("set_user_password", guest="web", username="labuser", password="correct horse 43")
        await machine.shell("check-password labuser 'correct horse 43' && ! check-password labuser wrong")
        assert "correct horse" not in ai.path.read_text()


async def reads(ai: Assistant, machine: Machine) -> None:
    assert (await ai.did("ping", guest="web"))["done"]
    assert (await ai.did("get_osinfo", guest="web"))["kernel-release"] == (await machine.shell("uname -r")).strip()
    assert (await ai.did("get_host_name", guest="web"))["host-name"] == (await machine.shell("hostname")).strip()
    assert "eth0" in str(await ai.did("network_get_interfaces", guest="web"))
    assert "/mnt/data" in str(await ai.did("get_fsinfo", guest="web"))
    for name in ("get_memory_blocks", "get_memory_block_info", "get_users", "get_vcpus", "get_time", "get_timezone", "info", "agent_index"):  # fmt: skip
        await ai.did(name, guest="web")
    overview = await ai.did("guest_overview", guest="web")
    assert overview.get("problems") is None
    assert any(disk["mount"] == "/mnt/data" for disk in overview["disks"])


async def writes(ai: Assistant, machine: Machine) -> None:
    await ai.did("file_write", guest="web", file="/mnt/data/assistant", content=TEXT)
    assert bytes.fromhex(await machine.shell("od -An -tx1 -v /mnt/data/assistant | tr -d ' \\n'")) == TEXT.encode()
    assert (await ai.did("file_read", guest="web", file="/mnt/data/assistant"))["content"] == TEXT
    pid = (await ai.did("exec", guest="web", command=["sh", "-c", "echo out; exit 3"]))["pid"]
    while not (ended := await ai.did("exec_status", guest="web", pid=pid))["exited"]:
        pass
    assert (ended["exitcode"], ended["out-data"]) == (3, "out\n")


async def freezes_and_thaws(ai: Assistant, machine: Machine) -> None:
    await ai.did("fsfreeze_freeze", guest="web")
    assert "frozen" in str(await ai.did("fsfreeze_status", guest="web"))
    waits = "(touch /mnt/data/waits &) ; sleep 0.5; [ -n \"$(ps -o stat,args | grep '^D.*touch')\" ]"
    await machine.shell(waits)
    await ai.did("fsfreeze_thaw", guest="web")
    await machine.shell(
        "for n in 1 2 3 4 5 6 7 8 9; do [ -e /mnt/data/waits ] && break; sleep 0.2; done; rm /mnt/data/waits"
    )
    assert "/mnt/data" in str(await ai.did("fstrim", guest="web"))


@pytest.mark.ends_guest
async def test_a_real_guest_sleeps_and_shuts_down(at_its_end: Machine, tmp_path: Path) -> None:
    machine = at_its_end
    async with reached("guestwire", machine) as options, assistant(tmp_path, options, *ALL) as ai:
        await ai.did("suspend_ram", guest="web")
        await machine.wake()
        await answers(ai)
        hybrid = await ai("suspend_hybrid", guest="web")
        if not hybrid.is_error:
            await machine.wake()
            await answers(ai)
        await ai.did("suspend_disk", guest="web")
        await machine.wait_exit()
        await machine.start()
        await answers(ai)
        await ai.did("shutdown", guest="web")
        await machine.wait_exit()


async def answers(ai: Assistant) -> None:
    """Waits until the guest answers."""
    async with asyncio.timeout(BOOTS_WITHIN):
        while (await ai("ping", guest="web")).is_error:
            await asyncio.sleep(0.5)
