"""A store that keeps nothing: for tests, and for a service that has no folder for its state."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from guestwire.errors import StoreConflict, StoreError
from guestwire.stores.audit_filter import ended_in, matches, storable
from guestwire.stores.changes import apply_changes
from guestwire.stores.records import BEGUN, AuditFilter, AuditRecord, Change, Stored
from guestwire.stores.snapshot import Snapshot, empty, of
from guestwire.stores.store import Listener
from guestwire.stores.watchers import Watchers

AUDIT_ROWS: Final = 10_000
"""How many audit records are kept; older ones go."""


class MemoryStore:
    """A `Store` and `AuditLog` in memory. Belongs to one thread."""

    def __init__(self, records: Iterable[Stored] = (), *, audit_rows: int = AUDIT_ROWS) -> None:
        self.snapshot = of(1, records) if records else empty()
        self._watchers = Watchers()
        self._audit: deque[AuditRecord] = deque(maxlen=audit_rows)
        self._numbers = itertools.count(1)
        self._closed = False

    async def change(self, version: int, changes: Sequence[Change]) -> Snapshot:
        """See `Store.change`."""
        self._check_open()
        if version != self.snapshot.version:
            raise StoreConflict(version, self.snapshot.version)
        self.snapshot, _ = apply_changes(self.snapshot, changes)
        self._watchers.tell(self.snapshot)
        return self.snapshot

    def watch(self, tell: Listener) -> Callable[[], None]:
        """See `Store.watch`."""
        return self._watchers.add(tell)

    async def append_audit(self, records: Sequence[AuditRecord]) -> None:
        """See `AuditLog.append_audit`."""
        self._check_open()
        ended = ended_in(records)
        new = (msgspec.structs.replace(storable(record), number=next(self._numbers)) for record in records)
        kept = [one for one in (*self._audit, *new) if one.status != BEGUN or one.request_id not in ended]
        self._audit = deque(kept, self._audit.maxlen)

    async def audit(
        self, wanted: AuditFilter | None = None, *, after: int | None = None, limit: int = 1000
    ) -> list[AuditRecord]:
        """See `AuditLog.audit`."""
        self._check_open()
        found = [
            record
            for record in self._audit
            if matches(record, wanted or AuditFilter()) and record.number > (after or 0)
        ]
        return found[:limit] if after is not None else found[max(len(found) - limit, 0) :]

    async def prune_audit(self, *, before: float, max_rows: int) -> int:
        """See `AuditLog.prune_audit`."""
        self._check_open()
        kept = [record for record in self._audit if record.time >= before]
        kept = kept[max(len(kept) - max_rows, 0) :]
        gone = len(self._audit) - len(kept)
        self._audit = deque(kept, self._audit.maxlen)
        return gone

    async def close(self) -> None:
        """See `Store.close`."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
