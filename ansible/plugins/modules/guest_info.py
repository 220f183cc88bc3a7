#!/usr/bin/python
# Licence: Apache-2.0 (see the LICENSE of the repository)
"""Facts about a guest, from its agent."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_info
short_description: Facts about a guest, from its agent
version_added: 0.1.0
author:
  - guestwire (@guestwire)
description:
  - Asks the QEMU guest agent. Nothing is run in the guest.
  - It runs where Ansible runs, so C(delegate_to=localhost) or a play for C(localhost).
extends_documentation_fragment:
  - guestwire.guestwire.host
  - guestwire.guestwire.host.guest
options:
  gather:
    description: What is asked for.
    type: list
    elements: str
    choices: [osinfo, host_name, interfaces, filesystems, users, timezone, time, agent]
    default: [osinfo, host_name, interfaces, filesystems]
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Which system runs on web
  guestwire.guestwire.guest_info:
    guest: web
  delegate_to: localhost
  register: web

- name: It is a Debian
  ansible.builtin.assert:
    that: web.osinfo.id == 'debian'
"""

RETURN = r"""
osinfo:
  description: The operating system.
  returned: when O(gather) has it
  type: dict
  sample: {"id": "debian", "pretty-name": "Debian GNU/Linux 12 (bookworm)", "version-id": "12"}
host_name:
  description: The guest's own name.
  returned: when O(gather) has it
  type: str
  sample: web
interfaces:
  description: Network interfaces, as the agent names their fields.
  returned: when O(gather) has it
  type: list
  elements: dict
  sample: [{"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}]}]
filesystems:
  description: Mounted file systems with their use.
  returned: when O(gather) has it
  type: list
  elements: dict
  sample: [{"mountpoint": "/", "name": "vda1", "type": "ext4", "total-bytes": 10000, "used-bytes": 5000}]
users:
  description: Who is logged in.
  returned: when O(gather) has it
  type: list
  elements: dict
  sample: [{"user": "root", "login-time": 1700000000.5}]
timezone:
  description: The time zone.
  returned: when O(gather) has it
  type: dict
  sample: {"zone": "UTC", "offset": 0}
time:
  description: The guest's clock, in nanoseconds since the epoch.
  returned: when O(gather) has it
  type: int
  sample: 1700000000000000000
agent:
  description: The agent's version and commands.
  returned: when O(gather) has it
  type: dict
  sample: {"version": "7.2.0"}
unsupported:
  description: What this guest's agent can't tell, with its reason.
  returned: always
  type: dict
  sample: {"users": "the command guest-get-users is disabled"}
"""

from typing import TYPE_CHECKING, Any

from ansible_collections.guestwire.guestwire.plugins.module_utils.client import AgentRefused, GuestModule, plain

if TYPE_CHECKING:
    from guestwire import SyncGuest

METHODS = {
    "osinfo": "get_osinfo",
    "host_name": "get_host_name",
    "interfaces": "network_get_interfaces",
    "filesystems": "get_fsinfo",
    "users": "get_users",
    "timezone": "get_timezone",
    "time": "get_time",
    "agent": "info",
}


def gather(module: GuestModule, guest: SyncGuest) -> dict[str, Any]:
    """What the agent says."""
    facts: dict[str, Any] = {}
    unsupported = {}
    for what in module.params["gather"]:
        try:
            facts[what] = plain(getattr(guest, METHODS[what])())
        except AgentRefused as error:
            unsupported[what] = error.description
    if "host_name" in facts:
        facts["host_name"] = facts["host_name"]["host-name"]
    return {"changed": False, "unsupported": unsupported, **facts}


def main() -> None:
    """Runs the module."""
    default = ["osinfo", "host_name", "interfaces", "filesystems"]
    spec = {"gather": {"type": "list", "elements": "str", "choices": list(METHODS), "default": default}}
    GuestModule(spec).run(gather)


if __name__ == "__main__":
    main()
