"""The `cap` of a ticket: which privileges a user has anywhere, by the areas of Proxmox VE's interface.

Clients hide what a user can't do by it; it decides nothing.
"""

from collections.abc import Mapping
from typing import Final

from guestwire.access.engine import held_on
from guestwire.access.privileges import PERMISSIONS_MODIFY
from guestwire.stores import Snapshot

_PATHS: Final = ("/", "/nodes", "/access/groups", "/vms", "/storage", "/sdn", "/mapping")
"""Asked for even where no ACL entry is."""

_STARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "access": ("User.", "Group.", PERMISSIONS_MODIFY),
    "dc": ("Sys.Audit", "Sys.Modify", "SDN."),
    "mapping": ("Mapping.", PERMISSIONS_MODIFY),
    "nodes": ("Sys.", PERMISSIONS_MODIFY),
    "sdn": ("SDN.", PERMISSIONS_MODIFY),
    "storage": ("Datastore.", PERMISSIONS_MODIFY),
    "vms": ("VM.", PERMISSIONS_MODIFY),
}
"""How the privileges of an area begin."""


def capabilities(snapshot: Snapshot, subject: str, now: float) -> dict[str, dict[str, int]]:
    """Privileges by area, each 1.

    A path counts for the area that its first part names, `/` for `dc`, and a pool for its VMs and storage.
    """
    found: dict[str, dict[str, int]] = {area: {} for area in _STARTS}
    for path in {*_PATHS, *snapshot.acl_paths}:
        held = held_on(snapshot, subject, path, now)
        for area in _areas(path):
            found[area] |= {name: 1 for name in held if name.startswith(_STARTS[area])}
    return found


def _areas(path: str) -> tuple[str, ...]:
    top = path.split("/")[1] or "dc"
    if top == "pool":
        return "vms", "storage"
    return (top,) if top in _STARTS else ()
