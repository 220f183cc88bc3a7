"""Exporters, inventories, assistants' servers and libraries of others, unchanged, each against a real server with a real agent."""

import asyncio
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from foreign import CLIENTS, ENDS_WITHIN, installed, lab, run, token_of
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from serving import Serving, free_port
from ways import ca_of

pytestmark = [pytest.mark.agent, pytest.mark.slow]


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with lab() as server:
        yield server


# Prometheus


async def test_prometheus_pve_exporter_measures_node_and_vms(server: Serving, folder: Path) -> None:
    user, name, secret = token_of(server)
    config = {"default": {"user": user, "token_name": name, "token_value": secret, "verify_ssl": False}}
    (folder / "pve.yml").write_text(json.dumps(config))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pve_exporter", "--config.file", str(folder / "pve.yml"), "--web.listen-address", f"127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await listens(port)
        address = f"http://127.0.0.1:{port}/pve?target=127.0.0.1:{server.port}&cluster=1&node=1"
        async with aiohttp.ClientSession() as session, session.get(address) as answer:
            metrics = await answer.text()
    finally:
        process.terminate()
        await process.wait()

    assert answer.status == 200, metrics
    for line in (
        'pve_up{id="qemu/100"} 1.0',
        'pve_up{id="qemu/101"} 0.0',
        'pve_up{id="node/pve1"} 1.0',
        'pve_node_info{id="node/pve1",level="",name="pve1",nodeid="0"} 1.0',
        'pve_subscription_status{id="node/pve1",status="notfound"} 1.0',
        "pve_not_backed_up_total",
        "pve_version_info",
        'pve_memory_size_bytes{id="node/pve1"}',
    ):
        assert line in metrics, f"{line} is not in\n{metrics}"
    assert 'name="web"' in metrics
    assert 'tags="prod;web-tier"' in metrics


