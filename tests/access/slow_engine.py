"""The rules of Proxmox VE once more, as plain as they can be said and as slow as that is: what the engine is compared with.

It uses no index of the view, no memory, and none of the engine's own tables. Where it lists built-in roles, they are written out.
"""

from collections.abc import Iterable

from guestwire.stores import AclEntry, View

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


def slow_privileges(view: View, subject: str, path: str, now: float) -> Found:
    """The privileges of a subject on a path, and whether each propagates."""
    if subject in view.tokens:
        return _of_token(view, subject, path, now)
    if "!" in subject.rpartition("@")[2]:
        return {}
    return _of_user(view, subject, path, now)


def _of_token(view: View, subject: str, path: str, now: float) -> Found:
    token = view.tokens[subject]
    users = _of_user(view, token.userid, path, now)
    if token.expire and token.expire < now:
        return {}
    if not token.privsep:
        return users
    own = _privileges(view, _roles_with_pool(view, [[("token", subject)]], path))
    return {name: own[name] and users[name] for name in own if name in users}


def _of_user(view: View, userid: str, path: str, now: float) -> Found:
    user = view.users.get(userid)
    if user and (not user.enable or (user.expire and user.expire < now)):
        return {}
    if userid == "root@pam":
        return dict.fromkeys(EVERY_PRIVILEGE, True)
    if not user:
        return {}
    groups = [("group", group.groupid) for group in view.groups.values() if userid in group.members]
    return _privileges(view, _roles_with_pool(view, [[("user", userid)], groups], path))


def _privileges(view: View, roles: Found) -> Found:
    found: Found = {}
    for role, propagates in roles.items():
        for privilege in _role(view, role) or ():
            found[privilege] = found.get(privilege, False) or propagates
    return found


def _role(view: View, roleid: str) -> set[str] | None:
    if roleid in BUILT_IN:
        return BUILT_IN[roleid]
    return set(view.roles[roleid].privileges) if roleid in view.roles else None


Kinds = list[list[tuple[str, str]]]
"""Subjects whose entries count together; the first list that has any at a step wins."""


def _roles_with_pool(view: View, kinds: Kinds, path: str) -> Found:
    roles = _roles(view, kinds, path)
    for pool in view.pools.values():
        if path not in {f"/vms/{vmid}" for vmid in pool.vms} or "NoAccess" in roles:
            continue
        shared = _roles(view, kinds, f"/pool/{pool.poolid}")
        if "NoAccess" in shared:
            return {"NoAccess": False}
        roles = {**dict.fromkeys(shared, False), **roles}
    return roles


def _roles(view: View, kinds: Kinds, path: str) -> Found:
    roles: Found = {}
    for step in _steps(path):
        for subjects in kinds:
            entries = [entry for entry in _at(view, step, subjects) if entry.propagate or step == path]
            if entries:
                roles = {}
                for entry in entries:
                    roles[entry.roleid] = roles.get(entry.roleid, False) or entry.propagate
                break
    return {"NoAccess": roles["NoAccess"]} if "NoAccess" in roles else roles


def _steps(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["/" + "/".join(parts[:count]) for count in range(len(parts) + 1)]


def _at(view: View, step: str, subjects: Iterable[tuple[str, str]]) -> list[AclEntry]:
    wanted = set(subjects)
    return [
        entry
        for entry in view.acl.values()
        if entry.path == step and (entry.kind, entry.subject) in wanted and _role(view, entry.roleid) is not None
    ]
