"""Everything that is stored, at one version: an immutable snapshot in memory, with the indexes that decisions need.

A change makes a new snapshot; what it does not touch is shared with the old one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from guestwire.errors import StoreRefused
from guestwire.stores.records import (
    TYPES,
    AclEntry,
    AclKey,
    Frozen,
    Group,
    Pool,
    Role,
    SigningKey,
    Stored,
    StoredTask,
    Token,
    User,
    VmId,
)

T = TypeVar("T")

Tables = Mapping[type[Stored], Mapping[Any, Any]]
"""Records by type and `key`."""
AclOfSubject = Mapping[str, tuple[AclEntry, ...]]
"""Entries by path."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A snapshot. All mappings are read-only.

    Attributes:
        version: rises with each change.
        users, groups, tokens, roles, acl, pools, keys, frozen, tasks, vm_ids: the records by their `key`.
        acl_of: the ACL entries of a (kind, subject), by path.
        acl_paths: how many entries are on a path; paths without any are missing.
        groups_of: groupids by userid.
        tokens_of: keys of tokens by userid.
        pool_of: poolid by vmid.
    """

    version: int
    users: Mapping[str, User]
    groups: Mapping[str, Group]
    tokens: Mapping[str, Token]
    roles: Mapping[str, Role]
    acl: Mapping[AclKey, AclEntry]
    pools: Mapping[str, Pool]
    keys: Mapping[str, SigningKey]
    frozen: Mapping[int, Frozen]
    tasks: Mapping[str, StoredTask]
    vm_ids: Mapping[str, VmId]
    acl_of: Mapping[tuple[str, str], AclOfSubject]
    acl_paths: Mapping[str, int]
    groups_of: Mapping[str, frozenset[str]]
    tokens_of: Mapping[str, frozenset[str]]
    pool_of: Mapping[int, str]
    _derived: dict[Any, Any] = field(default_factory=dict, repr=False)

    def derive(self, make: Callable[["Snapshot"], T]) -> T:
        """What `make` makes of this snapshot, made once and kept as long as the snapshot; `make` should be a class or a function of a module."""
        found: T | None = self._derived.get(make)
        if found is None:
            found = self._derived[make] = make(self)
        return found

    def tables(self) -> Tables:
        """The records by type and key."""
        found: tuple[Mapping[Any, Any], ...] = (
            self.users, self.groups, self.tokens, self.roles, self.acl, self.pools, self.keys, self.frozen,
            self.tasks, self.vm_ids,
        )  # fmt: skip
        return dict(zip(TYPES, found, strict=True))


def empty() -> Snapshot:
    """Nothing, at version 0."""
    return of(0, ())


def of(version: int, records: Iterable[Stored]) -> Snapshot:
    """A snapshot of these records.

    Raises:
        StoreRefused: a VM is in two pools.
    """
    tables: dict[type[Stored], dict[Any, Any]] = {kind: {} for kind in TYPES}
    for record in records:
        tables[type(record)][record.key] = record
    entries = tables[AclEntry].values()
    return _snapshot(version, tables, *_acl({}, {}, (), entries), _members(tables), _owners(tables), _pools(tables))


def next_snapshot(snapshot: Snapshot, tables: Tables, gone: Iterable[AclEntry], new: Iterable[AclEntry]) -> Snapshot:
    """The snapshot after `snapshot`, with these tables; tables that are the same as in `snapshot` keep their indexes.

    `gone` and `new` say how the ACL differs: its index is not built anew, for it may be large.

    Raises:
        StoreRefused: a VM is in two pools.
    """
    old = snapshot.tables()
    same = {kind for kind in TYPES if tables[kind] is old[kind]}
    acl = (
        (snapshot.acl_of, snapshot.acl_paths)
        if AclEntry in same
        else _acl(snapshot.acl_of, snapshot.acl_paths, gone, new)
    )
    groups = snapshot.groups_of if Group in same else _members(tables)
    tokens = snapshot.tokens_of if Token in same else _owners(tables)
    return _snapshot(
        snapshot.version + 1, tables, *acl, groups, tokens, snapshot.pool_of if Pool in same else _pools(tables)
    )


def _snapshot(version: int, tables: Tables, *indexes: Mapping[Any, Any]) -> Snapshot:
    return Snapshot(version, *(_read_only(mapping) for mapping in (*(tables[kind] for kind in TYPES), *indexes)))  # type: ignore[arg-type] # in the order of the fields


def _read_only(mapping: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return mapping if isinstance(mapping, MappingProxyType) else MappingProxyType(mapping)


def _acl(
    by_subject: Mapping[tuple[str, str], AclOfSubject],
    by_path: Mapping[str, int],
    gone: Iterable[AclEntry],
    new: Iterable[AclEntry],
) -> tuple[dict[tuple[str, str], AclOfSubject], dict[str, int]]:
    changed: dict[tuple[str, str], dict[str, tuple[AclEntry, ...]]] = {}
    counts = defaultdict(int, by_path)
    for entry in gone:
        ours = _ours(changed, by_subject, entry)
        ours[entry.path] = tuple(other for other in ours[entry.path] if other.roleid != entry.roleid)
        counts[entry.path] -= 1
    for entry in new:
        ours = _ours(changed, by_subject, entry)
        ours[entry.path] = (*ours.get(entry.path, ()), entry)
        counts[entry.path] += 1
    merged = {**by_subject, **{subject: _without_empty(paths) for subject, paths in changed.items()}}
    return _without_empty(merged), _without_empty(counts)


def _ours(
    changed: dict[tuple[str, str], dict[str, tuple[AclEntry, ...]]],
    before: Mapping[tuple[str, str], AclOfSubject],
    entry: AclEntry,
) -> dict[str, tuple[AclEntry, ...]]:
    """The entries of this entry's subject, in a dictionary that is not yet anybody's."""
    subject = (entry.kind, entry.subject)
    if subject not in changed:
        changed[subject] = dict(before.get(subject, {}))
    return changed[subject]


K = TypeVar("K")
V = TypeVar("V")


def _without_empty(mapping: Mapping[K, V]) -> dict[K, V]:
    return {key: value for key, value in mapping.items() if value}


def _members(tables: Tables) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for group in tables[Group].values():
        for userid in group.members:
            found[userid].add(group.groupid)
    return {userid: frozenset(groups) for userid, groups in found.items()}


def _owners(tables: Tables) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for token in tables[Token].values():
        found[token.userid].add(token.key)
    return {userid: frozenset(tokens) for userid, tokens in found.items()}


def _pools(tables: Tables) -> dict[int, str]:
    found: dict[int, str] = {}
    for pool in tables[Pool].values():
        for vmid in pool.vms:
            if found.setdefault(vmid, pool.poolid) != pool.poolid:
                raise StoreRefused(f"VM {vmid} can't be in pool '{pool.poolid}': it is in pool '{found[vmid]}'")
    return found
