#!/usr/bin/python
# Licence: Apache-2.0 (see the LICENSE of the repository)
"""Files and folders of a guest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_file
short_description: Files and folders of a guest, through its agent
version_added: 0.1.0
author:
  - guestwire (@guestwire)
description:
  - Writes, copies, fetches and removes files of any size, and makes folders. Copies are checked by their SHA-256 in the guest, and the
    old file stays whole until the new one is. Nothing has to be in the guest but its agent.
  - It runs where Ansible runs, so C(delegate_to=localhost) or a play for C(localhost).
extends_documentation_fragment:
  - guestwire.guestwire.host
  - guestwire.guestwire.host.guest
options:
  path:
    description: The path in the guest.
    type: str
    required: true
  state:
    description:
      - V(file) has O(content), or is a copy of O(src). V(directory) is there, with those above it. V(absent) is no file; a folder is
        not removed. V(fetched) copies the guest's file to O(dest).
    type: str
    choices: [file, directory, absent, fetched]
    default: file
  content:
    description: What stands in the file, as UTF-8.
    type: str
  src:
    description: A file on this machine.
    type: path
  dest:
    description: For O(state=fetched), the file on this machine.
    type: path
  mode:
    description: Permissions, in octal digits. Those of a file that is there stay as they are without it, and Windows has none.
    type: str
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Configure the web server
  guestwire.guestwire.guest_file:
    guest: web
    path: /etc/nginx/conf.d/site.conf
    src: site.conf
    mode: "0644"
  delegate_to: localhost

- name: Bring its log here
  guestwire.guestwire.guest_file:
    guest: web
    path: /var/log/nginx/error.log
    dest: /tmp/web-error.log
    state: fetched
  delegate_to: localhost
"""

RETURN = r"""
path:
  description: The path in the guest.
  returned: always
  type: str
  sample: /etc/nginx/conf.d/site.conf
size:
  description: The file's bytes.
  returned: for O(state=file) and O(state=fetched)
  type: int
  sample: 1200
checksum:
  description: The file's SHA-256.
  returned: for O(state=file) and O(state=fetched)
  type: str
  sample: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.guestwire.guestwire.plugins.module_utils.client import GuestModule, is_there

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guestwire import SyncGuest

CHUNK = 1024 * 1024


def work(module: GuestModule, guest: SyncGuest) -> dict[str, Any]:
    """Makes it so."""
    path, state = module.params["path"], module.params["state"]
    states = {"file": _file, "directory": _directory, "absent": _absent, "fetched": _fetched}
    return {"path": path, **states[state](module, guest, path)}


def _file(module: GuestModule, guest: SyncGuest, path: str) -> dict[str, Any]:
    content, src = module.params["content"], module.params["src"]
    data = None if content is None else content.encode()
    mode = _mode(module)
    if data is None and not Path(src).is_file():
        module.fail_json(msg=f"{src}: no such file here")
    size, checksum = _measure([data] if data is not None else _chunks(src))
    stat = guest.files.stat(path) if is_there(guest, path) else None
    if stat and stat.kind == "d":
        module.fail_json(msg=f"{path} is a folder in the guest: name the file in it")
    is_same = stat is not None and stat.size == size and guest.files.sha256(path) == checksum
    has_mode = mode is None or (stat is not None and stat.mode == mode)
    if not module.check_mode and not (is_same and has_mode):
        guest.write_file(path, data if data is not None else _chunks(src), mode=mode)
    return {"changed": not (is_same and has_mode), "size": size, "checksum": checksum}


def _directory(module: GuestModule, guest: SyncGuest, path: str) -> dict[str, Any]:
    found = is_there(guest, path)
    if found and not guest.folders.is_folder(path):
        module.fail_json(msg=f"{path} is in the guest, and no folder")
    if not found and not module.check_mode:
        guest.folders.makedirs(path)
    return {"changed": not found}


def _absent(module: GuestModule, guest: SyncGuest, path: str) -> dict[str, Any]:
    found = is_there(guest, path)
    if found and guest.folders.is_folder(path):
        module.fail_json(msg=f"{path} is a folder in the guest: it is not removed")
    if found and not module.check_mode:
        guest.files.remove(path)
    return {"changed": found}


def _fetched(module: GuestModule, guest: SyncGuest, path: str) -> dict[str, Any]:
    dest = Path(module.params["dest"])
    if not is_there(guest, path):
        module.fail_json(msg=f"{path}: no such file in the guest")
    size, checksum = guest.files.stat(path).size, guest.files.sha256(path)
    is_same = dest.is_file() and _measure(_chunks(dest)) == (size, checksum)
    if not is_same and not module.check_mode:
        guest.download(path, dest)
    return {"changed": not is_same, "size": size, "checksum": checksum}


def _mode(module: GuestModule) -> int | None:
    text = module.params["mode"]
    if not text:
        return None
    try:
        return int(text, 8)
    except ValueError:
        module.fail_json(msg=f"mode: {text}: write it in octal digits and quotes, as '0644'")
        raise  # never reached: fail_json ends the program


def _chunks(path: str | Path) -> Iterable[bytes]:
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _measure(chunks: Iterable[bytes]) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    for chunk in chunks:
        size += len(chunk)
        digest.update(chunk)
    return size, digest.hexdigest()


def main() -> None:
    """Runs the module."""
    spec = {
        "path": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["file", "directory", "absent", "fetched"], "default": "file"},
        "content": {"type": "str"},
        "src": {"type": "path"},
        "dest": {"type": "path"},
        "mode": {"type": "str"},
    }
    rules: dict[str, Any] = {
        "mutually_exclusive": [("content", "src")],
        "required_if": [("state", "file", ("content", "src"), True), ("state", "fetched", ("dest",))],
    }
    GuestModule(spec, **rules).run(work)


if __name__ == "__main__":
    main()
