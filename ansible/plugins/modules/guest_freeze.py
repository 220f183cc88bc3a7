#!/usr/bin/python
# Licence: Apache-2.0 (see the LICENSE of the repository)
"""Freezes and thaws the file systems of a guest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_freeze
short_description: Freeze and thaw the file systems of a guest
version_added: 0.1.0
author:
  - guestwire (@guestwire)
description:
  - 'Everything that writes in a frozen guest waits. Thaw it in the C(always) of a block, as the example does: a play that is killed thaws
    nothing. Tasks in the guest itself, between the two, wait as well.'
  - It runs where Ansible runs, so C(delegate_to=localhost) or a play for C(localhost).
extends_documentation_fragment:
  - guestwire.guestwire.host
  - guestwire.guestwire.host.guest
options:
  state:
    description: What they are afterwards.
    type: str
    choices: [frozen, thawed]
    required: true
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: A snapshot of a guest that writes nothing
  delegate_to: localhost
  block:
    - name: Freeze
      guestwire.guestwire.guest_freeze:
        guest: db
        state: frozen

    - name: Take the snapshot
      ansible.builtin.command: lvcreate --snapshot --name db-backup --size 5G vg/db
      changed_when: true
  always:
    - name: Thaw
      guestwire.guestwire.guest_freeze:
        guest: db
        state: thawed
"""

RETURN = r"""
status:
  description: What they are now; in check mode what they would be.
  returned: always
  type: str
  sample: frozen
count:
  description: How many file systems were frozen or thawed.
  returned: when something changed
  type: int
  sample: 2
"""

from typing import TYPE_CHECKING, Any

from ansible_collections.guestwire.guestwire.plugins.module_utils.client import GuestModule

if TYPE_CHECKING:
    from guestwire import SyncGuest


def work(module: GuestModule, guest: SyncGuest) -> dict[str, Any]:
    """Freezes or thaws, when it is not so already."""
    state = module.params["state"]
    if guest.fsfreeze_status() == state:
        return {"changed": False, "status": state}
    if module.check_mode:
        return {"changed": True, "status": state}
    count = guest.fsfreeze_freeze() if state == "frozen" else guest.fsfreeze_thaw()
    status = guest.fsfreeze_status()
    if status != state:
        module.fail_json(
            msg=f"its file systems are {status} after all; the agent counts {count}", status=status, count=count
        )
    return {"changed": True, "status": status, "count": count}


def main() -> None:
    """Runs the module."""
    GuestModule({"state": {"type": "str", "choices": ["frozen", "thawed"], "required": True}}).run(work)


if __name__ == "__main__":
    main()
