"""Records as rows: reading all of them, writing what a change made of them."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from guestwire.stores.audit_filter import clamp, conditions, ended_in
from guestwire.stores.changes import Outcome
from guestwire.stores.records import (
    BEGUN,
    TYPES,
    AclEntry,
    AuditFilter,
    AuditRecord,
    Frozen,
    Group,
    Pool,
    Role,
    SigningKey,
    Stored,
    StoredTask,
    Token,
    User,
    VmIdentity,
)
from guestwire.stores.snapshot import Snapshot, of

Connection = sqlite3.Connection

# Reading


def version(connection: Connection) -> int:
    """The version of what is stored."""
    return int(connection.execute("SELECT version FROM state").fetchone()[0])


def read(connection: Connection) -> Snapshot:
    """Everything; the caller holds a transaction, so that it is of one moment."""
    readers = (_users, _groups, _tokens, _roles, _acl, _pools, _keys, _frozen, _tasks, _vmids)
    return of(version(connection), (record for reader in readers for record in reader(connection)))


def _users(connection: Connection) -> Iterator[User]:
    rows = connection.execute(
        "SELECT userid, enable, expire, firstname, lastname, email, comment, keys, password_hash, ticket_version FROM users"
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


def _frozen(connection: Connection) -> Iterator[Frozen]:
    rows = connection.execute("SELECT vmid, subject, since, count, until, connected, watchdog FROM frozen")
    return (
        Frozen(vmid, subject, since, count, until, bool(connected), watchdog)
        for vmid, subject, since, count, until, connected, watchdog in rows
    )


def _tasks(connection: Connection) -> Iterator[StoredTask]:
    return (StoredTask(*row) for row in connection.execute("SELECT upid, status, endtime, log FROM tasks"))


def _vmids(connection: Connection) -> Iterator[VmIdentity]:
    return (VmIdentity(*row) for row in connection.execute("SELECT key, vmid FROM vmids"))


def _sets(pairs: Iterable[tuple[str, Any]]) -> defaultdict[str, frozenset[Any]]:
    found: dict[str, set[Any]] = defaultdict(set)
    for key, value in pairs:
        found[key].add(value)
    return defaultdict(frozenset, {key: frozenset(values) for key, values in found.items()})


# Writing


def _upsert(table: str, key: str, *columns: str) -> str:
    names = (*key.split(), *columns)
    update = ", ".join(f"{name} = excluded.{name}" for name in columns)
    conflict = f"UPDATE SET {update}" if update else "NOTHING"
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) ON CONFLICT DO {conflict}"  # noqa: S608  # constants


@dataclass(frozen=True, slots=True)
class _Table:
    """How records of one type are written.

    Attributes:
        put: writes one row, or changes it.
        row: the row of a record.
        delete: by its key.
        put_part: writes a row of its set, a key and an item each; "" for types without one.
        parts: the items of the set.
        delete_parts: by the record's key.
    """

    put: str
    row: Callable[[Any], tuple[Any, ...]]
    delete: str
    put_part: str = ""
    parts: Callable[[Any], Iterable[Any]] = lambda _: ()
    delete_parts: str = ""


_USER: Final = (
    "enable", "expire", "firstname", "lastname", "email", "comment", "keys", "password_hash", "ticket_version",
)  # fmt: skip

_TABLES: Final[dict[type[Stored], _Table]] = {
    User: _Table(_upsert("users", "userid", *_USER), msgspec.structs.astuple, "DELETE FROM users WHERE userid = ?"),
    Group: _Table(
        _upsert("groups", "groupid", "comment"), lambda group: (group.groupid, group.comment),
        "DELETE FROM groups WHERE groupid = ?", "INSERT INTO group_members (groupid, userid) VALUES (?, ?)",
        lambda group: group.members, "DELETE FROM group_members WHERE groupid = ?",
    ),
    Token: _Table(
        _upsert("tokens", "key userid tokenid", "secret_hash", "privsep", "expire", "comment"),
        lambda token: (token.key, *msgspec.structs.astuple(token)), "DELETE FROM tokens WHERE key = ?",
    ),
    Role: _Table(
        _upsert("roles", "roleid"), lambda role: (role.roleid,), "DELETE FROM roles WHERE roleid = ?",
        "INSERT INTO role_privileges (roleid, privilege) VALUES (?, ?)", lambda role: role.privileges,
        "DELETE FROM role_privileges WHERE roleid = ?",
    ),
    AclEntry: _Table(
        _upsert("acl", "path kind subject roleid", "propagate"), msgspec.structs.astuple,
        "DELETE FROM acl WHERE path = ? AND kind = ? AND subject = ? AND roleid = ?",
    ),
    Pool: _Table(
        _upsert("pools", "poolid", "comment"), lambda pool: (pool.poolid, pool.comment),
        "DELETE FROM pools WHERE poolid = ?", "INSERT INTO pool_vms (poolid, vmid) VALUES (?, ?)",
        lambda pool: pool.vms, "DELETE FROM pool_vms WHERE poolid = ?",
    ),
    SigningKey: _Table(
        _upsert("signing_keys", "id", "kind", "created", "private"), msgspec.structs.astuple,
        "DELETE FROM signing_keys WHERE id = ?",
    ),
    Frozen: _Table(
        _upsert("frozen", "vmid", "subject", "since", "count", "until", "connected", "watchdog"), msgspec.structs.astuple,
        "DELETE FROM frozen WHERE vmid = ?",
    ),
    VmIdentity: _Table(
        _upsert("vmids", "key", "vmid"), msgspec.structs.astuple, "DELETE FROM vmids WHERE key = ?",
    ),
    StoredTask: _Table(
        _upsert("tasks", "upid", "status", "endtime", "log"), msgspec.structs.astuple, "DELETE FROM tasks WHERE upid = ?",
    ),
}  # fmt: skip


def write(connection: Connection, outcome: Outcome, new_version: int) -> None:
    """Writes what a change made; the caller holds the transaction, and references are checked at its end."""
    for kind in TYPES:
        table = _TABLES[kind]
        touched = {key: record for (type_, key), record in outcome.items() if type_ is kind}
        if table.delete_parts:  # before any is written: a VM may move from one pool to another in one change
            connection.executemany(table.delete_parts, [(key,) for key in touched])
        removed = (key for key, record in touched.items() if record is None)
        connection.executemany(table.delete, [key if isinstance(key, tuple) else (key,) for key in removed])
        for key, record in touched.items():
            if record is None:
                continue
            connection.execute(table.put, table.row(record))
            if table.put_part:
                connection.executemany(table.put_part, [(key, item) for item in table.parts(record)])
    connection.execute("UPDATE state SET version = ?", (new_version,))


# Audit

_columns: Final = "time, request_id, subject, address, vmid, endpoint, parameters, status, result, duration_ms"


def append_audit(connection: Connection, records: Sequence[AuditRecord]) -> None:
    """Adds records that are `audit.storable`; the end of a call takes the place of its beginning."""
    ended = ended_in(records)
    connection.executemany(
        f"DELETE FROM audit WHERE request_id = ? AND status = {BEGUN}",  # noqa: S608 - a number
        [(request_id,) for request_id in ended],
    )
    rows = (
        msgspec.structs.astuple(record)[:-1]
        for record in records
        if record.status != BEGUN or record.request_id not in ended
    )
    connection.executemany(
        f"INSERT INTO audit ({_columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
        [(*row[:6], msgspec.json.encode(row[6]).decode(), *row[7:]) for row in rows],
    )


def read_audit(connection: Connection, wanted: AuditFilter, after: int | None, limit: int) -> list[AuditRecord]:
    """The first `limit` records after number `after`, or (None) the last of all; in order of their number."""
    tests, values = conditions(wanted)
    if after is not None:
        tests, values = [*tests, "number > ?"], [*values, clamp(after)]
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
