"""The store in a file: private, shared by processes, consistent through kills, backups and damage."""

import asyncio
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from killing import changed_until_killed
from waiting import until

from guestwire.errors import StoreBusy, StoreDamaged, StoreError
from guestwire.stores import (
    AclEntry,
    AuditRecord,
    Group,
    Put,
    Remove,
    Snapshot,
    SqliteStore,
    Token,
    User,
    backup,
    restore,
    update,
)
from guestwire.testing.stores import EVERYTHING


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path)
    yield store
    await store.close()


async def fill(store: SqliteStore) -> Snapshot:
    return await store.change(store.snapshot.version, [Put(record) for record in EVERYTHING])


def contents(snapshot: Snapshot) -> set[object]:
    return {record for table in snapshot.tables().values() for record in table.values()}


@pytest.mark.parametrize("content", [None, b""])
async def test_a_store_that_vanished_is_not_made_anew_unless_that_is_wanted(path: Path, content: bytes | None) -> None:
    store = await SqliteStore.open(path)
    whole = await fill(store)
    await store.backup(path.with_name("copy.db"))
    await store.close()
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(StoreDamaged, match="put a backup in its place") as refused:
        await SqliteStore.open(path)

    assert f"it is {'missing' if content is None else 'empty'}, and there was a store" in str(refused.value)
    assert path.exists() == (content is not None)
    restore(path.with_name("copy.db"), path)
    store = await SqliteStore.open(path)
    assert contents(store.snapshot) == contents(whole)
    await store.close()

    path.unlink()
    path.with_name("access.db.lock").unlink()
    store = await SqliteStore.open(path)
    assert not store.snapshot.users
    await store.close()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def read(path: Path) -> bytes:
    return path.read_bytes()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


def record(number: int) -> AuditRecord:
    return AuditRecord(float(number), f"r{number}", "ann@pve", "", None, "GET /", {}, 200, "", 0.5)


async def test_a_store_that_is_opened_again_holds_the_same(path: Path) -> None:
    store = await SqliteStore.open(path)
    before = await fill(store)
    await store.change(before.version, [Remove(Group, "ops"), Put(User("ben@pve", comment="changed"))])
    last = store.snapshot
    await store.append_audit([record(1)])
    await store.close()

    store = await SqliteStore.open(path)
    assert store.snapshot.version == last.version
    assert contents(store.snapshot) == contents(last)
    assert store.snapshot.acl_of == last.acl_of
    assert [found.request_id for found in await store.audit()] == ["r1"]
    await store.close()


async def test_what_sqlite_removes_by_itself_and_what_the_view_removes_are_the_same(store: SqliteStore) -> None:
    snapshot = await fill(store)
    for removal in (Remove(User, "ann@pve"), Remove(Group, "ops"), Remove(User, "ben@pve")):
        snapshot = await store.change(snapshot.version, [removal])
        other = await SqliteStore.open(store.path)
        assert contents(other.snapshot) == contents(snapshot)
        await other.close()


async def test_all_files_are_for_their_owner_alone(store: SqliteStore, path: Path) -> None:
    await fill(store)

    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "access.db": 0o600,
        "access.db-wal": 0o600,
        "access.db-shm": 0o600,
        "access.db.lock": 0o600,
    }


async def test_a_file_that_others_may_read_is_closed_to_them(path: Path) -> None:
    write(path, b"")
    store = await SqliteStore.open(path)
    await store.close()

    assert mode(path) == 0o600


async def test_a_change_of_another_store_on_the_file_is_seen_within_a_second(store: SqliteStore, path: Path) -> None:
    told: list[Snapshot] = []
    stop = store.watch(told.append)
    other = await SqliteStore.open(path)
    await fill(other)

    await until(lambda: bool(told) and told[-1].version == other.snapshot.version, within=1.0)
    assert contents(store.snapshot) == contents(other.snapshot)
    stop()
    await other.close()


