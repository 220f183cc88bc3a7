"""Agents of all ages and systems, and guests with odd facts, through the tools that only ask."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from assistants import assistant, text_of
from odd_agents import AGENTS

from guestwire.contract import Effect
from guestwire.mcp.all_tools import TOOLS
from guestwire.testing import FakeGuest


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeGuest]:
    async with FakeGuest(tmp_path / "fake.qga") as fake:
        yield fake


LACKS = ("has not been found", "there is one since QEMU", "no agent of this system")
ASKING = [
    tool.name
    for tool in TOOLS
    if tool.effect is Effect.READS and set(tool.input_schema["properties"]) == {"guest"} and tool.name != "agent_index"
]


@pytest.mark.parametrize("agent", AGENTS)
async def test_each_tool_answers_or_says_that_the_agent_lacks_the_command(
    fake: FakeGuest, tmp_path: Path, agent: str
) -> None:
    fake.replies = dict(AGENTS[agent])
    async with assistant(tmp_path, ["--host", f"unix:{fake.path}"], "--tools", "every") as ai:
        for tool in ASKING:
            result = await ai(tool, guest="fake")
            if tool.startswith("vm_"):
                assert result.is_error
                assert "for the VM itself name a server" in text_of(result)
            else:
                said = text_of(result)
                assert not result.is_error or any(words in said for words in LACKS), (tool, said)
        overview = await ai.did("guest_overview", guest="fake")
        commands = (await ai.did("diagnose", guest="fake"))["steps"][-1]

    assert commands["result"] == "ok", commands
    if "guest-network-get-interfaces" in fake.replies:
        (address,) = overview["addresses"]
        assert " 10.0.2." in address


async def test_a_host_of_containers_shows_the_address_that_others_reach_it_by(fake: FakeGuest, tmp_path: Path) -> None:
    def interface(name: str, *addresses: str) -> dict[str, object]:
        found = [{"ip-address": one, "ip-address-type": "ipv6", "prefix": 64} for one in addresses]
        return {"name": name, "ip-addresses": found}

    veths = [interface(f"veth{number}", f"fe80::{number}") for number in range(1, 40)]
    fake.replies["guest-network-get-interfaces"] = [
        interface("Loopback", "::1", "127.0.0.2"), *veths, interface("eth0", "fe80::100", "2001:db8::5"), interface("odd", "no address"),
    ]  # fmt: skip
    async with assistant(tmp_path, ["--host", f"unix:{fake.path}"]) as ai:
        found = await ai.did("guest_overview", guest="fake")
        fake.replies["guest-network-get-interfaces"] = veths[:1]
        alone = await ai.did("guest_overview", guest="fake")

    assert found["addresses"] == ["eth0 2001:db8::5/64"]
    assert "more" not in found
    assert alone["addresses"] == ["veth1 fe80::1/64"]


async def test_a_silent_guest_is_asked_once(fake: FakeGuest, tmp_path: Path) -> None:
    fake.fault = lambda exchange: exchange.honest if exchange.is_sync else []
    async with assistant(tmp_path, ["--host", f"unix:{fake.path}"]) as ai:
        said = await ai.refused("guest_overview", guest="fake")

    assert "timeout" in said
    assert set(fake.names()) <= {"guest-get-host-name", "guest-ping"}  # the channel looks whether it is there
