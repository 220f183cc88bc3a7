"""One function with its record is a whole endpoint: REST, client, tools under their policy, command line, audit, OpenAPI and reference."""

import asyncio
import json
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from made_up import SizeOfFile, made_up

from guestwire.access.authentication import secret_hash
from guestwire.access.control import Access
from guestwire.cli.generate_views import view_names
from guestwire.cli.views import ViewCommand
from guestwire.client.generate import asynchronous
from guestwire.client.hosts import Host, connect
from guestwire.contract import Registry
from guestwire.contract.guest_registry import GUEST_ENDPOINTS
from guestwire.contract.openapi import openapi
from guestwire.contract.reference import reference
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.inventory import Inventory, VmConfig
from guestwire.mcp.call_log import CallRecords
from guestwire.mcp.caller import Caller
from guestwire.mcp.gate import Answer, Gate
from guestwire.mcp.policy_file import read_policy
from guestwire.mcp.tool import Call
from guestwire.mcp.tools.endpoints import endpoint_tools
from guestwire.server import Gateway, Listener
from guestwire.stores import AuditRecord, MemoryStore, Token, User
from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

ALL = Registry(GUEST_ENDPOINTS, made_up)
TOKEN = "root@pam!t=secret"


class Served:
    """A server of all endpoints, with a real agent behind it."""

    def __init__(self, store: MemoryStore, port: int, host: Host) -> None:
        self.store = store
        self.port = port
        self.host = host

    async def last(self) -> AuditRecord:
        return (await self.store.audit())[-1]


@pytest.fixture
async def served(agent: SandboxedAgent) -> AsyncIterator[Served]:
    store = MemoryStore([User("root@pam"), Token("root@pam", "t", secret_hash("secret"), privsep=False)])
    inventory, writer = Inventory("pve1"), AuditWriter(store)
    await inventory.apply([VmConfig(vmid=100, name="web", agent=f"unix:{agent.socket}")])
    listener = Listener(Gateway(inventory, Access(store), AuditRecorder(writer), list(ALL)), "127.0.0.1", 0, None)
    await listener.bind()
    port = listener.start()
    try:
        async with await connect(f"http://127.0.0.1:{port}", token=TOKEN) as host:
            yield Served(store, port, host)
    finally:
        await listener.stop()
        await writer.close()
        await inventory.close()


async def test_rest_and_audit(served: Served, agent: SandboxedAgent) -> None:
    vm = "/nodes/pve1/qemu/100"
    assert await served.host.raw("GET", f"{vm}/agent/file-size", file="/etc/hostname") == {
        "size-in-bytes": len("guest100\n")
    }
    assert await served.store.audit() == []

    target = f"/root/{agent.home.name}-shout"
    given = {"target": target, "words": "planted-words", "code": "planted-code"}
    assert await served.host.raw("POST", f"{vm}/guestwire/shout", given) == {"size-in-bytes": 14}
    record = await served.last()
    assert (record.endpoint, record.vmid) == ("POST /nodes/{node}/qemu/{vmid}/guestwire/shout", 100)
    assert record.parameters.keys() == {"vmid", "target", "words-size", "words-sha256"}
    assert "planted" not in repr(record)


async def test_methods_of_the_client_have_the_right_results(served: Served) -> None:
    """The generated source is executed, and its class called."""
    module = types.ModuleType("generated")
    exec(asynchronous(ALL), vars(module))
    guest = await served.host.guest("web")
    methods: Any = module.Endpoints(guest._carrier, guest.node, guest.vmid, guest.context)

    assert await methods.file_size("/etc/hostname") == SizeOfFile(9)
    assert await methods.shout("/root/method", "hé", code="planted") == SizeOfFile(3)
    assert type(await methods.launch(["true"])) is int
    assert methods.file_size.__annotations__["return"] is SizeOfFile
    assert "The path in the guest." in methods.file_size.__doc__


POLICY = """\
allow = ["read"]
[[guest]]
guest = ["web"]
allow = ["files", "exec"]
read = ["/etc/hostname"]
write = ["/root/"]
run = [["true"]]
"""


