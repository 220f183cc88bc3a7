#!/usr/bin/python
# Licence: Apache-2.0 (see the LICENSE of the repository)
"""Runs a program in a guest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_exec
short_description: Run a program in a guest, through its agent
version_added: 0.1.0
author:
  - guestwire (@guestwire)
description:
  - Starts a program in the guest, waits for its end, and gives its exit code and outputs. Nothing has to be in the guest but its agent,
    no Python either.
  - It runs where Ansible runs, so C(delegate_to=localhost) or a play for C(localhost).
extends_documentation_fragment:
  - guestwire.guestwire.host
  - guestwire.guestwire.host.guest
options:
  argv:
    description: Program and arguments, which arrive as they are; no shell is between.
    type: list
    elements: str
  cmd:
    description: A line for the guest's shell, which is C(/bin/sh), and PowerShell in Windows.
    type: str
  stdin:
    description: Standard input, of any length.
    type: str
  chdir:
    description: The program's working directory.
    type: str
  environment:
    description: More environment variables. (The task's own keyword C(environment) is for what runs here.)
    type: dict
    default: {}
  creates:
    description: Nothing is done when this path is in the guest.
    type: str
  removes:
    description: Nothing is done when this path is not in the guest.
    type: str
  timeout:
    description: Seconds to wait. When they are up, the program goes on, and the task fails with its RV(pid).
    type: float
  ok_codes:
    description: Exit codes that are no failure.
    type: list
    elements: int
    default: [0]
attributes:
  check_mode:
    support: partial
    details: Without O(creates) and O(removes) the task is skipped; with them it says whether it would run.
"""

EXAMPLES = r"""
- name: Reload the web server
  guestwire.guestwire.guest_exec:
    guest: web
    argv: [systemctl, reload, nginx]
  delegate_to: localhost

- name: Make the database, once
  guestwire.guestwire.guest_exec:
    guest: pve1/101
    cmd: initdb --pgdata=data >initdb.log 2>&1
    chdir: /var/lib/postgresql
    environment:
      LC_ALL: C
    creates: /var/lib/postgresql/data/PG_VERSION
  delegate_to: localhost
"""

RETURN = r"""
rc:
  description: The exit code; of a program that a signal ended 128 and the signal.
  returned: when it ran
  type: int
  sample: 0
stdout:
  description: Standard output.
  returned: when it ran
  type: str
  sample: active
stderr:
  description: Standard error.
  returned: when it ran
  type: str
  sample: ""
stdout_lines:
  description: RV(stdout) by line.
  returned: when it ran
  type: list
  elements: str
  sample: [active]
stderr_lines:
  description: RV(stderr) by line.
  returned: when it ran
  type: list
  elements: str
  sample: []
truncated:
  description: The agent kept the first 16 MiB of an output, and no more.
  returned: when it ran
  type: bool
  sample: false
pid:
  description: The process's id in the guest.
  returned: when it ran
  type: int
  sample: 4711
"""

from typing import TYPE_CHECKING, Any

from ansible_collections.guestwire.guestwire.plugins.module_utils.client import GuestModule, GuestwireError, is_there

if TYPE_CHECKING:
    from guestwire import SyncGuest

SIGNALLED = 128


def execute(module: GuestModule, guest: SyncGuest) -> dict[str, Any]:
    """Runs it, unless it need not, or must not."""
    creates, removes = module.params["creates"], module.params["removes"]
    if creates and is_there(guest, creates):
        return {"changed": False, "msg": f"{creates} is there: nothing to do"}
    if removes and not is_there(guest, removes):
        return {"changed": False, "msg": f"{removes} is not there: nothing to do"}
    if module.check_mode:
        is_known = bool(creates or removes)
        return {"changed": is_known, "skipped": not is_known, "msg": "it would run" if is_known else "check mode"}
    return _run(module, guest)


def _run(module: GuestModule, guest: SyncGuest) -> dict[str, Any]:
    argv = module.params["argv"]
    if not argv:
        shell = (
            ["powershell.exe", "-NoProfile", "-NonInteractive", "-Command"] if guest.is_windows() else ["/bin/sh", "-c"]
        )
        argv = [*shell, module.params["cmd"]]
    try:
        process = guest.run(
            argv,
            input=module.params["stdin"],
            env={name: str(value) for name, value in module.params["environment"].items()},
            cwd=module.params["chdir"],
            timeout=module.params["timeout"],
        )
    except GuestwireError as error:
        if pid := getattr(error, "pid", None):
            module.fail_json(msg=str(error), pid=pid, changed=True)
        raise
    code = SIGNALLED + process.signal if process.signal else process.code or 0
    result: dict[str, Any] = {
        "changed": True,
        "rc": code,
        "stdout": process.output.rstrip("\r\n"),
        "stderr": process.errors.rstrip("\r\n"),
        "truncated": process.stdout_truncated or process.stderr_truncated,
        "pid": process.pid,
    }
    result |= {f"{name}_lines": result[name].splitlines() for name in ("stdout", "stderr")}
    if code not in module.params["ok_codes"]:
        module.fail_json(msg=f"{argv[0]} ended with exit code {code}", **result)
    return {"failed": False, **result}  # Ansible takes an exit code for a failure otherwise


def main() -> None:
    """Runs the module."""
    spec = {
        "argv": {"type": "list", "elements": "str"},
        "cmd": {"type": "str"},
        "stdin": {"type": "str"},
        "chdir": {"type": "str"},
        "environment": {"type": "dict", "default": {}},
        "creates": {"type": "str"},
        "removes": {"type": "str"},
        "timeout": {"type": "float"},
        "ok_codes": {"type": "list", "elements": "int", "default": [0]},
    }
    GuestModule(spec, mutually_exclusive=[("argv", "cmd")], required_one_of=[("argv", "cmd")]).run(execute)


if __name__ == "__main__":
    main()
