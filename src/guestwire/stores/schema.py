"""The file of a SQLite store: made for its owner alone, brought to the newest format step by step, refused when it is of a newer guestwire.

The format's number is SQLite's `user_version`; the step to number N is `migrations/000N_….sql`, done in one
transaction. A step that was ever released is never changed again.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from guestwire.errors import StoreBusy, StoreDamaged, StoreError, StoreTooNew

APPLICATION: Final = 0x67775354
"""`gwST`, as SQLite's `application_id`: whose file this is."""

MODE: Final = 0o600

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


@dataclass(frozen=True, slots=True)
class Migration:
    """The step to format `number`."""

    number: int
    statements: tuple[str, ...]


@cache
def migrations() -> tuple[Migration, ...]:
    """All steps, in order."""
    folder = resources.files("guestwire.stores").joinpath("migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple(Migration(int(file.name[:4]), tuple(_statements(file.read_text("utf-8")))) for file in files)


def _statements(text: str) -> Iterator[str]:
    """One statement after the other: `executescript` would end the transaction that a step is."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextlib.contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """SQLite's errors, as those of a store."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(path, error) from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; users and access are kept there") from error


def _translate(path: Path, error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return StoreBusy(f"{path}: another process kept it locked for too long; try again")
    if code in _DAMAGED or "file is not a database" in str(error):
        return StoreDamaged(str(path), str(error))
    return StoreError(f"{path}: {error}")


def connect(path: Path, busy: float) -> sqlite3.Connection:
    """A connection to the store in `path`, in the newest format; makes the file when there is none.

    Args:
        path: the file; its folder must be there.
        busy: how many seconds to wait for other processes.

    Raises:
        StoreTooNew: of a newer guestwire; it is not changed.
        StoreDamaged: no store.
        StoreError: it can't be made or opened.
    """
    with translate_errors(path):
        _make_file(path)
        connection = sqlite3.connect(path, timeout=busy, isolation_level=None)
        try:
            check(path, connection)
            _set_up(connection)
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _make_file(path: Path) -> None:
    """SQLite gives its other files the mode of this one."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, MODE))
    if path.stat().st_mode & 0o777 != MODE:
        path.chmod(MODE)


_WHAT_IT_IS: Final = """\
SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_application_id, pragma_user_version
"""
"""One statement, so that another process which is just making the store is not seen half-way."""


def check(path: Path, connection: sqlite3.Connection) -> None:
    """Reads alone: whether this file is a store that can be used here.

    Raises:
        StoreTooNew: of a newer guestwire.
        StoreDamaged: another program's database.
    """
    application, version, tables = connection.execute(_WHAT_IT_IS).fetchone()
    if application != APPLICATION and (application or version or tables):
        raise StoreDamaged(str(path), "this is a database of another program")
    if version > migrations()[-1].number:
        raise StoreTooNew(str(path), version, migrations()[-1].number)


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # A change is on the disk when it is answered, also when the power fails: NORMAL would not do.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def migrate(connection: sqlite3.Connection, to: int | None = None) -> None:
    """Does the steps that are missing, each in one transaction; up to format `to` (None: all)."""
    for step in migrations()[:to]:
        if _pragma(connection, "user_version") < step.number:
            _migrate_one(connection, step)


def _migrate_one(connection: sqlite3.Connection, step: Migration) -> None:
    with transaction(connection):
        # Another process may have done it while this one waited for the lock.
        if _pragma(connection, "user_version") >= step.number:
            return
        for statement in step.statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {step.number}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All or nothing."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def data_version(connection: sqlite3.Connection) -> int:
    """A number that is another one when another connection has written."""
    return _pragma(connection, "data_version")