async def test_a_change_of_another_process_is_seen_within_a_second(store: SqliteStore, path: Path) -> None:
    await fill(store)
    code = """
import asyncio, sys
from pathlib import Path
from guestwire.stores import Remove, SqliteStore, Token

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    await store.change(store.snapshot.version, [Remove(Token, "ann@pve!backup")])
    print("revoked", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"revoked\n"
    await until(lambda: "ann@pve!backup" not in store.snapshot.tokens, within=1.0)
    process.kill()
    await process.wait()


async def test_a_change_from_a_view_that_another_process_made_old_is_refused_and_the_new_view_is_there(
    store: SqliteStore, path: Path
) -> None:
    old = store.snapshot.version
    other = await SqliteStore.open(path)
    await other.change(old, [Put(User("ann@pve"))])
    with pytest.raises(StoreError, match="users or access were changed meanwhile"):
        await store.change(old, [Put(User("ben@pve"))])

    assert set(store.snapshot.users) == {"ann@pve"}
    await other.close()


async def test_audit_records_of_another_process_do_not_make_a_new_view(store: SqliteStore, path: Path) -> None:
    snapshot = await fill(store)
    other = await SqliteStore.open(path)
    await other.append_audit([record(1)])
    looked = store._seen

    await until(lambda: store._seen != looked)
    assert store.snapshot is snapshot
    await other.close()


async def test_the_event_loop_runs_while_another_process_keeps_the_file_locked(path: Path) -> None:
    store = await SqliteStore.open(path, busy=0.3)
    locker = sqlite3.connect(path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    change = asyncio.create_task(store.change(store.snapshot.version, [Put(User("ann@pve"))]))
    turns = 0
    while not change.done():
        await asyncio.sleep(0.001)
        turns += 1
    with pytest.raises(StoreBusy, match="locked for too long"):
        await change
    locker.close()

    assert turns > 50
    assert not store.snapshot.users
    assert set((await store.change(store.snapshot.version, [Put(User("ann@pve"))])).users) == {"ann@pve"}
    await store.close()


async def test_a_wait_has_an_end_and_what_had_not_begun_is_not_done(path: Path) -> None:
    store = await SqliteStore.open(path, within=0.2)
    go_on = threading.Event()
    blocking = asyncio.create_task(store._worker.call(lambda: go_on.wait(30), within=30))
    await asyncio.sleep(0)
    with pytest.raises(StoreBusy, match=r"did not answer in 0\.2 s"):
        await store.change(store.snapshot.version, [Put(User("ann@pve"))])
    go_on.set()
    await blocking

    await store.audit()
    assert not store.snapshot.users
    await store.close()


async def test_a_caller_who_gives_up_leaves_the_store_in_order(store: SqliteStore) -> None:
    for number in range(20):
        task = asyncio.create_task(store.change(store.snapshot.version, [Put(User(f"u{number}@pve"))]))
        await asyncio.sleep(0.001 * (number % 3))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await store.audit()

    snapshot = await store.change(store.snapshot.version, [Put(User("last@pve"))])
    again = await SqliteStore.open(store.path)
    assert contents(again.snapshot) == contents(snapshot)
    await again.close()


async def test_closing_waits_for_changes_that_were_begun(path: Path) -> None:
    store = await SqliteStore.open(path)
    change = asyncio.create_task(store.change(store.snapshot.version, [Put(User("ann@pve"))]))
    await asyncio.sleep(0)
    await store.close()

    assert set((await change).users) == {"ann@pve"}
    await until(lambda: f"store {path.name}" not in {thread.name for thread in threading.enumerate()})


async def test_a_kill_in_the_middle_of_changes_loses_none_that_was_answered_and_leaves_no_half(path: Path) -> None:
    for after in (0.0, 0.02, 0.05, 0.09, 0.14):
        result = await changed_until_killed(path, after)

        assert result.whole
        assert result.found >= result.answered


async def test_a_kill_inside_a_transaction_leaves_the_old_state(path: Path) -> None:
    store = await SqliteStore.open(path)
    before = await fill(store)
    await store.close()
    code = """
import os, signal, sys
from pathlib import Path
from guestwire.stores import Put, User, rows
from guestwire.stores.changes import apply_changes
from guestwire.stores.schema import connect, transaction

connection = connect(Path(sys.argv[1]), 5)
with transaction(connection):
    snapshot, outcome = apply_changes(rows.read(connection), [Put(User(f"u{number}@pve", comment="x" * 1000)) for number in range(5000)])
    rows.write(connection, outcome, snapshot.version)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(path), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    assert process.returncode == -9, errors

    store = await SqliteStore.open(path)
    assert store.snapshot.version == before.version
    assert contents(store.snapshot) == contents(before)
    await store.close()


# Copies


