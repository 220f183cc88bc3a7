"""Changes to users, groups, tokens, roles, ACLs and pools: each function takes the snapshot as it is and returns what to change in it.

Pure, so that the API and the command line do the same. Refusals are worded as Proxmox VE words them: what was wrong is
said here, what failed by it (`failing`) by the endpoint. Clients look for both.
"""

import contextlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec.structs import replace

from guestwire.access.engine import SUPERUSER
from guestwire.access.paths import is_known, normalize
from guestwire.access.roles import refuse_built_in, roles
from guestwire.errors import AccessRefused, InvalidParameters
from guestwire.stores.records import AclEntry, Change, Group, Pool, Put, Remove, Role, SubjectKind, Token, User
from guestwire.stores.snapshot import Snapshot

Changes = list[Change]

_reserved: Final = re.compile("PVE", re.IGNORECASE)


@contextlib.contextmanager
def failing(what: str) -> Iterator[None]:
    """Puts what failed before the text of a refusal.

    Args:
        what: for example "create user failed".
    """
    try:
        yield
    except AccessRefused as error:
        raise AccessRefused(f"{what}: {error}") from error


def existing_user(snapshot: Snapshot, userid: str) -> User:
    """The user.

    Raises:
        AccessRefused: there is none.
    """
    if user := snapshot.users.get(userid):
        return user
    raise AccessRefused(f"no such user ('{userid}')")


def add_user(snapshot: Snapshot, user: User, groups: Collection[str] = ()) -> Changes:
    """A new user, in these groups."""
    if user.userid in snapshot.users or user.userid == SUPERUSER:
        raise AccessRefused(f"user '{user.userid}' already exists")
    return [Put(user), *_memberships(snapshot, user.userid, groups, append=True)]


def change_user(
    snapshot: Snapshot,
    userid: str,
    fields: Mapping[str, Any],
    groups: Collection[str] | None = None,
    *,
    append: bool = False,
) -> Changes:
    """Other values for these fields of a user; `groups` are added to those it has (`append`), or take their place."""
    changed = replace(existing_user(snapshot, userid), **fields)
    return [Put(changed), *(() if groups is None else _memberships(snapshot, userid, groups, append=append))]


def _memberships(snapshot: Snapshot, userid: str, groups: Collection[str], *, append: bool) -> Iterator[Change]:
    for groupid in groups:
        if groupid not in snapshot.groups:
            raise AccessRefused(f"no such group '{groupid}'")
    for group in snapshot.groups.values():
        if group.groupid in groups:
            yield Put(replace(group, members=group.members | {userid}))
        elif userid in group.members and not append:
            yield Put(replace(group, members=group.members - {userid}))


def remove_user(snapshot: Snapshot, userid: str) -> Changes:
    """A user goes, with tokens, memberships and ACL entries."""
    if userid == SUPERUSER:
        raise AccessRefused(f"'{SUPERUSER}' can't be removed")
    existing_user(snapshot, userid)
    return [Remove(User, userid)]


def existing_token(snapshot: Snapshot, userid: str, tokenid: str) -> Token:
    """The token of an existing user.

    Raises:
        AccessRefused: there is none.
    """
    existing_user(snapshot, userid)
    if token := snapshot.tokens.get(f"{userid}!{tokenid}"):
        return token
    raise AccessRefused(f"no such token '{tokenid}' for user '{userid}'")


def add_token(snapshot: Snapshot, token: Token) -> Changes:
    """A new token of an existing user."""
    existing_user(snapshot, token.userid)
    if token.key in snapshot.tokens:
        raise InvalidParameters({"tokenid": "Token already exists."})
    return [Put(token)]


def change_token(snapshot: Snapshot, userid: str, tokenid: str, fields: Mapping[str, Any]) -> Changes:
    """Other values for these fields of a token."""
    return [Put(replace(existing_token(snapshot, userid, tokenid), **fields))]


def remove_token(snapshot: Snapshot, userid: str, tokenid: str) -> Changes:
    """A token goes, with its ACL entries."""
    return [Remove(Token, existing_token(snapshot, userid, tokenid).key)]


def existing_group(snapshot: Snapshot, groupid: str) -> Group:
    """The group.

    Raises:
        AccessRefused: there is none.
    """
    if group := snapshot.groups.get(groupid):
        return group
    raise AccessRefused(f"group '{groupid}' does not exist")


def add_group(snapshot: Snapshot, group: Group) -> Changes:
    """A new group."""
    if group.groupid in snapshot.groups:
        raise AccessRefused(f"group '{group.groupid}' already exists")
    return [Put(group)]


def change_group(snapshot: Snapshot, groupid: str, fields: Mapping[str, Any]) -> Changes:
    """Other values for these fields of a group."""
    return [Put(replace(existing_group(snapshot, groupid), **fields))]


def remove_group(snapshot: Snapshot, groupid: str) -> Changes:
    """A group goes, with its ACL entries."""
    return [Remove(Group, existing_group(snapshot, groupid).groupid)]


def existing_role(snapshot: Snapshot, roleid: str) -> frozenset[str]:
    """The privileges of a role, built-in or own.

    Raises:
        AccessRefused: there is none.
    """
    if (privileges := roles(snapshot).get(roleid)) is not None:
        return privileges
    raise AccessRefused(f"role '{roleid}' does not exist")


def add_role(snapshot: Snapshot, role: Role) -> Changes:
    """A new role; names that begin with PVE are kept for built-in ones of later releases."""
    if _reserved.match(role.roleid):
        raise InvalidParameters({"roleid": "cannot use role ID starting with the (case-insensitive) 'PVE' namespace"})
    if role.roleid in roles(snapshot):
        raise AccessRefused(f"role '{role.roleid}' already exists")
    return [Put(role)]


