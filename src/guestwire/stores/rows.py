"""Records as rows: reading all of them, writing what a change made of them."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from guestwire.stores.audit_filter import bounded, conditions
from guestwire.stores.changes import Outcome
from guestwire.stores.records import (
    TYPES,
    AclEntry,
    AuditFilter,
    AuditRecord,
    Group,
    Key,
    Pool,
    Role,
    SigningKey,
    Stored,
    Token,
    User,
)
from guestwire.stores.snapshot import Snapshot, of

Connection = sqlite3.Connection

# Reading


def version(connection: Connection) -> int:
    """The version of what is stored."""
    return int(connection.execute("SELECT version FROM state").fetchone()[0])


def read(connection: Connection) -> Snapshot:
    """Everything; the caller holds a transaction, so that it is of one moment."""
    readers = (_users, _groups, _tokens, _roles, _acl, _pools, _keys)
    return of(version(connection), (record for reader in readers for record in reader(connection)))


def _users(connection: Connection) -> Iterator[User]:
    rows = connection.execute(
        "SELECT userid, enable, expire, firstname, lastname, email, comment, keys, password_hash FROM users"
    )
    return (User(userid, bool(enable), *rest) for userid, enable, *rest in rows)


def _groups(connection: Connection) -> Iterator[Group]:
    members = _sets(connection.execute("SELECT groupid, userid FROM group_members"))
    rows = connection.execute("SELECT groupid, comment FROM groups")
    return (Group(groupid, comment, members[groupid]) for groupid, comment in rows)


def _tokens(connection: Connection) -> Iterator[Token]:
    rows = connection.execute("SELECT userid, tokenid, secret_hash, privsep, expire, comment FROM tokens")
    return (Token(user, name, secret, bool(privsep), *rest) for user, name, secret, privsep, *rest in rows)


def _roles(connection: Connection) -> Iterator[Role]:
    privileges = _sets(connection.execute("SELECT roleid, privilege FROM role_privileges"))
    return (Role(roleid, privileges[roleid]) for (roleid,) in connection.execute("SELECT roleid FROM roles"))


def _acl(connection: Connection) -> Iterator[AclEntry]:
    rows = connection.execute("SELECT path, kind, subject, roleid, propagate FROM acl")
    same: dict[str, str] = {}  # texts that come again and again are kept once
    share = same.setdefault
    return (
        AclEntry(share(path, path), share(kind, kind), share(subject, subject), share(role, role), bool(propagate))  # type: ignore[arg-type] # the table's own check
        for path, kind, subject, role, propagate in rows
    )


def _pools(connection: Connection) -> Iterator[Pool]:
    vms = _sets(connection.execute("SELECT poolid, vmid FROM pool_vms"))
    rows = connection.execute("SELECT poolid, comment FROM pools")
    return (Pool(poolid, comment, vms[poolid]) for poolid, comment in rows)


def _keys(connection: Connection) -> Iterator[SigningKey]:
    return (SigningKey(*row) for row in connection.execute("SELECT id, kind, created, private FROM signing_keys"))


def _sets(pairs: Iterable[tuple[str, Any]]) -> defaultdict[str, frozenset[Any]]:
    found: dict[str, set[Any]] = defaultdict(set)
    for key, value in pairs:
        found[key].add(value)
    return defaultdict(frozenset, {key: frozenset(values) for key, values in found.items()})


# Writing


def write(connection: Connection, outcome: Outcome, new_version: int) -> None:
    """Writes what a change made; the caller holds the transaction, and references are checked at its end."""
    for kind in TYPES:
        touched = {key: record for (type_, key), record in outcome.items() if type_ is kind}
        _forget(connection, kind, touched)
        for record in filter(None, touched.values()):
            _put[kind](connection, record)
    connection.execute("UPDATE state SET version = ?", (new_version,))


_delete: Final[dict[type[Stored], str]] = {
    User: "DELETE FROM users WHERE userid = ?",
    Group: "DELETE FROM groups WHERE groupid = ?",
    Token: "DELETE FROM tokens WHERE key = ?",
    Role: "DELETE FROM roles WHERE roleid = ?",
    AclEntry: "DELETE FROM acl WHERE path = ? AND kind = ? AND subject = ? AND roleid = ?",
    Pool: "DELETE FROM pools WHERE poolid = ?",
    SigningKey: "DELETE FROM signing_keys WHERE id = ?",
}

_delete_parts: Final[dict[type[Stored], str]] = {
    Group: "DELETE FROM group_members WHERE groupid = ?",
    Role: "DELETE FROM role_privileges WHERE roleid = ?",
    Pool: "DELETE FROM pool_vms WHERE poolid = ?",
}
"""Parts go before any is written: a VM may move from one pool to another in one change."""


def _forget(connection: Connection, kind: type[Stored], touched: dict[Key, Stored | None]) -> None:
    if kind in _delete_parts:
        connection.executemany(_delete_parts[kind], [(key,) for key in touched])
    gone = (key for key, record in touched.items() if record is None)
    connection.executemany(_delete[kind], [key if isinstance(key, tuple) else (key,) for key in gone])


def _put_user(connection: Connection, user: Any) -> None:
    connection.execute(
        "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET enable = excluded.enable,"
        " expire = excluded.expire, firstname = excluded.firstname, lastname = excluded.lastname, email = excluded.email,"
        " comment = excluded.comment, keys = excluded.keys, password_hash = excluded.password_hash",
        msgspec.structs.astuple(user),
    )


def _put_group(connection: Connection, group: Any) -> None:
    connection.execute(
        "INSERT INTO groups VALUES (?, ?) ON CONFLICT DO UPDATE SET comment = excluded.comment",
        (group.groupid, group.comment),
    )
    rows = [(group.groupid, userid) for userid in group.members]
    connection.executemany("INSERT INTO group_members VALUES (?, ?)", rows)


def _put_token(connection: Connection, token: Any) -> None:
    connection.execute(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET secret_hash = excluded.secret_hash,"
        " privsep = excluded.privsep, expire = excluded.expire, comment = excluded.comment",
        (token.key, *msgspec.structs.astuple(token)),
    )


def _put_role(connection: Connection, role: Any) -> None:
    connection.execute("INSERT INTO roles VALUES (?) ON CONFLICT DO NOTHING", (role.roleid,))
    rows = [(role.roleid, privilege) for privilege in role.privileges]
    connection.executemany("INSERT INTO role_privileges VALUES (?, ?)", rows)


def _put_acl(connection: Connection, entry: Any) -> None:
    connection.execute(
        "INSERT INTO acl (path, kind, subject, roleid, propagate) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET propagate = excluded.propagate",
        msgspec.structs.astuple(entry),
    )


def _put_pool(connection: Connection, pool: Any) -> None:
    connection.execute(
        "INSERT INTO pools VALUES (?, ?) ON CONFLICT DO UPDATE SET comment = excluded.comment",
        (pool.poolid, pool.comment),
    )
    connection.executemany("INSERT INTO pool_vms VALUES (?, ?)", [(vmid, pool.poolid) for vmid in pool.vms])


def _put_key(connection: Connection, key: Any) -> None:
    connection.execute(
        "INSERT INTO signing_keys VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET kind = excluded.kind,"
        " created = excluded.created, private = excluded.private",
        msgspec.structs.astuple(key),
    )


_put: Final[dict[type[Stored], Callable[[Connection, Any], None]]] = {
    User: _put_user,
    Group: _put_group,
    Token: _put_token,
    Role: _put_role,
    AclEntry: _put_acl,
    Pool: _put_pool,
    SigningKey: _put_key,
}

# Audit

_columns: Final = "time, request_id, subject, address, vmid, endpoint, parameters, status, result, duration_ms"


def append_audit(connection: Connection, records: Iterable[AuditRecord]) -> None:
    """Adds records that are `audit.storable`."""
    rows = (msgspec.structs.astuple(record)[:-1] for record in records)
    connection.executemany(
        f"INSERT INTO audit ({_columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
        [(*row[:6], msgspec.json.encode(row[6]).decode(), *row[7:]) for row in rows],
    )


def read_audit(connection: Connection, wanted: AuditFilter, after: int | None, limit: int) -> list[AuditRecord]:
    """The first `limit` records after number `after`, or (None) the last of all; in order of their number."""
    tests, values = conditions(wanted)
    if after is not None:
        tests, values = [*tests, "number > ?"], [*values, bounded(after)]
    order = "ASC" if after is not None else "DESC"
    rows = connection.execute(
        f"SELECT {_columns}, number FROM audit WHERE {' AND '.join(tests) or 'TRUE'} ORDER BY number {order} LIMIT ?",  # noqa: S608 - constants; values are bound
        [*values, limit],
    ).fetchall()
    found = [AuditRecord(*(*row[:6], msgspec.json.decode(row[6]), *row[7:])) for row in rows]
    return found if after is not None else found[::-1]


def prune_audit(connection: Connection, before: float, max_rows: int) -> int:
    """Throws away what is too old or too much; how many went."""
    old = connection.execute("DELETE FROM audit WHERE time < ?", (before,)).rowcount
    more = connection.execute(
        "DELETE FROM audit WHERE number <= (SELECT number FROM audit ORDER BY number DESC LIMIT 1 OFFSET ?)",
        (max_rows,),
    ).rowcount
    return old + more
