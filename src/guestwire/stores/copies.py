"""Copies of a store's file: a backup while it is in use, and a backup put in its place while it is not."""

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from guestwire.errors import StoreDamaged, StoreError
from guestwire.stores.schema import MODE, check, translate_errors

WAIT: Final = 30.0
"""How many seconds a copy waits for a lock."""


class InUse:
    """Says that a store is in use, as long as it is not released; beside the file, since SQLite's own locks end when anybody closes the file.

    It also says that there is a store, once there is: one that vanished must not become a new, empty one unseen.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        self._descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, MODE)
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise StoreError(
                f"{path}: {'it is in use; stop the server first' if alone else 'it is being restored'}"
            ) from None

    def require_store(self, path: Path) -> None:
        """Returns unless there was a store in `path` and is none.

        Raises:
            StoreDamaged: its file is missing, or there is nothing in it.
        """
        if os.fstat(self._descriptor).st_size and not (path.exists() and path.stat().st_size):
            what = "is empty" if path.exists() else "is missing"
            raise StoreDamaged(
                str(path), f"it {what}, and there was a store (to begin with a new one, remove {path.name}.lock)"
            )

    def mark(self) -> None:
        """There is a store now."""
        if not os.fstat(self._descriptor).st_size:
            os.pwrite(self._descriptor, b"store\n", 0)
            os.fsync(self._descriptor)

    def release(self) -> None:
        """It is not in use any more."""
        os.close(self._descriptor)


def backup(source: Path, target: Path) -> None:
    """Writes a consistent copy of the store `source` to `target`, with mode 0600; `source` may be in use. `target` appears when it is complete.

    Raises:
        StoreDamaged: the copy is not whole.
        StoreError: it can't be read or written.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with translate_errors(target):
            os.close(os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, MODE))
        _copy(source, unfinished)
        with translate_errors(target):
            _to_disk(unfinished)
            unfinished.replace(target)
            _to_disk(target.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def restore(source: Path, target: Path) -> None:
    """Puts the backup `source` in the place of the store `target`, which nobody may use meanwhile. What was there is kept as `TARGET.before`.

    Raises:
        StoreDamaged: `source` is no whole store; `target` was not touched.
        StoreTooNew: `source` is of a newer guestwire; `target` was not touched.
        StoreError: `target` is in use, or a file can't be read or written.
    """
    with translate_errors(source):
        if not source.is_file():
            raise StoreError(f"{source}: there is no such file")
    with translate_errors(target):
        in_use = InUse(target, alone=True)
    fresh = target.with_name(f"{target.name}.restored")
    try:
        backup(source, fresh)
        with translate_errors(target):
            _put_aside(target)
            fresh.replace(target)
            _to_disk(target.parent)
    finally:
        fresh.unlink(missing_ok=True)
        in_use.release()


def _put_aside(target: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            target.with_name(target.name + ending).replace(target.with_name(f"{target.name}.before{ending}"))


def _copy(source: Path, target: Path) -> None:
    with (
        translate_errors(source),
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=WAIT)) as old,
        contextlib.closing(sqlite3.connect(target, timeout=WAIT, isolation_level=None)) as new,
    ):
        check(source, old)
        old.backup(new)
        # A backup is one file: without this, SQLite would want others beside it.
        new.execute("PRAGMA journal_mode = DELETE")
        _check_whole(source, new)


def _check_whole(source: Path, connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreDamaged(str(source), str(found))
    if not connection.execute("PRAGMA user_version").fetchone()[0]:
        raise StoreDamaged(str(source), "there is nothing in it")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
