"""Guests whose names are those of others, or look like ids."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from assistants import Assistant, assistant
from calling import site, vm
from holding import held
from mcp_types import ResourceTemplateReference
from serving import Serving
from ways import options_for

from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

POLICY = """\
allow = ["read"]
[[guest]]
guest = [100]
allow = ["files"]
[[guest]]
guest = [104, "hid*"]
allow = []
"""


@pytest.fixture(scope="module")
async def confused() -> AsyncIterator[Assistant]:
    """Two guests are named web, one is named as the id of another, one has no name, and two are hidden."""
    vms = (vm(100, "web"), vm(101, "web"), vm(102, "100"), vm(103), vm(104, "mail"), vm(105, "hidden"))
    async with (
        Serving.of(site(*vms)) as server,
        SandboxedAgent(server.folder / "100.qga", name="first"),
        SandboxedAgent(server.folder / "102.qga", name="third"),
    ):
        with tempfile.TemporaryDirectory(prefix="gw-") as name:
            (Path(name) / "policy.toml").write_text(POLICY)
            async with held(assistant(Path(name), options_for(server), "--policy", f"{name}/policy.toml")) as ai:
                yield ai


@pytest.mark.parametrize(("name", "host"), [("100", "first"), ("pve1/100", "first"), ("102", "third")])
async def test_an_id_means_the_vm_that_has_it(confused: Assistant, name: str, host: str) -> None:
    assert (await confused.did("guest_overview", guest=name))["host_name"] == host


async def test_a_rule_for_an_id_is_none_for_a_vm_of_that_name(confused: Assistant) -> None:
    assert (await confused.did("read_text_file", guest="100", path="/etc/hostname"))["text"]
    assert "needs 'files'" in await confused.refused("read_text_file", guest="102", path="/etc/hostname")


async def test_a_name_of_two_is_refused_with_what_to_do(confused: Assistant) -> None:
    assert "several guests have this name; use the VMID" in await confused.refused("ping", guest="web")


async def test_resources_and_completion_name_each_guest_once_and_so_that_it_is_found(confused: Assistant) -> None:
    uris = [one.uri for one in (await confused.client.list_resources()).resources]
    assert sorted(uris) == [f"guest://{name}/overview" for name in ("100", "101", "102", "VM%20103")]
    reference = ResourceTemplateReference(uri="guest://{name}/overview")
    completed = (await confused.client.complete(reference, {"name": "name", "value": "1"})).completion
    assert sorted(completed.values) == ["100", "101", "102"]
    content = (await confused.client.read_resource("guest://100/overview")).contents[0]
    assert '"host_name":"first"' in getattr(content, "text", "")


async def test_a_rule_for_an_id_is_none_for_a_socket_of_another_name(folder: Path) -> None:
    policy = folder / "policy.toml"
    policy.write_text('allow = ["read"]\n[[guest]]\nguest = [100, 104]\nallow = ["files"]\n')
    for name, allowed in (("100", True), ("104", True), ("db", False), ("101", False)):
        async with (
            SandboxedAgent(folder / f"{name}.qga"),
            assistant(folder, ["--host", f"unix:{folder}/{name}.qga"], "--policy", str(policy)) as ai,
        ):
            (guest,) = (await ai.did("list_guests"))["guests"]
            assert ("files" in guest["allowed"]) is allowed
            result = await ai("read_text_file", guest=name, path="/etc/hostname")
            assert result.is_error is not allowed


async def test_an_overview_of_a_guest_without_agent_says_what_to_do(confused: Assistant) -> None:
    assert "install and start qemu-guest-agent" in await confused.refused("guest_overview", guest="103")
