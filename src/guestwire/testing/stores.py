"""The conformance check of stores, without a test framework.

Each check opens a fresh store and raises `AssertionError` where the store fails.

    for check in store_checks():
        await check(make_store)

`make_store` gives a new, empty store each time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import msgspec

from guestwire.errors import StoreConflict, StoreError, StoreRefused
from guestwire.stores import (
    BEGUN,
    AclEntry,
    AuditFilter,
    AuditLog,
    AuditRecord,
    Change,
    Frozen,
    Group,
    Pool,
    Put,
    Remove,
    Role,
    SigningKey,
    Snapshot,
    Store,
    StoredTask,
    Token,
    User,
    VmIdentity,
    update,
)


class CheckedStore(Store, AuditLog, Protocol):
    """The store under test, with both seams."""


MakeStore = Callable[[], Awaitable[CheckedStore]]
StoreCheck = Callable[[MakeStore], Coroutine[Any, Any, None]]

WITHIN: Final = 5.0
"""How many seconds a check waits for what comes by itself."""

_checks: list[StoreCheck] = []


def store_checks() -> Sequence[StoreCheck]:
    """All checks; the name of each is a sentence."""
    return tuple(_checks)


async def check_store(make_store: MakeStore) -> None:
    """Runs all checks, one after the other.

    Raises:
        AssertionError: a store does not what it must.
    """
    for check in _checks:
        await check(make_store)


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise AssertionError(what)


@asynccontextmanager
async def _made(make_store: MakeStore) -> AsyncIterator[CheckedStore]:
    store = await make_store()
    try:
        yield store
    finally:
        await store.close()


def _check(check: Callable[[CheckedStore], Coroutine[Any, Any, None]]) -> StoreCheck:
    """Registers a check, which is given an empty store."""

    async def with_store(make_store: MakeStore) -> None:
        async with _made(make_store) as store:
            await check(store)

    with_store.__name__ = check.__name__.lstrip("_")
    _checks.append(with_store)
    return with_store


async def _expect_refusal(expected: type[StoreError], call: Awaitable[object]) -> StoreError:
    try:
        await call
    except expected as error:
        return error
    raise AssertionError(f"{expected.__name__} was to be raised")


async def _put(store: Store, *records: Any) -> Snapshot:
    return await store.change(store.snapshot.version, [Put(record) for record in records])


ANN: Final = User(
    "ann@pve", expire=1_900_000_000, firstname="Ann", lastname="Ω", email="ann@example.org",
    comment="née Ångström\n", password_hash="$argon2id$…", ticket_version="v1",  # noqa: S106 - it is none
)  # fmt: skip
BEN: Final = User("ben@pve", enable=False)
TOKEN: Final = Token("ann@pve", "backup", b"\0\xffhash", False, 5, "nightly")  # noqa: FBT003 - a record's fields
OPS: Final = Group("ops", "who is on duty", frozenset({"ann@pve", "ben@pve"}))
FREEZER: Final = Role("Freezer", frozenset({"VM.GuestAgent.FileSystemMgmt", "VM.Audit"}))
WEB: Final = Pool("web", "web servers", frozenset({100, 101}))
KEY: Final = SigningKey("k1", "ticket", 1_700_000_000.25, b"-----BEGIN\0")
ENTRIES: Final = (
    AclEntry("/vms/100", "user", "ann@pve", "Freezer", propagate=False),
    AclEntry("/", "group", "ops", "PVEAuditor"),
    AclEntry("/vms", "token", "ann@pve!backup", "Freezer"),
    AclEntry("/pool/web", "user", "ben@pve", "PVEVMUser"),
)
TASK: Final = StoredTask(
    "UPID:n:0000A1B2:00000001:6B081CF4:qmstart:100:ann@pve:", "OK", 1_700_000_001, "starts\nTASK OK"
)
FROZEN: Final = Frozen(100, "ann@pve!backup", 1_700_000_000.5, 3, 1_700_000_060.5, connected=True, watchdog="12 345")
EVERYTHING: Final = (
    *ENTRIES,
    WEB,
    TOKEN,
    OPS,
    FREEZER,
    KEY,
    ANN,
    BEN,
    FROZEN,
    Frozen(101, "", 1.0),
    TASK,
    StoredTask("a"),
    VmIdentity("3ed19d7d-734e-43c6-ad61-000000000000", 100),
)
"""One of each, and more than one ACL entry.