async def listens(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            await asyncio.sleep(0.05)


async def test_prometheus_pve_sd_finds_vms_with_their_tags_and_what_their_description_says(
    server: Serving, folder: Path
) -> None:
    user, name, secret = token_of(server)
    pve = {
        "SERVER": f"127.0.0.1:{server.port}", "USER": user, "TOKEN_NAME": name, "TOKEN_VALUE": secret, "VERIFY_SSL": "true",
    }  # fmt: skip
    environment = {
        "PROMETHEUS_PVE_SD_METRICS_ENABLED": "false", "REQUESTS_CA_BUNDLE": ca_of(server), "HOME": str(folder),
        **{f"PROMETHEUS_PVE_SD_PVE_{key}": value for key, value in pve.items()},
    }  # fmt: skip
    program = Path(sys.executable).with_name("prometheus-pve-sd")

    await run(program, "--no-service", "-o", folder / "found.json", folder=folder, **environment)

    found = {one["labels"]["__meta_pve_name"]: one["labels"] for one in json.loads((folder / "found.json").read_text())}
    assert found["web"]["__meta_pve_status"] == "running"
    assert found["web"]["__meta_pve_groups"] == "shop"
    assert "web-tier" in found["web"]["__meta_pve_tags"]


# Ansible's collection for Proxmox VE


@pytest.fixture
def community(server: Serving, folder: Path) -> dict[str, str]:
    """The environment in which Ansible has it, and the files that it wants."""
    user, name, secret = token_of(server)
    source = {
        "plugin": "community.proxmox.proxmox", "url": f"https://127.0.0.1:{server.port}", "validate_certs": True,
        "user": user, "token_id": name, "token_secret": secret, "want_facts": True, "want_proxmox_nodes_ansible_host": False,
        "group_prefix": "", "keyed_groups": [{"key": "proxmox_tags_parsed", "prefix": "tag"}],
    }  # fmt: skip
    (folder / "lab.proxmox.yml").write_text(json.dumps(source))
    return {
        "REQUESTS_CA_BUNDLE": ca_of(server),
        "ANSIBLE_COLLECTIONS_PATH": str(CLIENTS / "ansible"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_NOCOLOR": "1",
    }


@installed("ansible")
async def test_community_proxmox_lists_vms_with_facts(community: dict[str, str], folder: Path) -> None:
    found = json.loads(
        await run(
            sys.executable,
            "-m",
            "ansible",
            "inventory",
            "-i",
            "lab.proxmox.yml",
            "--list",
            "--export",
            folder=folder,
            **community,
        )
    )

    web = found["_meta"]["hostvars"]["web"]
    assert web["proxmox_vmid"] == 100
    assert text(web["proxmox_status"]) == "running"
    assert [text(tag) for tag in web["proxmox_tags_parsed"]] == ["prod", "web-tier"]
    assert [text(one["name"]) for one in web["proxmox_agent_interfaces"]] == ["lo"]
    assert found["all_running"]["hosts"] == found["tag_prod"]["hosts"] == ["web"]
    assert found["all_stopped"]["hosts"] == ["VM 101"]


def text(value: Any) -> Any:
    """A text of an inventory, without the mark that it is no template."""
    return value["__ansible_unsafe"] if isinstance(value, dict) else value


MODULES = """
- proxmox_vm_info: {type: qemu, config: current}
  register: vms
- proxmox_vm_info: {vmid: 100, network: true}
  register: web
- proxmox_node_info:
  register: nodes
- proxmox_domain_info:
  register: domains
- proxmox_user: {userid: ann@pve, comment: made by Ansible}
  register: made
- proxmox_user: {userid: ann@pve, comment: made by Ansible}
  register: again
- proxmox_group: {groupid: admins}
- proxmox_access_acl: {path: /vms/100, type: user, ugid: ann@pve, roleid: PVEVMUser, state: present}
- proxmox_user_info: {userid: ann@pve}
  register: ann
- proxmox_pool: {poolid: shop, comment: made by Ansible}
- proxmox_pool_member: {poolid: shop, member: web}
- proxmox_user: {userid: ann@pve, state: absent}
- proxmox_tasks_info: {node: pve1}
  register: tasks
- proxmox_storage_info:
- assert:
    that:
      - vms.proxmox_vms | map(attribute='vmid') | list == [100, 101]
      - vms.proxmox_vms[0].config.name == 'web' and web.proxmox_vms[0].network[0].name == 'lo'
      - web.proxmox_vms[0].status == 'running'
      - nodes.proxmox_nodes[0].status == 'online' and nodes.proxmox_nodes[0].node == 'pve1'
      - domains.proxmox_domains | map(attribute='realm') | sort == ['pam', 'pve']
      - made is changed and ann.proxmox_users[0].userid == 'ann@pve'
      - tasks.proxmox_tasks is iterable
"""


@installed("ansible")
async def test_the_modules_of_community_proxmox_manage_vms_and_users(
    server: Serving, community: dict[str, str], folder: Path
) -> None:
    user, name, secret = token_of(server)
    known = {
        "api_host": "127.0.0.1", "api_port": server.port, "api_user": user, "api_token_id": name, "api_token_secret": secret,
        "validate_certs": False,
    }  # fmt: skip
    tasks = "".join(
        f"    {line}\n" for line in MODULES.replace("- proxmox_", "- community.proxmox.proxmox_").splitlines()
    )
    defaults = json.dumps({"group/community.proxmox.proxmox": known})
    (folder / "play.yml").write_text(
        f"- hosts: localhost\n  gather_facts: false\n  module_defaults: {defaults}\n  tasks:\n{tasks}"
    )

    await run(sys.executable, "-m", "ansible", "playbook", "-v", "play.yml", folder=folder, **community)


# Libraries

NODE_PROGRAM = """
const proxmoxApi = require('proxmox-api').default;
async function work() {
  const [host, port, tokenID, tokenSecret] = process.argv.slice(2);
  const proxmox = proxmoxApi({host, port: Number(port), tokenID, tokenSecret});
  const found = {nodes: await proxmox.nodes.$get()};
  const node = proxmox.nodes.$(found.nodes[0].node);
  found.vms = await node.qemu.$get({full: true});
  const web = node.qemu.$(100);
  found.config = await web.config.$get();
  found.current = await web.status.current.$get();
  found.ping = await web.agent.ping.$post();
  const {pid} = await web.agent.exec.$post({command: ['uname', '-n']});
  do { found.status = await web.agent['exec-status'].$get({pid}); } while (!found.status.exited);
  console.log(JSON.stringify(found));
}
work().catch(error => { console.error(error); process.exit(1); });
"""


@installed("proxmox-api")
@pytest.mark.skipif(not shutil.which("node"), reason="there is no node")
async def test_proxmox_api_of_npm_works_in_a_guest(server: Serving, folder: Path) -> None:
    user, name, secret = token_of(server)
    (folder / "work.js").write_text(NODE_PROGRAM)
    environment = {"NODE_PATH": str(CLIENTS / "proxmox-api" / "node_modules"), "NODE_EXTRA_CA_CERTS": ca_of(server)}

    found = json.loads(
        await run("node", "work.js", "127.0.0.1", server.port, f"{user}!{name}", secret, folder=folder, **environment)
    )

    assert [(one["vmid"], one["name"]) for one in found["vms"]] == [(100, "web"), (101, "VM 101")]
    assert found["config"]["name"] == "web"
    assert found["current"]["status"] == "running"
    assert found["status"]["out-data"] == "inside\n"


# Assistants' servers


async def check_tools(program: StdioServerParameters, wanted: dict[str, tuple[dict[str, Any], str]]) -> None:
    """Calls tools, each with its arguments, and looks for words in what they say."""
    async with asyncio.timeout(ENDS_WITHIN), Client(program) as client:
        for tool, (arguments, words) in wanted.items():
            answer = await client.call_tool(tool, arguments)
            shown = " ".join(str(getattr(part, "text", "")) for part in answer.content)
            assert not answer.is_error, f"{tool}: {shown}"
            assert words in shown, f"{tool}: {shown}"


@installed("mcp-proxmox")
async def test_mcp_proxmox_lists_vms_and_runs_a_command(server: Serving) -> None:
    user, name, secret = token_of(server)
    environment = {
        "PROXMOX_HOST": "127.0.0.1", "PROXMOX_PORT": str(server.port), "PROXMOX_TOKEN_ID": f"{user}!{name}",
        "PROXMOX_TOKEN_SECRET": secret, "PROXMOX_VERIFY_SSL": "true", "REQUESTS_CA_BUNDLE": ca_of(server),
    }  # fmt: skip
    program = StdioServerParameters(
        command=str(CLIENTS / "mcp-proxmox" / "bin" / "mcp-proxmox"), args=[], env=environment
    )

    wanted: dict[str, tuple[dict[str, Any], str]] = {
        "list_nodes": ({}, "pve1"),
        "list_vms": ({}, "web"),
        "get_node_status": ({"node": "pve1"}, "pve1"),
        "get_guest_status": ({"vmid": 100}, "running"),
        "list_snapshots": ({"vmid": 100}, ""),
        "list_storages": ({}, ""),
        "exec_command": ({"vmid": 100, "command": "uname -n"}, "inside"),
        "list_tasks": ({"node": "pve1"}, "pve1"),
    }
    await check_tools(program, wanted)


@installed("cursor-proxmox-mcp")
async def test_cursor_proxmox_mcp_lists_vms_and_runs_a_command(server: Serving, folder: Path) -> None:
    user, name, secret = token_of(server)
    config = {
        "proxmox": {"host": "127.0.0.1", "port": server.port, "verify_ssl": True, "ca_cert_path": ca_of(server)},
        "auth": {"user": user, "token_name": name, "token_value": secret},
        "logging": {"level": "ERROR"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    program = StdioServerParameters(
        command=str(CLIENTS / "cursor-proxmox-mcp" / "bin" / "proxmox-mcp-server"),
        args=[],
        env={"PROXMOX_MCP_CONFIG": str(folder / "config.json")},
        cwd=folder,
    )

    web = {"node": "pve1", "vmid": "100"}
    wanted: dict[str, tuple[dict[str, Any], str]] = {
        "get_nodes": ({}, "pve1"),
        "get_cluster_status": ({}, "pve1"),
        "get_cluster_resources": ({}, "web"),
        "get_vms": ({}, "web"),
        "get_vm_status": (web, "running"),
        "get_vm_config": (web, "web"),
        "get_guest_pending": (web, ""),
        "get_vm_guest_info": (web, ""),
        "list_users": ({}, "root@pam"),
        "get_next_vmid": ({}, "102"),
        "execute_vm_command": ({**web, "command": "uname -n"}, "inside"),
    }
    await check_tools(program, wanted)
