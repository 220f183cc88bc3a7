"""Every privilege of Proxmox VE 9, by category and by the level of the people who are meant to have it.

Source: pve-access-control of 2026; `GET /access/roles/{roleid}` lists the names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Levels:
    """Privileges of one category: `root` is for `Administrator` alone, each of the others for who has the ones after it too."""

    root: frozenset[str] = frozenset()
    admin: frozenset[str] = frozenset()
    user: frozenset[str] = frozenset()
    audit: frozenset[str] = frozenset()


def _names(category: str, names: str) -> frozenset[str]:
    return frozenset(f"{category}.{name}" for name in names.split())


CATEGORIES: Final[Mapping[str, Levels]] = {
    "VM": Levels(
        admin=_names(
            "VM",
            "GuestAgent.Unrestricted Allocate Clone Migrate Replicate Snapshot Snapshot.Rollback"
            " Config.Disk Config.CPU Config.Memory Config.Network Config.HWType Config.Options",
        ),
        user=_names(
            "VM",
            "PowerMgmt Console Backup Config.CDROM Config.Cloudinit"
            " GuestAgent.FileRead GuestAgent.FileWrite GuestAgent.FileSystemMgmt",
        ),
        audit=_names("VM", "Audit GuestAgent.Audit"),
    ),
    "Sys": Levels(
        root=_names("Sys", "PowerMgmt Modify Incoming AccessNetwork"),
        admin=_names("Sys", "Console Syslog"),
        audit=_names("Sys", "Audit"),
    ),
    "Datastore": Levels(
        admin=_names("Datastore", "Allocate AllocateTemplate"),
        user=_names("Datastore", "AllocateSpace"),
        audit=_names("Datastore", "Audit"),
    ),
    "SDN": Levels(admin=_names("SDN", "Allocate"), user=_names("SDN", "Use"), audit=_names("SDN", "Audit")),
    "User": Levels(
        root=frozenset({"Realm.Allocate"}),
        admin=frozenset({"User.Modify", "Group.Allocate", "Realm.AllocateUser"}),
    ),
    # Audit is a user's too in Proxmox VE, without which there would be no PVEPoolUser.
    "Pool": Levels(admin=_names("Pool", "Allocate"), user=_names("Pool", "Audit"), audit=_names("Pool", "Audit")),
    "Mapping": Levels(
        admin=_names("Mapping", "Modify"), user=_names("Mapping", "Use"), audit=_names("Mapping", "Audit")
    ),
}

PERMISSIONS_MODIFY: Final = "Permissions.Modify"
"""In no category."""

ALL: Final = frozenset({PERMISSIONS_MODIFY}).union(
    *(levels.root | levels.admin | levels.user | levels.audit for levels in CATEGORIES.values())
)
"""Every privilege there is."""