What is referred to comes last, since the order within a change does not matter.
"""


@_check
async def _a_new_store_is_empty_and_has_a_version(store: CheckedStore) -> None:
    snapshot = store.snapshot
    _expect(isinstance(snapshot.version, int), "the version is a number")
    _expect(not any(snapshot.tables().values()), "nothing is in it")


@_check
async def _what_is_put_is_in_the_view_that_change_returns_and_in_the_next_view(store: CheckedStore) -> None:
    snapshot = await _put(store, *EVERYTHING)
    _expect(store.snapshot is snapshot, "the snapshot is swapped when change returns")
    records = {record for table in snapshot.tables().values() for record in table.values()}
    _expect(records == set(EVERYTHING), "every record is there as it was put")


@_check
async def _a_view_finds_what_belongs_together(store: CheckedStore) -> None:
    snapshot = await _put(store, *EVERYTHING)
    _expect(snapshot.groups_of["ben@pve"] == {"ops"}, "a user's groups")
    _expect(snapshot.tokens_of["ann@pve"] == {"ann@pve!backup"}, "a user's tokens")
    _expect(snapshot.pool_of[101] == "web", "a VM's pool")
    _expect(snapshot.acl_of["group", "ops"]["/"] == (ENTRIES[1],), "a subject's entries by path")
    _expect(set(snapshot.acl_paths) == {entry.path for entry in ENTRIES}, "the paths that have entries")


@_check
async def _a_view_never_changes(store: CheckedStore) -> None:
    before = await _put(store, *EVERYTHING)
    kept = {kind: dict(table) for kind, table in before.tables().items()}
    await store.change(before.version, [Remove(User, "ann@pve"), Put(User("new@pve"))])
    _expect({kind: dict(table) for kind, table in before.tables().items()} == kept, "the old snapshot is as it was")
    _expect(before.groups_of["ann@pve"] == {"ops"}, "and so are its indexes")


@_check
async def _each_change_raises_the_version(store: CheckedStore) -> None:
    first = await _put(store, ANN)
    second = await _put(store, BEN)
    _expect(second.version > first.version, "the version rises")


@_check
async def _a_change_from_an_older_version_is_a_conflict_and_changes_nothing(store: CheckedStore) -> None:
    old = store.snapshot.version
    snapshot = await _put(store, ANN)
    await _expect_refusal(StoreConflict, store.change(old, [Put(BEN)]))
    _expect(store.snapshot is snapshot, "nothing changed")


@_check
async def _of_changes_made_at_once_from_one_version_one_wins_and_the_others_hear_of_it(store: CheckedStore) -> None:
    version = store.snapshot.version
    changes = [store.change(version, [Put(User(f"user{number}@pve"))]) for number in range(8)]
    results = await asyncio.gather(*changes, return_exceptions=True)
    _expect(sum(isinstance(result, Snapshot) for result in results) == 1, "one wins")
    _expect(sum(isinstance(result, StoreConflict) for result in results) == 7, "the others get an error")  # noqa: PLR2004 - all but one
    _expect(len(store.snapshot.users) == 1, "and nothing else is there")


@_check
async def _an_edit_that_meets_another_decides_again_and_loses_nothing(store: CheckedStore) -> None:
    async def join(userid: str) -> Snapshot:
        def decide(snapshot: Snapshot) -> list[Change]:
            members = snapshot.groups["ops"].members if "ops" in snapshot.groups else frozenset()
            return [Put(User(userid)), Put(Group("ops", "", members | {userid}))]

        return await update(store, decide)

    users = [f"user{number}@pve" for number in range(5)]
    await asyncio.gather(*(join(userid) for userid in users))
    _expect(store.snapshot.groups["ops"].members == set(users), "all are members")


@_check
async def _a_change_that_is_refused_leaves_nothing_of_itself(store: CheckedStore) -> None:
    snapshot = await _put(store, ANN)
    await _expect_refusal(StoreRefused, store.change(snapshot.version, [Put(BEN), Remove(Pool, "none")]))
    _expect(store.snapshot is snapshot, "the snapshot is the same")
    after = await store.change(snapshot.version, [Put(WEB)])
    _expect("ben@pve" not in after.users, "and so is what is behind it")


@_check
async def _a_record_that_names_what_is_not_there_is_refused(store: CheckedStore) -> None:
    version = store.snapshot.version
    wrong = (
        TOKEN,
        OPS,
        *ENTRIES,
        AclEntry("/", "token", "ann@pve!other", "Administrator"),
    )
    for record in wrong:
        error = await _expect_refusal(StoreRefused, store.change(version, [Put(record)]))
        _expect("there is none" in str(error), "the text says what is missing")


@_check
async def _a_record_that_can_not_be_stored_is_refused_without_telling_its_secrets(store: CheckedStore) -> None:
    version = store.snapshot.version
    wrong = (
        User("\ud800@pve", password_hash="planted-secret"),  # noqa: S106 - to be looked for
        User("a@pve", expire=2**80, password_hash="planted-secret"),  # noqa: S106 - to be looked for
        User("a@pve", expire=-1),
        User(""),
        User("a@pve", password_hash="planted-secret\udfff"),  # noqa: S106 - to be looked for
        Pool("p", "", frozenset({2**70})),
        AclEntry("/", "realm", "pve", "NoAccess"),  # type: ignore[arg-type] # what is to be refused
        SigningKey("k", "ticket", "soon", b""),  # type: ignore[arg-type] # what is to be refused
    )
    for record in wrong:
        error = await _expect_refusal(StoreRefused, store.change(version, [Put(record)]))
        _expect("planted-secret" not in f"{error!r} {error.__cause__!r} {error.__context__!r}", "no secret in an error")


@_check
async def _texts_come_back_as_they_were(store: CheckedStore) -> None:
    odd = User('it\'s "odd"; DROP TABLE users@pve', comment="\0\x1b[31m\u202e😀 ' \" \\ \r\n", keys="x" * 100_000)
    snapshot = await _put(store, odd)
    _expect(snapshot.users[odd.userid] == odd, "any Unicode text is kept")


@_check
async def _a_vm_is_in_one_pool_and_moves_in_one_change(store: CheckedStore) -> None:
    snapshot = await _put(store, WEB)
    await _expect_refusal(StoreRefused, store.change(snapshot.version, [Put(Pool("db", "", frozenset({100})))]))
    moved = [Put(Pool("db", "", frozenset({100}))), Put(Pool("web", "", frozenset({101})))]
    snapshot = await store.change(snapshot.version, moved)
    _expect(dict(snapshot.pool_of) == {100: "db", 101: "web"}, "each VM is where it was put")


@_check
async def _a_user_takes_tokens_memberships_and_acl_entries_along(store: CheckedStore) -> None:
    snapshot = await _put(store, *EVERYTHING)
    snapshot = await store.change(snapshot.version, [Remove(User, "ann@pve")])
    _expect(not snapshot.tokens and not snapshot.tokens_of, "tokens go")
    _expect(snapshot.groups["ops"].members == {"ben@pve"}, "memberships go")
    _expect(set(snapshot.acl.values()) == {ENTRIES[1], ENTRIES[3]}, "ACL entries of the user and of the token go")
    snapshot = await _put(store, ANN)
    _expect(
        "ann@pve" not in snapshot.groups_of and ("user", "ann@pve") not in snapshot.acl_of,
        "and do not come back with the name",
    )


@_check
async def _a_group_token_role_or_pool_takes_its_acl_entries_along(store: CheckedStore) -> None:
    snapshot = await _put(store, *EVERYTHING)
    left = list(snapshot.acl.values())
    removals: list[tuple[Remove, tuple[AclEntry, ...]]] = [
        (Remove(Group, "ops"), ENTRIES[1:2]),
        (Remove(Token, "ann@pve!backup"), ENTRIES[2:3]),
        (Remove(Role, "Freezer"), ENTRIES[0:1]),
        (Remove(Pool, "web"), ENTRIES[3:4]),
    ]
    for removal, gone in removals:
        snapshot = await store.change(snapshot.version, [removal])
        left = [entry for entry in left if entry not in gone]
        _expect(list(snapshot.acl.values()) == left, f"{removal} takes {gone} along")


@_check
async def _one_key_has_one_record(store: CheckedStore) -> None:
    snapshot = await _put(store, *EVERYTHING)
    changed = msgspec.structs.replace(ENTRIES[0], propagate=True)
    fewer = msgspec.structs.replace(FREEZER, privileges=frozenset({"VM.Audit"}))
    snapshot = await store.change(
        snapshot.version, [Put(changed), Put(fewer), Put(msgspec.structs.replace(ANN, comment="new"))]
    )
    _expect(snapshot.acl_of["user", "ann@pve"]["/vms/100"] == (changed,), "the entry is replaced")
    _expect(snapshot.roles["Freezer"] == fewer, "the role is replaced")
    _expect(
        snapshot.users["ann@pve"].comment == "new" and "ann@pve!backup" in snapshot.tokens,
        "a changed user keeps the tokens",
    )


@_check
async def _within_a_change_the_last_word_counts(store: CheckedStore) -> None:
    snapshot = await _put(store, *EVERYTHING)
    snapshot = await store.change(
        snapshot.version, [Remove(User, "ann@pve"), Put(ANN), Put(BEN), Remove(User, "ben@pve")]
    )
    _expect(set(snapshot.users) == {"ann@pve"}, "who was put last is there, who was removed last is not")
    _expect(not snapshot.tokens and set(snapshot.acl) == {ENTRIES[1].key}, "what hung on them is gone")


@_check
async def _who_watches_is_told_of_each_new_view_until_it_stops(store: CheckedStore) -> None:
    snapshots: asyncio.Queue[Snapshot] = asyncio.Queue()
    stop = store.watch(snapshots.put_nowait)
    snapshot = await _put(store, ANN)
    async with asyncio.timeout(WITHIN):
        _expect(await snapshots.get() is snapshot, "the new snapshot arrives")
    stop()
    stop()
    await _put(store, BEN)
    await asyncio.sleep(0)
    _expect(snapshots.empty(), "who stopped hears nothing")


@_check
async def _a_closed_store_says_so_and_can_be_closed_again(store: CheckedStore) -> None:
    snapshot = await _put(store, ANN)
    await store.close()
    await store.close()
    _expect(store.snapshot is snapshot, "the last snapshot is still there")
    await _expect_refusal(StoreError, store.change(snapshot.version, [Put(BEN)]))
    await _expect_refusal(StoreError, store.append_audit([_record(1)]))


# Audit


def _record(number: int, **fields: Any) -> AuditRecord:
    parameters = {"command": ["ls", "-l"], "n": number, "nested": {"ä": [1.5, None, True]}}
    record = AuditRecord(
        1000.0 + number, f"r{number}", "ann@pve", "192.0.2.1", 100, "POST /x", parameters, 200, "OK", 1.25
    )
    return msgspec.structs.replace(record, **fields)


def _without_number(records: Sequence[AuditRecord]) -> list[AuditRecord]:
    return [msgspec.structs.replace(record, number=0) for record in records]


@_check
async def _audit_records_come_back_as_they_were_and_in_order(store: CheckedStore) -> None:
    written = [_record(number) for number in range(5)]
    await store.append_audit(written[:2])
    await store.append_audit(written[2:])
    found = await store.audit()
    _expect(_without_number(found) == written, "all of them, oldest first")
    numbers = [record.number for record in found]
    _expect(numbers == sorted(set(numbers)) and numbers[0] > 0, "numbers rise")


@_check
async def _the_end_of_a_call_takes_the_place_of_its_beginning(store: CheckedStore) -> None:
    begun = [_record(number, status=BEGUN) for number in range(3)]
    await store.append_audit(begun)
    _expect(_without_number(await store.audit()) == begun, "what has begun is there")
    await store.append_audit([_record(1)])
    await store.append_audit([_record(4, status=BEGUN), _record(2), _record(4)])
    found = await store.audit()
    _expect(_without_number(found) == [begun[0], _record(1), _record(2), _record(4)], "one record a call")
    _expect(found[1].number > begun[2].number + 3, "an end has a number of its own, for those who follow")


@_check
async def _audit_is_filtered_by_each_field(store: CheckedStore) -> None:
    one = _record(1, subject="ben@pve!t", address="::1", vmid=None, endpoint="GET /y", status=403, request_id="other")
    others = [_record(0), _record(2)]
    await store.append_audit([others[0], one, others[1]])
    only = (
        AuditFilter(subject="ben@pve!t"), AuditFilter(address="::1"), AuditFilter(endpoint="GET /y"), AuditFilter(status=403),
        AuditFilter(user="ben@pve"), AuditFilter(user="ben@pve!t"), AuditFilter(request_id="other"), AuditFilter(since=1001.0, until=1002.0), AuditFilter(status=403, address="::1"),
    )  # fmt: skip
    for wanted in only:
        _expect(_without_number(await store.audit(wanted)) == [one], f"{wanted} finds one")
    _expect(_without_number(await store.audit(AuditFilter(vmid=100))) == others, "a VM's")
    for unknown in (AuditFilter(user="ben@pv"), AuditFilter(user=""), AuditFilter(subject="ben@pve")):
        _expect(await store.audit(unknown) == [], f"{unknown} finds none")
    _expect(await store.audit(AuditFilter(subject="ann@pve", status=403)) == [], "all of a filter's fields count")


@_check
async def _audit_is_read_from_the_end_or_followed_from_a_number(store: CheckedStore) -> None:
    await store.append_audit([_record(number) for number in range(10)])
    last = await store.audit(limit=3)
    _expect([record.request_id for record in last] == ["r7", "r8", "r9"], "the last ones")
    first = await store.audit(after=0, limit=3)
    _expect([record.request_id for record in first] == ["r0", "r1", "r2"], "the first ones")
    following = await store.audit(after=first[-1].number, limit=3)
    _expect([record.request_id for record in following] == ["r3", "r4", "r5"], "the next ones")
    _expect(await store.audit(after=last[-1].number) == [], "nothing new")


@_check
async def _old_and_surplus_audit_records_are_thrown_away_and_numbers_go_on(store: CheckedStore) -> None:
    await store.append_audit([_record(number) for number in range(10)])
    numbers = [record.number for record in await store.audit()]
    _expect(await store.prune_audit(before=1002.0, max_rows=100) == 2, "by age")  # noqa: PLR2004 - r0 and r1
    _expect(await store.prune_audit(before=0.0, max_rows=3) == 5, "by number")  # noqa: PLR2004 - r2 to r6
    _expect([record.request_id for record in await store.audit()] == ["r7", "r8", "r9"], "the newest stay")
    _expect(await store.prune_audit(before=2e9, max_rows=3) == 3, "all")  # noqa: PLR2004 - the rest
    await store.append_audit([_record(11)])
    _expect((await store.audit())[0].number > max(numbers), "no number is used twice")


@_check
async def _no_request_is_too_odd_to_be_recorded(store: CheckedStore) -> None:
    odd = {"\ud800": "\udfff", "big": 2**90, "nan": float("nan"), "bytes": b"\xff", "deep": [[{"x": {1, 2}}]]}
    await store.append_audit([_record(1, parameters=odd, endpoint="GET /\udc80\0", vmid=10**30, subject="\ud800")])
    found = (await store.audit())[0]
    _expect(found.endpoint == "GET /\\udc80\0" and found.vmid is None, "what can't be kept is shown")
    msgspec.json.encode(found)
    _expect(found.parameters["big"] == str(2**90), "large numbers are texts")
