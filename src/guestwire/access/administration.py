"""Changes to users, groups, tokens, roles, ACLs and pools: each function takes the view as it is and returns what to change in it.

Pure, so that the API and the command line do the same. Refusals are worded as Proxmox VE words them.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from guestwire.access.engine import SUPERUSER
from guestwire.access.paths import is_known, normalize
from guestwire.access.privileges import ALL
from guestwire.access.roles import refuse_built_in, roles
from guestwire.errors import AccessRefused, InvalidParameters
from guestwire.stores.records import AclEntry, Change, Group, Pool, Put, Remove, Role, SubjectKind, Token, User
from guestwire.stores.view import View

Changes = list[Change]


def existing_user(view: View, userid: str) -> User:
    """The user.

    Raises:
        AccessRefused: there is none.
    """
    if user := view.users.get(userid):
        return user
    raise AccessRefused(f"no such user ('{userid}')")


def add_user(view: View, user: User, groups: Collection[str] = ()) -> Changes:
    """A new user, in these groups."""
    if user.userid in view.users or user.userid == SUPERUSER:
        raise AccessRefused(f"create user failed: user '{user.userid}' already exists")
    return [Put(user), *_memberships(view, user.userid, groups, append=True)]


def change_user(
    view: View, userid: str, fields: Mapping[str, Any], groups: Collection[str] | None = None, *, append: bool = False
) -> Changes:
    """Other values for these fields of a user; `groups` are added to those it has (`append`), or take their place."""
    changed = replace(existing_user(view, userid), **fields)
    return [Put(changed), *(() if groups is None else _memberships(view, userid, groups, append=append))]


def _memberships(view: View, userid: str, groups: Collection[str], *, append: bool) -> Iterator[Change]:
    for groupid in groups:
        if groupid not in view.groups:
            raise AccessRefused(f"no such group '{groupid}'")
    for group in view.groups.values():
        if group.groupid in groups:
            yield Put(replace(group, members=group.members | {userid}))
        elif userid in group.members and not append:
            yield Put(replace(group, members=group.members - {userid}))


def remove_user(view: View, userid: str) -> Changes:
    """A user goes, with tokens, memberships and ACL entries."""
    if userid == SUPERUSER:
        raise AccessRefused(f"delete user failed: '{SUPERUSER}' can't be removed")
    existing_user(view, userid)
    return [Remove(User, userid)]


def existing_token(view: View, userid: str, tokenid: str) -> Token:
    """The token of an existing user.

    Raises:
        AccessRefused: there is none.
    """
    existing_user(view, userid)
    if token := view.tokens.get(f"{userid}!{tokenid}"):
        return token
    raise AccessRefused(f"no such token '{tokenid}' for user '{userid}'")


def add_token(view: View, token: Token) -> Changes:
    """A new token of an existing user."""
    existing_user(view, token.userid)
    if token.key in view.tokens:
        raise InvalidParameters({"tokenid": "Token already exists."})
    return [Put(token)]


def change_token(view: View, userid: str, tokenid: str, fields: Mapping[str, Any]) -> Changes:
    """Other values for these fields of a token."""
    return [Put(replace(existing_token(view, userid, tokenid), **fields))]


def remove_token(view: View, userid: str, tokenid: str) -> Changes:
    """A token goes, with its ACL entries."""
    return [Remove(Token, existing_token(view, userid, tokenid).key)]


def existing_group(view: View, groupid: str) -> Group:
    """The group.

    Raises:
        AccessRefused: there is none.
    """
    if group := view.groups.get(groupid):
        return group
    raise AccessRefused(f"group '{groupid}' does not exist")


def add_group(view: View, group: Group) -> Changes:
    """A new group."""
    if group.groupid in view.groups:
        raise AccessRefused(f"create group failed: group '{group.groupid}' already exists")
    return [Put(group)]


def change_group(view: View, groupid: str, fields: Mapping[str, Any]) -> Changes:
    """Other values for these fields of a group."""
    return [Put(replace(existing_group(view, groupid), **fields))]


def remove_group(view: View, groupid: str) -> Changes:
    """A group goes, with its ACL entries."""
    return [Remove(Group, existing_group(view, groupid).groupid)]


def existing_role(view: View, roleid: str) -> frozenset[str]:
    """The privileges of a role, built-in or own.

    Raises:
        AccessRefused: there is none.
    """
    if (privileges := roles(view).get(roleid)) is not None:
        return privileges
    raise AccessRefused(f"role '{roleid}' does not exist")


def add_role(view: View, role: Role) -> Changes:
    """A new role."""
    if role.roleid in roles(view):
        raise AccessRefused(f"create role failed: role '{role.roleid}' already exists")
    return [Put(_with_known_privileges(role))]


def change_role(view: View, roleid: str, privileges: Collection[str], *, append: bool = False) -> Changes:
    """Other privileges for an own role, or more of them (`append`)."""
    before = _own_role(view, roleid, "modified")
    kept = before.privileges if append else frozenset()
    return [Put(_with_known_privileges(Role(roleid, kept | frozenset(privileges))))]


def remove_role(view: View, roleid: str) -> Changes:
    """An own role goes, with the ACL entries that name it."""
    return [Remove(Role, _own_role(view, roleid, "deleted").roleid)]


def _own_role(view: View, roleid: str, what: str) -> Role:
    refuse_built_in(roleid, what)
    existing_role(view, roleid)
    return view.roles[roleid]


def _with_known_privileges(role: Role) -> Role:
    for privilege in sorted(role.privileges):
        if privilege not in ALL:
            raise AccessRefused(f"invalid privilege '{privilege}'")
    return role


def acl_path(path: str) -> str:
    """The path as ACL entries have it.

    Raises:
        InvalidParameters: it means nothing.
    """
    found = normalize(path)
    if found is None or not is_known(found):
        raise InvalidParameters({"path": f"invalid ACL path '{path}'"})
    return found


def add_acl(
    view: View, path: str, subjects: Iterable[tuple[SubjectKind, str]], given: Iterable[str], *, propagate: bool
) -> Changes:
    """These subjects have these roles on the path."""
    return [Put(entry) for entry in _acl_entries(view, path, subjects, given, propagate=propagate)]


def remove_acl(view: View, path: str, subjects: Iterable[tuple[SubjectKind, str]], given: Iterable[str]) -> Changes:
    """These subjects have these roles on the path no more; those that had none stay without."""
    entries = _acl_entries(view, path, subjects, given, propagate=True)
    return [Remove(AclEntry, entry.key) for entry in entries if entry.key in view.acl]


def _acl_entries(
    view: View, path: str, subjects: Iterable[tuple[SubjectKind, str]], given: Iterable[str], *, propagate: bool
) -> Iterator[AclEntry]:
    path, subjects = acl_path(path), list(subjects)
    for kind, subject in subjects:
        _check_subject(view, kind, subject)
    for role in given:
        existing_role(view, role)
        for kind, subject in subjects:
            yield AclEntry(path, kind, subject, role, propagate)


def _check_subject(view: View, kind: SubjectKind, subject: str) -> None:
    if kind == "user":
        existing_user(view, subject)
    elif kind == "group":
        existing_group(view, subject)
    else:
        userid, _, tokenid = subject.partition("!")
        existing_token(view, userid, tokenid)


def existing_pool(view: View, poolid: str) -> Pool:
    """The pool.

    Raises:
        AccessRefused: there is none.
    """
    if pool := view.pools.get(poolid):
        return pool
    raise AccessRefused(f"pool '{poolid}' does not exist")


def add_pool(view: View, pool: Pool) -> Changes:
    """A new pool."""
    if pool.poolid in view.pools:
        raise AccessRefused(f"create pool failed: pool '{pool.poolid}' already exists")
    return [Put(pool)]


def change_pool(
    view: View,
    poolid: str,
    *,
    comment: str | None = None,
    add: Collection[int] = (),
    remove: Collection[int] = (),
    move: bool = False,
) -> Changes:
    """Another comment for a pool, VMs more or less; a VM of another pool is taken from there only with `move`."""
    pool = existing_pool(view, poolid)
    losers = _losing_pools(view, poolid, add, move=move)
    for vmid in remove:
        if vmid not in pool.vms:
            raise AccessRefused(f"update pool failed: VM {vmid} is not a member of pool '{poolid}'")
    vms = (pool.vms | frozenset(add)) - frozenset(remove)
    changed = replace(pool, vms=vms, comment=pool.comment if comment is None else comment)
    return [*losers, Put(changed)]


def _losing_pools(view: View, poolid: str, vms: Collection[int], *, move: bool) -> Changes:
    owners = {view.pool_of[vmid] for vmid in vms if vmid in view.pool_of} - {poolid}
    for vmid in vms:
        if not move and view.pool_of.get(vmid, poolid) != poolid:
            raise AccessRefused(
                f"update pool failed: VM {vmid} belongs already to pool '{view.pool_of[vmid]}' and allow-move is not set"
            )
    pools = (view.pools[owner] for owner in sorted(owners))
    return [Put(replace(pool, vms=pool.vms - frozenset(vms))) for pool in pools]


def remove_pool(view: View, poolid: str) -> Changes:
    """An empty pool goes, with the ACL entries on its path."""
    if existing_pool(view, poolid).vms:
        raise AccessRefused(f"delete pool failed: pool '{poolid}' is not empty")
    return [Remove(Pool, poolid)]
