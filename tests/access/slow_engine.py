"""The rules of Proxmox VE once more, as plain as they can be said and as slow as that is: what the engine is compared with.

It uses no index of the snapshot, no memory, and none of the engine's own tables. Where it lists built-in roles, they are written out.
"""

from collections.abc import Iterable

from guestwire.stores import AclEntry, Snapshot

EVERY_PRIVILEGE = {
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
    "Sys.Syslog",
    "User.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Replicate",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
}
"""As `GET /access/roles/{roleid}` of Proxmox VE 9 lists them."""

VM_AUDIT = {"VM.Audit", "VM.GuestAgent.Audit"}
VM_USER = {
    "VM.PowerMgmt",
    "VM.Console",
    "VM.Backup",
    "VM.Config.CDROM",
    "VM.Config.Cloudinit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.FileSystemMgmt",
}
VM_ADMIN = {
    "VM.GuestAgent.Unrestricted",
    "VM.Allocate",
    "VM.Clone",
    "VM.Migrate",
    "VM.Replicate",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
    "VM.Config.Disk",
    "VM.Config.CPU",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.HWType",
    "VM.Config.Options",
}

BUILT_IN = {
    "Administrator": EVERY_PRIVILEGE,
    "NoAccess": set[str](),
    "PVETemplateUser": {"VM.Clone", "VM.Audit"},
    "PVEVMUser": VM_USER | VM_AUDIT,
    "PVEVMAdmin": VM_ADMIN | VM_USER | VM_AUDIT,
}
"""Those that the generated questions use."""

Found = dict[str, bool]
"""Propagates, by role or by privilege."""


def slow_privileges(snapshot: Snapshot, subject: str, path: str, now: float) -> Found:
    """The privileges of a subject on a path, and whether each propagates."""
    if subject in snapshot.tokens:
        return _of_token(snapshot, subject, path, now)
    if "!" in subject.rpartition("@")[2]:
        return {}
    return _of_user(snapshot, subject, path, now)


def _of_token(snapshot: Snapshot, subject: str, path: str, now: float) -> Found:
    token = snapshot.tokens[subject]
    users = _of_user(snapshot, token.userid, path, now)
    if token.expire and token.expire < now:
        return {}
    if not token.privsep:
        return users
    own = _privileges(snapshot, _roles_with_pool(snapshot, [[("token", subject)]], path))
    return {name: own[name] and users[name] for name in own if name in users}


def _of_user(snapshot: Snapshot, userid: str, path: str, now: float) -> Found:
    user = snapshot.users.get(userid)
    if user and (not user.enable or (user.expire and user.expire < now)):
        return {}
    if userid == "root@pam":
        return dict.fromkeys(EVERY_PRIVILEGE, True)
    if not user:
        return {}
    groups = [("group", group.groupid) for group in snapshot.groups.values() if userid in group.members]
    return _privileges(snapshot, _roles_with_pool(snapshot, [[("user", userid)], groups], path))


def _privileges(snapshot: Snapshot, roles: Found) -> Found:
    found: Found = {}
    for role, propagates in roles.items():
        for privilege in _role(snapshot, role) or ():
            found[privilege] = found.get(privilege, False) or propagates
    return found


def _role(snapshot: Snapshot, roleid: str) -> set[str] | None:
    if roleid in BUILT_IN:
        return BUILT_IN[roleid]
    return set(snapshot.roles[roleid].privileges) if roleid in snapshot.roles else None


Kinds = list[list[tuple[str, str]]]
"""Subjects whose entries count together; the first list that has any at a step wins."""


def _roles_with_pool(snapshot: Snapshot, kinds: Kinds, path: str) -> Found:
    roles = _roles(snapshot, kinds, path)
    for pool in snapshot.pools.values():
        if path not in {f"/vms/{vmid}" for vmid in pool.vms} or "NoAccess" in roles:
            continue
        shared = _roles(snapshot, kinds, f"/pool/{pool.poolid}")
        if "NoAccess" in shared:
            return {"NoAccess": False}
        roles = {**dict.fromkeys(shared, False), **roles}
    return roles


def _roles(snapshot: Snapshot, kinds: Kinds, path: str) -> Found:
    roles: Found = {}
    for step in _steps(path):
        for subjects in kinds:
            entries = [entry for entry in _at(snapshot, step, subjects) if entry.propagate or step == path]
            if entries:
                roles = {}
                for entry in entries:
                    roles[entry.roleid] = roles.get(entry.roleid, False) or entry.propagate
                break
    return {"NoAccess": roles["NoAccess"]} if "NoAccess" in roles else roles


def _steps(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["/" + "/".join(parts[:count]) for count in range(len(parts) + 1)]


def _at(snapshot: Snapshot, step: str, subjects: Iterable[tuple[str, str]]) -> list[AclEntry]:
    wanted = set(subjects)
    return [
        entry
        for entry in snapshot.acl.values()
        if entry.path == step and (entry.kind, entry.subject) in wanted and _role(snapshot, entry.roleid) is not None
    ]
