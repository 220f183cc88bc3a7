"""The inventory: groups and variables of real servers and guests, the cache, and what a hostile guest may say."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from calling import site, vm
from playing import Ansible, environment_for, needs_python
from serving import Serving
from ways import options_for

from guestwire.testing import FakeGuest, SandboxedAgent

pytestmark = [pytest.mark.agent, pytest.mark.slow]

TAGS = 'tags = ["prod", "front-end"]\n'


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Serving]:
    vms = (vm(100, "web") + TAGS, vm(101, "db", running="false"), vm(102, "twin"), vm(103, "twin"))
    async with Serving.of(site(*vms)) as server, SandboxedAgent(server.folder / "100.qga", name="inside"):
        yield server


async def listed(ansible: Ansible, options: list[str], **more: Any) -> dict[str, Any]:
    """What `ansible-inventory --list` says."""
    source = ansible.folder / "lab.guestwire.yml"
    source.write_text(json.dumps({"plugin": "guestwire.guestwire.guests", **more}))
    played = await ansible.run("inventory", "-i", source.name, "--list", "--export", **environment_for(options))
    assert played.code == 0, played.text
    found: dict[str, Any] = plain(json.loads(played.output))
    return found


def plain(value: Any) -> Any:
    """Without the marks of texts that are not trusted as templates."""
    if isinstance(value, dict):
        return (
            value["__ansible_unsafe"]
            if "__ansible_unsafe" in value
            else {key: plain(one) for key, one in value.items()}
        )
    return [plain(one) for one in value] if isinstance(value, list) else value


async def test_groups_follow_state_tags_node_and_system_and_facts_need_no_login(ansible: Ansible, lab: Serving) -> None:
    found = await listed(
        ansible,
        options_for(lab),
        want_facts=True,
        facts_timeout=2,
        compose={"shout": "guestwire_host_name ~ '!'"},
        keyed_groups=[{"key": "guestwire_osinfo['version-id']", "prefix": "release"}],
        groups={"databases": "guestwire_name == 'db'"},
    )
    web = found["_meta"]["hostvars"]["web"]

    groups = {name: sorted(one["hosts"]) for name, one in found.items() if "hosts" in one}
    assert groups["guestwire_running"] == ["102", "103", "web"]
    assert groups["guestwire_stopped"] == groups["databases"] == ["db"]
    assert groups["guestwire_tag_prod"] == groups["guestwire_tag_front_end"] == ["web"]
    assert groups["guestwire_node_pve1"] == ["102", "103", "db", "web"]
    assert groups[f"guestwire_os_{web['guestwire_osinfo']['id']}"] == ["web"]
    assert any(name.startswith("release_") for name in groups)
    assert (web["guestwire_vmid"], web["guestwire_status"], web["shout"]) == (100, "running", "inside!")
    assert [one["name"] for one in web["guestwire_interfaces"]] == ["lo"]
    assert web["guestwire_addresses"] == []
    assert "guestwire_token" not in web


@needs_python
async def test_what_it_lists_is_reached_without_another_word(ansible: Ansible, lab: Serving) -> None:
    token, ca = (str(lab.folder / "state" / name) for name in ("admin-token", "server.pem"))
    source = {
        "plugin": "guestwire.guestwire.guests",
        "host": f"https://127.0.0.1:{lab.port}",
        "token_file": token,
        "ca": ca,
    }
    (ansible.folder / "lab.guestwire.yml").write_text(json.dumps(source))

    played = await ansible.run(
        "adhoc", "guestwire_tag_prod", "-i", "lab.guestwire.yml", "-m", "command", "-a", "uname -n"
    )

    assert "web | CHANGED | rc=0 >>\ninside" in played.output, played.text


async def test_an_agents_own_socket_is_an_inventory_too(ansible: Ansible) -> None:
    async with SandboxedAgent(ansible.folder / "alone.qga", name="alone"):
        found = await listed(ansible, ["--host", f"unix:{ansible.folder}/alone.qga"], want_facts=True)

    assert found["_meta"]["hostvars"]["alone"]["guestwire_host_name"] == "alone"


async def test_the_cache_serves_where_the_host_is_gone(ansible: Ansible) -> None:
    cached = {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(ansible.folder / "cache"),
    }
    async with Serving.of(site(vm(100, "web", running="false"))) as server:
        kept = [ansible.folder / name for name in ("token", "ca.pem")]
        for path, name in zip(kept, ("admin-token", "server.pem"), strict=True):
            path.write_bytes((server.folder / "state" / name).read_bytes())
            path.chmod(0o600)
        options = ["--host", f"https://127.0.0.1:{server.port}", "--token-file", str(kept[0]), "--ca", str(kept[1])]
        first = await listed(ansible, options, **cached)

    assert await listed(ansible, options, **cached) == first
    assert "web" in first["_meta"]["hostvars"]


@needs_python
async def test_what_a_guest_says_is_no_template(ansible: Ansible) -> None:
    evil = "{{ lookup('pipe', 'touch ran') }}"
    replies = {
        "guest-get-host-name": {"host-name": evil},
        "guest-get-osinfo": {"id": "all", "name": evil, "pretty-name": "x" * 100_000},
        "guest-network-get-interfaces": [{"name": evil} for _ in range(1000)],
    }
    async with FakeGuest(ansible.folder / "evil.qga", replies=replies):
        source = {"plugin": "guestwire.guestwire.guests", "host": f"unix:{ansible.folder}/evil.qga", "want_facts": True}
        (ansible.folder / "evil.guestwire.yml").write_text(json.dumps(source))
        command = ("-i", "evil.guestwire.yml", "-m", "debug", "-a")
        name = await ansible.run("adhoc", "evil", *command, "msg={{ guestwire_host_name }}")
        facts = await ansible.run(
            "adhoc",
            "evil",
            *command,
            "msg={{ [guestwire_osinfo['pretty-name']|length, guestwire_interfaces|length, group_names] }}",
        )

    assert name.result("evil")["msg"] == evil
    assert facts.result("evil")["msg"] == [
        256,
        200,
        ["guestwire_node_localhost", "guestwire_os_all", "guestwire_running"],
    ]
    assert not (ansible.folder / "ran").exists()


async def test_a_wrong_token_is_called_so(ansible: Ansible, lab: Serving) -> None:
    source = {"plugin": "guestwire.guestwire.guests", "token": "eve@pve!tok=wrong"}
    (ansible.folder / "lab.guestwire.yml").write_text(json.dumps(source))
    environment = environment_for(options_for(lab)) | {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"}

    played = await ansible.run("inventory", "-i", "lab.guestwire.yml", "--list", **environment)

    assert played.code
    assert "check the token or the password" in played.errors
