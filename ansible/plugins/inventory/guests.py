"""The virtual machines of Proxmox VE or guestwire as Ansible's inventory, with facts that their agents tell."""

from __future__ import annotations

DOCUMENTATION = r"""
name: guests
short_description: Virtual machines of Proxmox VE or guestwire
version_added: 0.1.0
author:
  - guestwire (@guestwire)
description:
  - Lists the VMs that the caller may see (V(VM.Audit)) under their names. One whose name another has, too, or whose name is no host's
    name, is under its id.
  - 'Groups, each with O(group_prefix) before it: by state (C(running), C(stopped)), by tag (C(tag_NAME)), by node (C(node_NAME)), by pool
    (C(pool_NAME)), and, with O(want_facts), by system (C(os_debian), C(os_mswindows)).'
  - Hosts are reached by the connection P(guestwire.guestwire.guest#connection), with what this file says but for secrets; a token in a
    file (O(token_file)) is known to both.
  - 'Variables of each host: C(guestwire_name), C(guestwire_vmid), C(guestwire_node), C(guestwire_status), C(guestwire_tags), C(guestwire_pool);
    with O(want_facts) those of guests that answer: C(guestwire_osinfo), C(guestwire_host_name), C(guestwire_interfaces), and
    C(guestwire_addresses), which has all addresses but those of the loopback.'
  - The name of the file ends with C(guestwire.yml) or C(guestwire.yaml).
extends_documentation_fragment:
  - guestwire.guestwire.host
  - constructed
  - inventory_cache
options:
  plugin:
    description: V(guestwire.guestwire.guests).
    type: str
    required: true
    choices: [guestwire.guestwire.guests]
  group_prefix:
    description: What the names of groups begin with.
    type: str
    default: guestwire_
  want_facts:
    description: Asks the agents of all VMs that run for system, host name and interfaces. Nothing is run in the guests.
    type: bool
    default: false
  facts_timeout:
    description: Seconds that a guest has to answer; one that does not is listed without facts.
    type: int
    default: 10
  parallel:
    description: How many guests are asked at the same time.
    type: int
    default: 20
"""

EXAMPLES = r"""
# lab.guestwire.yml
plugin: guestwire.guestwire.guests
host: https://pve1:8006
token_file: ~/.config/guestwire/lab.token
fingerprint: "AA:BB:…"
want_facts: true
keyed_groups:
  - key: guestwire_osinfo['version-id'] | default('unknown')
    prefix: release
compose:
  # another connection for some
  ansible_host: guestwire_addresses[0] | default(omit)
groups:
  databases: "'db' in guestwire_tags"
"""

