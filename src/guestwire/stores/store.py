"""The seam between access control and where its records are kept.

Above it: `access/`, which decides from a `Snapshot` and makes changes; `server/` and `cli/` by way of `app/`. Below it:
`memory.py` (nothing on a disk) and `sqlite.py` (one file, any number of processes of one host). A cluster's store can
stand here later: a change is a list of records put and removed under a version that must still match, which is what a
replicated key-value store can do too. `changes.py` says for all of them what a change means; `guestwire.testing.stores`
checks an implementation.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from guestwire.errors import StoreConflict
from guestwire.stores.records import AuditFilter, AuditRecord, Change
from guestwire.stores.snapshot import Snapshot

Listener = Callable[[Snapshot], None]

ATTEMPTS: Final = 8
"""How often `update` begins again before it gives up."""


class Store(Protocol):
    """Users, groups, tokens, roles, ACL entries, pools and signing keys."""

    snapshot: Snapshot
    """All records, as they are known here now, in memory. A change made here is in it when `change` returns; one made by another process,
    within a second."""

    async def change(self, version: int, changes: Sequence[Change]) -> Snapshot:
        """Makes all of `changes`, or none; on the disk when it returns.

        What hangs on a removed record goes with it (see `changes.apply_changes`).

        Args:
            version: of the snapshot that the caller decided from.
            changes: in this order.

        Returns:
            The snapshot with these changes, at the next version.

        Raises:
            StoreConflict: the store is no longer at `version`.
            StoreRefused: a change names what is not there, or can't be stored.
            StoreBusy: no answer in time.
            StoreError: the store can't be written.
        """
        ...

    def watch(self, tell: Listener) -> Callable[[], None]:
        """Calls `tell(snapshot)` on the caller's event loop when there is a new snapshot, whoever made it, until the function that this returns is called.

        Snapshots may be left out when several come at once; the last never is.
        """
        ...

    async def close(self) -> None:
        """Ends it. Changes that were begun are made or refused first; what is called later fails with `StoreError`."""
        ...


class AuditLog(Protocol):
    """Records of who did what. They are added and thrown away when they are old, never changed."""

    async def append_audit(self, records: Sequence[AuditRecord]) -> None:
        """Writes records, in this order; they are on the disk when it returns.

        One whose status is not `BEGUN` takes the place of those with the same request id whose status is.

        Raises:
            StoreError: they could not be written.
        """
        ...

    async def audit(
        self, wanted: AuditFilter | None = None, *, after: int | None = None, limit: int = 1000
    ) -> list[AuditRecord]:
        """The records that `wanted` lets through, in order of their number.

        Args:
            wanted: None means all.
            after: only those with a greater number, the first `limit` of them: to follow the log. None: the last
                `limit` of all.
            limit: how many at most.
        """
        ...

    async def prune_audit(self, *, before: float, max_rows: int) -> int:
        """Throws away the records from before a time (seconds since the epoch), and all but the last `max_rows`; says how many went."""
        ...


class AuditedStore(Store, AuditLog, Protocol):
    """Both."""


class KeptStore(AuditedStore, Protocol):
    """One that outlives its process, so that there can be a copy of it."""

    async def backup(self, target: Path) -> None:
        """Writes a consistent copy to the file `target`, while the store is in use; the file appears when it is complete.

        Raises:
            StoreError: it can't be written.
        """
        ...


async def update(store: Store, decide: Callable[[Snapshot], Sequence[Change]]) -> Snapshot:
    """Makes the changes that `decide` wants for the snapshot it is given; asks again when somebody else was faster.

    `decide` may raise what it likes: nothing is changed then. No changes: nothing is written.

    Raises:
        StoreConflict: somebody else was faster every time.
        StoreError: as `Store.change`.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return await _update_once(store, decide)
        except StoreConflict:
            continue
    return await _update_once(store, decide)


async def _update_once(store: Store, decide: Callable[[Snapshot], Sequence[Change]]) -> Snapshot:
    snapshot = store.snapshot
    changes = decide(snapshot)
    return await store.change(snapshot.version, changes) if changes else snapshot