class Tools:
    """The tools of all endpoints under a policy."""

    def __init__(self, host: Host, folder: Path, policy: str) -> None:
        (folder / "policy.toml").write_text(policy)
        tools = endpoint_tools(ALL)
        self.records = folder / "records.jsonl"
        self.gate = Gate(tools, read_policy(folder / "policy.toml", tools.levels()), CallRecords(self.records))
        self.caller = Caller(host)

    async def __call__(self, name: str, **arguments: Any) -> Answer:
        return await self.gate.call(Call(self.caller, self.gate.policy, name, {"guest": "web", **arguments}))


async def test_tools_obey_read_write_and_run_rules_by_role(
    served: Served, tmp_path: Path, agent: SandboxedAgent
) -> None:
    tools = Tools(served.host, tmp_path, POLICY)

    assert (await tools("file_size", file="/etc/hostname")).structured == {"size-in-bytes": 9}
    for path in ("/etc/passwd", "/etc/../etc/passwd", "/proc/self/root/etc/passwd"):
        assert "outside of the paths" in (await tools("file_size", file=path)).text
    assert (await tools("shout", target="/root/tool", words="hé")).structured == {"size-in-bytes": 4}
    assert (agent.home / "tool").read_bytes() == "hé!".encode()
    assert "outside of the paths" in (await tools("shout", target="/etc/passwd", words="x")).text
    assert (await tools("launch", program=["true"])).structured is not None
    assert "no pattern allows these arguments" in (await tools("launch", program=["id"])).text
    assert "needs 'power'" not in (await tools("file_size", file="/etc/hostname")).text


async def test_tools_are_recorded_without_their_secrets(served: Served, tmp_path: Path) -> None:
    tools = Tools(served.host, tmp_path, POLICY)

    await tools("shout", target="/root/tool", words="planted-words", code="planted-code")

    assert '"words-size": 13' in tools.records.read_text()
    assert "planted" not in tools.records.read_text()


async def test_a_dry_run_checks_the_roles_and_does_nothing(
    served: Served, tmp_path: Path, agent: SandboxedAgent
) -> None:
    tools = Tools(served.host, tmp_path, "dry_run = true\n" + POLICY)

    assert "dry run: nothing was done" in (await tools("shout", target="/root/dry", words="x")).text
    assert "outside of the paths" in (await tools("shout", target="/etc/dry", words="x")).text
    assert not (agent.home / "dry").exists()


def test_tools_have_the_level_of_their_privilege_and_their_schemas() -> None:
    tools = endpoint_tools(ALL)
    size = tools.get("file_size")

    assert size
    assert (size.level.value, size.description) == ("files", "Says how large a file is. Made up.")
    assert size.input_schema["required"] == ["guest", "file"]
    assert size.output_schema["properties"] == {"size-in-bytes": {"type": "integer"}}


def test_openapi_and_reference_have_them() -> None:
    document, page = openapi(ALL), reference(ALL)

    operation = document["paths"]["/api2/json/nodes/{node}/qemu/{vmid}/agent/file-size"]["get"]
    assert operation["summary"] == "Says how large a file is."
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["data"] == {
        "$ref": "#/components/schemas/SizeOfFile"
    }
    ours = document["paths"]["/api2/json/nodes/{node}/qemu/{vmid}/guestwire/shout"]["post"]
    assert ours["x-origin"] == "guestwire"
    assert "## POST /nodes/{node}/qemu/{vmid}/guestwire/launch" in page
    assert "| `target` | string | required |" in page


async def test_the_command_line_shows_it(served: Served) -> None:
    [endpoint] = [each for each in made_up if each.command]
    assert endpoint.command
    command = ViewCommand(endpoint.command.name, endpoint.command.help, lambda: endpoint)
    env = {"GUESTWIRE_HOST": f"http://127.0.0.1:{served.port}", "GUESTWIRE_TOKEN": TOKEN}

    async def run(*words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, command, words, env=env)

    assert (await run("web", "/etc/hostname")).output.split() == ["bytes", "9"]
    assert json.loads((await run("web", "/etc/hostname", "--json")).output) == {"size-in-bytes": 9}
    mistake = await run("web")
    assert (mistake.exit_code, "Missing argument 'FILE'" in mistake.output) == (2, True)
    assert "The path in the guest." in (await run("--help")).output
    assert '"size": ("Look at guests", "Show the size of /etc/hostname.")' in view_names(ALL)


async def test_what_proxmox_ve_lists_does_not_grow(served: Served) -> None:
    index = await served.host.raw("GET", "/nodes/pve1/qemu/100/agent")

    assert {"name": "file-read"} in index
    assert {"name": "file-size"} not in index