import asyncio
import contextlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.guestwire.guestwire.plugins.module_utils.client import (
    MISSING,
    SETTINGS,
    AgentRefused,
    GuestwireError,
    load_all,
    plain,
    settings_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guestwire import Guest, Host

HANDED_ON: Final = ("host", "token_file", "user", "ca", "fingerprint", "profile")
"""Settings that the connection gets as variables: all but secrets."""

LARGEST_TEXT: Final = 256
"""Characters of a text that a guest says."""

MOST: Final = 200
"""Interfaces of a guest, and addresses of one: a guest may say anything."""

_host_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Reads the list of VMs."""

    NAME = "guestwire.guestwire.guests"

    def verify_file(self, path: str) -> bool:
        """True for files that are meant for this plugin."""
        return super().verify_file(path) and path.endswith(("guestwire.yml", "guestwire.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:  # noqa: FBT001, FBT002  # as the base class has it
        """Fills the inventory, from the cache where that is wanted and there."""
        super().parse(inventory, loader, path)
        if MISSING:
            raise AnsibleParserError(MISSING)
        self._read_config_data(path)
        key = self.get_cache_key(path)
        machines = None
        if cache and self.get_option("cache"):
            machines = self._cache.get(key)
        if machines is None:
            try:
                machines = asyncio.run(self._machines())
            except GuestwireError as error:
                raise AnsibleParserError(f"{path}: {error}") from error
            if self.get_option("cache"):
                self._cache[key] = machines
        self._fill(machines)
        load_all()

    async def _machines(self) -> list[dict[str, Any]]:
        """What is known of each VM, as JSON has it."""
        from guestwire import connect  # noqa: PLC0415  # it may be missing

        settings = settings_in({name: self.get_option(name) for name in SETTINGS})
        target, profile = settings.pop("host", None), settings.pop("profile", None)
        async with await connect(target, profile=profile, **settings) as host:
            machines = await _listed(host)
            if self.get_option("want_facts"):
                at_once = asyncio.Semaphore(max(1, self.get_option("parallel")))
                await asyncio.gather(*(self._add_facts(host, one, at_once) for one in machines))
        return machines

    async def _add_facts(self, host: Host, machine: dict[str, Any], at_once: asyncio.Semaphore) -> None:
        if machine["status"] != "running":
            return
        try:
            async with at_once, asyncio.timeout(self.get_option("facts_timeout")):
                guest = await host.guest(f"{machine['node']}/{machine['vmid']}")
                machine.update(await _facts(guest))
        except TimeoutError:
            self.display.warning(f"{machine['name']}: its agent does not answer: no facts")
        except GuestwireError as error:
            self.display.warning(f"no facts: {error}")

    def _fill(self, machines: Iterable[dict[str, Any]]) -> None:
        prefix, strict = self.get_option("group_prefix"), self.get_option("strict")
        settings = settings_in({name: self.get_option(name) for name in HANDED_ON})
        names = Counter(machine["name"] for machine in machines)
        for machine in machines:
            is_name = _host_name.fullmatch(machine["name"]) and names[machine["name"]] == 1
            name = self.inventory.add_host(machine["name"] if is_name else str(machine["vmid"]))
            variables = {
                "ansible_connection": "guestwire.guestwire.guest",
                "guestwire_guest": f"{machine['node']}/{machine['vmid']}",
                **{f"guestwire_{setting}": value for setting, value in settings.items()},
                **{f"guestwire_{fact}": wrap_var(value) for fact, value in machine.items()},
            }
            system = machine.get("osinfo", {}).get("id")
            if system == "mswindows":
                variables["ansible_shell_type"] = "powershell"
            for variable, value in variables.items():
                self.inventory.set_variable(name, variable, value)
            groups = [
                machine["status"],
                *([f"os_{system}"] if system else []),
                *(f"tag_{tag}" for tag in machine["tags"]),
                *([f"pool_{machine['pool']}"] if machine["pool"] else []),
                f"node_{machine['node']}",
            ]
            for group in groups:
                self.inventory.add_host(name, self.inventory.add_group(self._sanitize_group_name(prefix + group)))
            self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)


async def _listed(host: Host) -> list[dict[str, Any]]:
    """The VMs, templates left out; behind an agent's own socket is one."""
    if host.is_local:
        return [
            {"name": one.name, "vmid": one.vmid, "node": one.node, "status": one.status, "tags": [], "pool": None}
            for one in await host.guests()
        ]
    return [
        {
            "name": str(one.get("name") or one["vmid"]),
            "vmid": int(one["vmid"]),
            "node": str(one["node"]),
            "status": str(one.get("status") or "unknown"),
            "tags": [tag for tag in re.split(r"[;, ]", one.get("tags") or "") if tag],
            "pool": one.get("pool"),
        }
        for one in await host.raw("GET", "/cluster/resources", type="vm")
        if one.get("type") == "qemu" and not int(one.get("template") or 0)
    ]


async def _facts(guest: Guest) -> dict[str, Any]:
    """What the agent tells; what it can't is left out."""
    facts: dict[str, Any] = {}
    osinfo = plain(await guest.get_osinfo())
    facts["osinfo"] = {name: value[:LARGEST_TEXT] for name, value in osinfo.items()}
    with contextlib.suppress(AgentRefused):
        facts["host_name"] = (await guest.get_host_name()).host_name[:LARGEST_TEXT]
    with contextlib.suppress(AgentRefused):
        interfaces = (await guest.network_get_interfaces())[:MOST]
        facts["interfaces"] = [
            {
                "name": one.name[:LARGEST_TEXT],
                "mac": (one.hardware_address or "")[:LARGEST_TEXT],
                "addresses": [address.ip_address[:LARGEST_TEXT] for address in (one.ip_addresses or [])[:MOST]],
            }
            for one in interfaces
        ]
        addresses = (address for one in facts["interfaces"] for address in one["addresses"])
        facts["addresses"] = [address for address in addresses if not address.startswith("127.") and address != "::1"]
    return facts