async def test_a_backup_taken_amid_changes_is_one_state_and_opens_as_a_store(
    store: SqliteStore, tmp_path: Path
) -> None:
    await fill(store)
    stop = asyncio.Event()

    async def change() -> None:
        while not stop.is_set():
            number = store.snapshot.version
            user = User(f"u{number}@pve")
            await store.change(number, [Put(user), Put(Group(f"g{number}", members=frozenset({user.userid})))])

    changing = asyncio.create_task(change())
    targets = [tmp_path / f"backup{number}" for number in range(5)]
    for target in targets:
        await store.backup(target)
    stop.set()
    await changing

    for target in targets:
        assert mode(target) == 0o600
        copy = await SqliteStore.open(target)
        pairs = {userid[1:-4] for userid in copy.snapshot.users if userid.startswith("u")}
        assert pairs == {groupid[1:] for groupid in copy.snapshot.groups if groupid.startswith("g")}
        await copy.close()
    assert hidden(tmp_path) == []


async def test_a_backup_that_can_not_be_written_says_where(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=str(tmp_path / "none")):
        await store.backup(tmp_path / "none" / "backup")


async def test_a_backup_is_put_in_the_place_of_a_damaged_store_which_is_kept(path: Path, tmp_path: Path) -> None:
    store = await SqliteStore.open(path)
    snapshot = await fill(store)
    await store.backup(tmp_path / "backup")
    await store.close()
    write(path, b"damaged" * 1000)
    restore(tmp_path / "backup", path)

    store = await SqliteStore.open(path)
    assert contents(store.snapshot) == contents(snapshot)
    assert read(path.with_name("access.db.before")).startswith(b"damaged")
    await store.close()


async def test_a_store_in_use_is_not_replaced(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    await fill(store)
    backup(path, tmp_path / "backup")

    with pytest.raises(StoreError, match="stop the server first"):
        restore(tmp_path / "backup", path)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_what_is_no_backup_replaces_nothing(content: bytes, path: Path, tmp_path: Path) -> None:
    source = tmp_path / "backup"
    write(source, content)
    write(path, b"as it was")
    with pytest.raises(StoreDamaged):
        restore(source, path)

    assert read(path) == b"as it was"


def test_a_backup_that_is_not_there_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such file"):
        restore(tmp_path / "none", path)


# Files that can't be used


@pytest.mark.parametrize(
    "content", [b"this is no database, but a text of some length" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
async def test_a_damaged_file_is_named_with_the_command_that_helps(content: bytes, path: Path) -> None:
    write(path, content)
    with pytest.raises(StoreDamaged, match=f"{path}: .*guestwire access restore"):
        await SqliteStore.open(path)

    assert read(path) == content


async def test_damage_in_the_middle_of_a_file_is_told(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.change(
        store.snapshot.version, [Put(User(f"u{number}@pve", comment="x" * 500)) for number in range(500)]
    )
    await store.close()
    content = bytearray(read(path))
    content[8192:] = b"\xa5" * (len(content) - 8192)
    write(path, bytes(content))

    with pytest.raises(StoreDamaged):
        await SqliteStore.open(path)


async def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = read(path)
    with pytest.raises(StoreDamaged, match="another program"):
        await SqliteStore.open(path)

    assert read(path) == before


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=str(tmp_path / "none")):
        await SqliteStore.open(tmp_path / "none" / "access.db")


async def test_no_secret_is_in_the_text_form_of_a_record() -> None:
    records = (
        User("a@pve", keys="planted", password_hash="planted"),
        Token("a@pve", "t", b"planted"),
        Put(Token("a@pve", "t", b"planted")),
    )

    assert "planted" not in repr(records)
    assert "userid='a@pve'" in repr(records)


async def test_two_stores_that_change_at_once_lose_nothing(store: SqliteStore, path: Path) -> None:
    other = await SqliteStore.open(path)

    async def add(to: SqliteStore, name: str) -> None:
        for number in range(20):
            entry = AclEntry(f"/vms/{100 + number}", "user", name, "PVEVMUser")
            await update(
                to,
                lambda snapshot, entry=entry: [  # type: ignore[misc]  # mypy knows no types of defaults
                    *([] if name in snapshot.users else [Put(User(name))]),
                    Put(entry),
                ],
            )

    await asyncio.gather(add(store, "ann@pve"), add(other, "ben@pve"))
    await until(lambda: len(store.snapshot.acl) == len(other.snapshot.acl) == 40)
    await other.close()
