"""What a change means, for every store the same: which records it leaves, what goes with a record that is removed, what is refused."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from guestwire.errors import StoreRefused
from guestwire.stores.records import (
    AclEntry,
    Change,
    Group,
    Key,
    Pool,
    Put,
    Record,
    Role,
    Stored,
    Token,
    User,
)
from guestwire.stores.snapshot import Snapshot, next_snapshot

Outcome = dict[tuple[type[Stored], Key], Stored | None]
"""What a change made of each record it touched: the record as it is now, or None where there is none any more."""


def apply_changes(snapshot: Snapshot, changes: Sequence[Change]) -> tuple[Snapshot, Outcome]:
    """The snapshot after `changes`, and what they made of each record.

    What hangs on a record goes with it: a user's tokens and memberships, and the ACL entries of users, groups and
    tokens, of a role, and of a pool's path.

    Raises:
        StoreRefused: a record can't be stored or refers to one that is not there, or one to be removed is not there.
    """
    draft = _Draft(snapshot)
    for change in changes:
        draft.put(require_storable(change.record)) if isinstance(change, Put) else draft.remove(change.type, change.key)
    draft.check()
    return draft.finish(), draft.outcome


def require_storable(record: Stored) -> Stored:
    """`record`, if it can be written and read again.

    Raises:
        StoreRefused: a field is of the wrong type, too large, or no Unicode text.
    """
    why = _why_not(record)
    if why:
        raise StoreRefused(f"this {type(record).__name__} can't be stored: {why}")
    return record


def _why_not(record: Record) -> str:
    """Python's own words would quote the value, which may be a secret; the error must not even lead to them."""
    try:
        msgspec.json.decode(msgspec.json.encode(record), type=type(record))
    except msgspec.ValidationError as error:
        return str(error)
    except (UnicodeEncodeError, TypeError, OverflowError):
        return "it holds what can't be written as JSON"
    return ""


class _Draft:
    """Tables that are copied when they are first changed."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._before = snapshot
        self._tables: dict[type[Stored], Mapping[Any, Any]] = dict(snapshot.tables())
        self._own: dict[type[Stored], dict[Any, Any]] = {}
        self.outcome: Outcome = {}

    def finish(self) -> Snapshot:
        """The new snapshot."""
        before: Mapping[Any, AclEntry] = self._before.acl
        gone = [before[key] for kind, key in self.outcome if kind is AclEntry and key in before]
        new = [record for record in self.outcome.values() if isinstance(record, AclEntry)]
        return next_snapshot(self._before, self._tables, gone, new)

    def put(self, record: Stored) -> None:
        """Puts one record."""
        self._table(type(record))[record.key] = self.outcome[type(record), record.key] = record

    def remove(self, kind: type[Stored], key: Key) -> None:
        """Removes one record, after what hangs on it."""
        record = self._tables[kind].get(key)
        if record is None:
            raise StoreRefused(f"there is no {kind.__name__} '{_words(key)}'")
        self._cascade(record)
        del self._table(kind)[key]
        self.outcome[kind, key] = None

    def _table(self, kind: type[Stored]) -> dict[Any, Any]:
        if kind not in self._own:
            self._tables[kind] = self._own[kind] = dict(self._tables[kind])
        return self._own[kind]

    def _cascade(self, record: Stored) -> None:
        if isinstance(record, User):
            self._cascade_user(record.userid)
        elif isinstance(record, Group):
            self._remove_acl(kind="group", subject=record.groupid)
        elif isinstance(record, Token):
            self._remove_acl(kind="token", subject=record.key)
        elif isinstance(record, Role):
            self._remove_acl(roleid=record.roleid)
        elif isinstance(record, Pool):
            self._remove_acl(path=f"/pool/{record.poolid}")

    def _cascade_user(self, userid: str) -> None:
        for token in [token for token in self._tables[Token].values() if token.userid == userid]:
            self.remove(Token, token.key)
        for group in [group for group in self._tables[Group].values() if userid in group.members]:
            self.put(msgspec.structs.replace(group, members=group.members - {userid}))
        self._remove_acl(kind="user", subject=userid)

    def _remove_acl(self, **fields: str) -> None:
        wanted = fields.items()
        entries = self._tables[AclEntry].values()
        for entry in [one for one in entries if all(getattr(one, name) == value for name, value in wanted)]:
            self.remove(AclEntry, entry.key)

    def check(self) -> None:
        """True if all that was put refers to what is there."""
        for record in [record for record in self.outcome.values() if record]:
            for kind, key in _references(record):
                if key not in self._tables[kind]:
                    what = f"{type(record).__name__} '{_words(record.key)}'"
                    raise StoreRefused(f"{what} names the {kind.__name__.lower()} '{_words(key)}', and there is none")


_subjects: dict[str, type[Stored]] = {"user": User, "group": Group, "token": Token}


def _references(record: Stored) -> Iterator[tuple[type[Stored], Key]]:
    if isinstance(record, Token):
        yield User, record.userid
    elif isinstance(record, Group):
        yield from ((User, userid) for userid in record.members)
    elif isinstance(record, AclEntry):
        yield _subjects[record.kind], record.subject


def _words(key: Key) -> str:
    return " ".join(key) if isinstance(key, tuple) else str(key)