def change_role(snapshot: Snapshot, roleid: str, privileges: Collection[str], *, append: bool = False) -> Changes:
    """Other privileges for an own role, or more of them (`append`)."""
    before = _own_role(snapshot, roleid, "modified")
    kept = before.privileges if append else frozenset()
    return [Put(Role(roleid, kept | frozenset(privileges)))]


def remove_role(snapshot: Snapshot, roleid: str) -> Changes:
    """An own role goes, with the ACL entries that name it."""
    return [Remove(Role, _own_role(snapshot, roleid, "deleted").roleid)]


def _own_role(snapshot: Snapshot, roleid: str, what: str) -> Role:
    refuse_built_in(roleid, what)
    existing_role(snapshot, roleid)
    return snapshot.roles[roleid]


def acl_path(path: str, *, is_removal: bool = False) -> str:
    """The path as ACL entries have it.

    Args:
        path: as it was given.
        is_removal: entries on a path that means nothing may still be there, and go.

    Raises:
        InvalidParameters: it is no path, or one that means nothing.
    """
    found = normalize(path)
    if found is None or not (is_removal or is_known(found)):
        raise InvalidParameters({"path": f"invalid ACL path '{path}'"})
    return found


def add_acl(
    snapshot: Snapshot, path: str, subjects: Iterable[tuple[SubjectKind, str]], given: Iterable[str], *, propagate: bool
) -> Changes:
    """These subjects have these roles on the path."""
    return [Put(entry) for entry in _acl_entries(snapshot, acl_path(path), subjects, given, propagate=propagate)]


def remove_acl(
    snapshot: Snapshot, path: str, subjects: Iterable[tuple[SubjectKind, str]], given: Iterable[str]
) -> Changes:
    """These subjects have these roles on the path no more; those that had none stay without."""
    entries = _acl_entries(snapshot, acl_path(path, is_removal=True), subjects, given, propagate=True)
    return [Remove(AclEntry, entry.key) for entry in entries if entry.key in snapshot.acl]


def _acl_entries(
    snapshot: Snapshot, path: str, subjects: Iterable[tuple[SubjectKind, str]], given: Iterable[str], *, propagate: bool
) -> Iterator[AclEntry]:
    subjects = list(subjects)
    for role in given:
        existing_role(snapshot, role)
        for kind, subject in subjects:
            _check_subject(snapshot, kind, subject)
            yield AclEntry(path, kind, subject, role, propagate)


def _check_subject(snapshot: Snapshot, kind: SubjectKind, subject: str) -> None:
    if kind == "token":
        userid, _, tokenid = subject.partition("!")
        existing_token(snapshot, userid, tokenid)
    elif kind == "group":
        existing_group(snapshot, subject)
    elif subject not in snapshot.users:
        raise AccessRefused(f"user '{subject}' does not exist")


def existing_pool(snapshot: Snapshot, poolid: str) -> Pool:
    """The pool.

    Raises:
        AccessRefused: there is none.
    """
    if pool := snapshot.pools.get(poolid):
        return pool
    raise AccessRefused(f"pool '{poolid}' does not exist")


def add_pool(snapshot: Snapshot, pool: Pool) -> Changes:
    """A new pool."""
    if pool.poolid in snapshot.pools:
        raise AccessRefused(f"pool '{pool.poolid}' already exists")
    if not pool.poolid[0].isalpha():
        raise AccessRefused("pool name must start with a letter")
    parent = pool.poolid.rpartition("/")[0]
    if parent and parent not in snapshot.pools:
        raise AccessRefused(f"parent '{parent}' of pool '{pool.poolid}' does not exist")
    return [Put(pool)]


def change_pool(
    snapshot: Snapshot,
    poolid: str,
    *,
    comment: str | None = None,
    add: Collection[int] = (),
    remove: Collection[int] = (),
    move: bool = False,
) -> Changes:
    """Another comment for a pool, VMs more or less; a VM of another pool is taken from there only with `move`."""
    pool = existing_pool(snapshot, poolid)
    owners = {vmid: snapshot.pool_of.get(vmid) for vmid in (*add, *remove)}
    for vmid in remove:
        if owners[vmid] != poolid:
            raise AccessRefused(f"VM {vmid} is not a pool member")
    for vmid in add:
        if owners[vmid] == poolid:
            raise AccessRefused(f"VM {vmid} is already a pool member")
        if owners[vmid] and not move:
            raise AccessRefused(f"VM {vmid} belongs already to pool '{owners[vmid]}' and allow-move is not set")
    losers = (snapshot.pools[owner] for owner in sorted({owner for owner in owners.values() if owner} - {poolid}))
    vms = (pool.vms | frozenset(add)) - frozenset(remove)
    changed = replace(pool, vms=vms, comment=pool.comment if comment is None else comment)
    return [*(Put(replace(other, vms=other.vms - frozenset(add))) for other in losers), Put(changed)]


def remove_pool(snapshot: Snapshot, poolid: str, vms: Collection[int]) -> Changes:
    """An empty pool goes, with the ACL entries on its path.

    Args:
        snapshot: the store's.
        poolid: which one.
        vms: those that exist; others don't count.
    """
    pool = existing_pool(snapshot, poolid)
    inner = (f"pool '{other}'" for other in sorted(snapshot.pools) if other.startswith(f"{poolid}/"))
    members = (f"VM {vmid}" for vmid in sorted(pool.vms & frozenset(vms)))
    if content := next(itertools.chain(inner, members), None):
        raise AccessRefused(f"pool '{poolid}' is not empty (contains {content})")
    return [Remove(Pool, poolid)]
