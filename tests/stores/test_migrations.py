"""A store of any older format becomes one of the newest and loses nothing; one of a newer guestwire is refused and not changed."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from guestwire.errors import StoreTooNew
from guestwire.stores import SqliteStore
from guestwire.stores.schema import connect, migrate, migrations
from guestwire.testing.stores import check_store

NEWEST = migrations()[-1].number

ROWS = """
INSERT INTO users (userid, enable, expire, firstname, lastname, email, comment, keys)
    VALUES ('ann@pve', 1, 0, 'Ann', '', '', '', '');
INSERT INTO groups VALUES ('ops', '');
INSERT INTO group_members VALUES ('ops', 'ann@pve');
INSERT INTO tokens VALUES ('ann@pve!t', 'ann@pve', 't', x'00ff', 1, 0, '');
INSERT INTO acl (path, kind, subject, roleid, propagate) VALUES ('/vms', 'token', 'ann@pve!t', 'PVEAuditor', 1);
INSERT INTO pools VALUES ('web', '');
INSERT INTO pool_vms VALUES (100, 'web');
UPDATE state SET version = 7;
"""
"""What a store of the first format can hold."""


def of_format(path: Path, number: int) -> Path:
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, to=number)
    connection.executescript(ROWS)
    connection.close()
    return path


def user_version(path: Path) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


def schema(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOTNULL ORDER BY name").fetchall()
    connection.close()
    return found


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [step.number for step in migrations()] == list(range(1, NEWEST + 1))
    assert all(step.statements for step in migrations())


@pytest.mark.parametrize("number", range(1, NEWEST + 1))
async def test_a_store_of_an_older_format_is_brought_to_the_newest_with_all_it_holds(
    number: int, tmp_path: Path
) -> None:
    path = of_format(tmp_path / "old.db", number)
    assert user_version(path) == number
    store = await SqliteStore.open(path)
    snapshot = store.snapshot
    await store.close()

    assert user_version(path) == NEWEST
    assert snapshot.version == 7
    assert snapshot.users["ann@pve"].firstname == "Ann"
    assert snapshot.groups["ops"].members == {"ann@pve"}
    assert snapshot.tokens["ann@pve!t"].secret_hash == b"\0\xff"
    assert snapshot.acl_of["token", "ann@pve!t"]["/vms"][0].roleid == "PVEAuditor"
    assert snapshot.pool_of[100] == "web"
    connect(tmp_path / "new.db", 1).close()
    assert schema(path) == schema(tmp_path / "new.db")


@pytest.mark.parametrize("number", range(1, NEWEST + 1))
async def test_a_store_of_an_older_format_does_all_a_new_one_does(number: int, tmp_path: Path) -> None:
    paths = (tmp_path / f"{name}.db" for name in range(1000))

    async def make() -> SqliteStore:
        path = next(paths)
        connection = sqlite3.connect(path, isolation_level=None)
        migrate(connection, to=number)
        connection.close()
        return await SqliteStore.open(path)

    await check_store(make)


async def test_a_store_of_a_newer_guestwire_is_refused_with_its_format_and_not_changed(tmp_path: Path) -> None:
    path = of_format(tmp_path / "new.db", NEWEST)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {NEWEST + 5}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(
        StoreTooNew, match=f"store format {NEWEST + 5} is of a newer guestwire, this one knows up to {NEWEST}"
    ):
        await SqliteStore.open(path)

    assert path.read_bytes() == before


async def test_a_migration_that_fails_leaves_the_format_before_it(tmp_path: Path) -> None:
    path = of_format(tmp_path / "old.db", 1)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE audit_by_vm (in_the_way)")
    connection.close()
    before = schema(path)
    with pytest.raises(Exception, match="audit_by_vm"):
        await SqliteStore.open(path)

    assert user_version(path) == 1
    assert schema(path) == before


async def test_stores_that_open_a_new_file_at_once_make_it_once(tmp_path: Path) -> None:
    stores = await asyncio.gather(*(SqliteStore.open(tmp_path / "new.db") for _ in range(5)))

    assert {store.snapshot.version for store in stores} == {0}
    for store in stores:
        await store.close()


async def test_audit_records_can_not_be_changed_in_the_file(tmp_path: Path) -> None:
    path = of_format(tmp_path / "store.db", NEWEST)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO audit VALUES (1, 0, '', '', '', NULL, '', '{}', 200, '', 0)")
    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        connection.execute("UPDATE audit SET subject = 'x'")
    connection.close()
