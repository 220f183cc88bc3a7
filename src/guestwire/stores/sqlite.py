"""A store in one SQLite file: any number of processes of one host may use it at once.

One thread does everything that touches the file. The snapshot is in memory; five times a second the thread asks SQLite
whether another process has written (`PRAGMA data_version`, which reads shared memory and no disk), and reads everything
anew if the version rose.
"""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

from guestwire.errors import StoreConflict, StoreError
from guestwire.stores import rows
from guestwire.stores.audit_filter import storable
from guestwire.stores.changes import apply_changes
from guestwire.stores.copies import InUse, backup
from guestwire.stores.records import AuditFilter, AuditRecord, Change
from guestwire.stores.schema import connect, data_version, transaction, translate_errors
from guestwire.stores.snapshot import Snapshot, empty
from guestwire.stores.store import Listener
from guestwire.stores.watchers import Watchers
from guestwire.stores.worker import Worker

LOOK_EVERY: Final = 0.2
BUSY: Final = 5.0
"""How many seconds SQLite waits for another process's lock."""
WITHIN: Final = 15.0
"""How many seconds a caller waits at most: longer than `BUSY`, so that the cause is told."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class SqliteStore:
    """A `KeptStore` in a file; made by `open`."""

    def __init__(self, path: Path, *, busy: float, within: float) -> None:
        self.path = path
        self._busy = busy
        self._within = within
        self.snapshot = empty()
        self._watchers = Watchers()
        self._connection: sqlite3.Connection | None = None
        self._in_use: InUse | None = None
        self._seen = 0
        self._trouble = ""
        self._worker = Worker(f"store {path.name}", self._look, LOOK_EVERY)

    @classmethod
    async def open(cls, path: Path, *, busy: float = BUSY, within: float = WITHIN) -> Self:
        """The store in `path`; the file is made when there is none, with mode 0600.

        Args:
            path: its folder must be there. SQLite puts files with `-wal` and `-shm` beside it, and this one with
                `.lock`.
            busy: seconds that SQLite waits for other processes.
            within: seconds that any call may take.

        Raises:
            StoreTooNew: the file is of a newer guestwire; it is not changed.
            StoreDamaged: the file is broken, another program's, or missing or empty where there was a store.
            StoreBusy: another process keeps it locked.
            StoreError: it can't be made or read.
        """
        store = cls(path, busy=busy, within=within)
        try:
            await store._worker.call(store._open, within)
        except BaseException:
            await store.close()
            raise
        return store

    async def change(self, version: int, changes: Sequence[Change]) -> Snapshot:
        """See `Store.change`."""
        return await self._call(lambda connection: self._change(connection, version, changes))

    def watch(self, tell: Listener) -> Callable[[], None]:
        """See `Store.watch`."""
        return self._watchers.add(tell)

    async def append_audit(self, records: Sequence[AuditRecord]) -> None:
        """See `AuditLog.append_audit`."""
        ready = [storable(record) for record in records]

        def append(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                rows.append_audit(connection, ready)

        await self._call(append)

    async def audit(
        self, wanted: AuditFilter | None = None, *, after: int | None = None, limit: int = 1000
    ) -> list[AuditRecord]:
        """See `AuditLog.audit`."""
        return await self._call(lambda connection: rows.read_audit(connection, wanted or AuditFilter(), after, limit))

    async def prune_audit(self, *, before: float, max_rows: int) -> int:
        """See `AuditLog.prune_audit`."""

        def prune(connection: sqlite3.Connection) -> int:
            with transaction(connection):
                return rows.prune_audit(connection, before, max_rows)

        return await self._call(prune)

    async def backup(self, target: Path) -> None:
        """See `KeptStore.backup`. Done in a thread of its own: others need not wait for it."""
        copier = Worker("store backup", lambda: None, 1.0)
        try:
            await copier.call(lambda: backup(self.path, target), within=600.0)
        finally:
            await copier.stop(lambda: None, within=1.0)

    async def close(self) -> None:
        """See `Store.close`."""
        await self._worker.stop(self._close, self._within)

    async def _call(self, job: Callable[[sqlite3.Connection], T]) -> T:
        def translated_job() -> T:
            with translate_errors(self.path):
                return job(self._open_connection())

        return await self._worker.call(translated_job, self._within)

    # From here on: in the thread.

    def _open(self) -> None:
        with translate_errors(self.path):
            self._in_use = InUse(self.path)
            self._in_use.require_store(self.path)
            self._connection = connect(self.path, self._busy)
            self._in_use.mark()
            self._reload(self._connection)

    def _close(self) -> None:
        with translate_errors(self.path):
            if self._connection:
                self._connection.close()
            if self._in_use:
                self._in_use.release()
        self._connection = self._in_use = None

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self.path}: the store is closed")
        return self._connection

    def _change(self, connection: sqlite3.Connection, version: int, changes: Sequence[Change]) -> Snapshot:
        self._catch_up(connection)
        try:
            with transaction(connection):
                self._expect(version, rows.version(connection))
                snapshot, outcome = apply_changes(self.snapshot, changes)
                rows.write(connection, outcome, snapshot.version)
        except StoreConflict:
            self._catch_up(connection)  # so that who tries again begins from what is there
            raise
        self._swap(snapshot)
        return snapshot

    def _expect(self, version: int, found: int) -> None:
        if found != version or found != self.snapshot.version:
            raise StoreConflict(version, found)

    def _look(self) -> None:
        """True if another process wrote. Trouble is told once; the snapshot stays as it is."""
        if self._connection is None:
            return
        try:
            with translate_errors(self.path):
                self._catch_up(self._connection)
            self._trouble = ""
        except StoreError as error:
            if str(error) != self._trouble:
                log.warning("%s", error)
            self._trouble = str(error)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        seen = data_version(connection)
        if seen != self._seen:
            if rows.version(connection) != self.snapshot.version:
                self._reload(connection)
            self._seen = seen

    def _reload(self, connection: sqlite3.Connection) -> None:
        with transaction(connection, "DEFERRED"):
            snapshot = rows.read(connection)
        self._swap(snapshot)

    def _swap(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._watchers.tell(snapshot)
