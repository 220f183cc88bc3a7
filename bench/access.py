"""`python -m bench.access [--questions N] [--kills N]`: is the permission engine right, how fast is it, and does the store bear being killed.

Prints how many of a million generated questions the engine and the plain, slow reading of the rules answer alike; how long a decision takes; how
long a store of 100,000 ACL entries takes to open; with `--kills`, in how many of so many kills an answered change was lost.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from guestwire.access.engine import REMEMBERED, check, permissions
from guestwire.stores import AclEntry, Group, Pool, Put, Role, Snapshot, SqliteStore, Token, User
from guestwire.stores.records import AclKey, Stored
from guestwire.stores.snapshot import of

TESTS: Final = Path(__file__).parent.parent / "tests"
SEED: Final = 20_261_125
QUESTIONS_A_WORLD: Final = 200


def main() -> None:
    options = _options()
    sys.path[:0] = [str(TESTS / "access"), str(TESTS / "stores")]
    _print_agreement(options.questions)
    _print_decisions()
    asyncio.run(_print_load(options.entries))
    if options.kills:
        asyncio.run(_print_kills(options.kills))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.access", description="Measures access control and its store."
    )
    parser.add_argument("--questions", type=int, default=1_000_000, help="how many to generate")
    parser.add_argument("--entries", type=int, default=100_000, help="how many ACL entries to load")
    parser.add_argument("--kills", type=int, default=0, help="how often to kill a process that changes a store")
    return parser.parse_args()


# Right


def _print_agreement(count: int) -> None:
    from random_worlds import NOW, question, world  # noqa: PLC0415 - where the tests are is known only now
    from slow_engine import slow_privileges  # noqa: PLC0415 - the same

    source = random.Random(SEED)
    asked = agreed = some = 0
    begin = time.perf_counter()
    while asked < count:
        snapshot = world(source)
        for _ in range(min(QUESTIONS_A_WORLD, count - asked)):
            subject, path = question(source, snapshot)
            expected = slow_privileges(snapshot, subject, path, NOW)
            asked += 1
            some += bool(expected)
            agreed += permissions(snapshot, subject, path, NOW) == {name: int(flag) for name, flag in expected.items()}
    seconds = time.perf_counter() - begin
    print(f"questions: {asked:,} (seed {SEED}), agreed: {agreed:,}, with any privilege: {some:,}; {seconds:.0f} s")


# Fast


def _print_decisions() -> None:
    source = random.Random(SEED)
    snapshot = of(1, _large(source, users=1000, groups=100, entries=5000))
    new = [(subject, f"/vms/{vmid}") for subject, vmid in _pairs(source, snapshot, REMEMBERED - 1)]
    first = _times(snapshot, new)
    again = _times(snapshot, new)
    print("decision: 1,000 users (each in 10 of 100 groups), 1,000 tokens, 5,000 ACL entries, 1,000 VMs in 20 pools")
    for name, times in (("asked for the first time", first), ("asked again", again)):
        print(f"  {name}: median {median(times) * 1e6:.2f} µs, p99 {quantiles(times, n=100)[98] * 1e6:.2f} µs")


def _times(snapshot: Snapshot, pairs: Sequence[tuple[str, str]]) -> list[float]:
    any_of = ("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted")
    clock: Callable[[], float] = time.perf_counter
    times = []
    for subject, path in pairs:
        begin = clock()
        check(snapshot, subject, path, any_of, 1e6)
        times.append(clock() - begin)
    return times


def _pairs(source: random.Random, snapshot: Snapshot, count: int) -> Iterator[tuple[str, int]]:
    subjects = [*snapshot.users, *snapshot.tokens]
    return ((source.choice(subjects), source.randrange(100, 1100)) for _ in range(count))


def _large(source: random.Random, *, users: int, groups: int, entries: int) -> Iterator[Stored]:
    names = [f"user{number}@pve" for number in range(users)]
    members: dict[int, set[str]] = {number: set() for number in range(groups)}
    for name in names:
        yield User(name)
        yield Token(name, "t", b"", source.random() < 0.5)
        for number in source.sample(range(groups), 10):
            members[number].add(name)
    yield from (Group(f"group{number}", "", frozenset(who)) for number, who in members.items())
    yield from (Pool(f"pool{number}", "", frozenset(range(100 + number, 1100, 20))) for number in range(20))
    yield Role("Freezer", frozenset({"VM.Audit", "VM.GuestAgent.FileSystemMgmt"}))
    yield from _entries(source, users, groups, entries)


def _entries(source: random.Random, users: int, groups: int, entries: int) -> Iterator[AclEntry]:
    keys: set[AclKey] = set()
    while len(keys) < entries:
        kind, subject = _subject(source, users, groups)
        entry = AclEntry(_path(source), kind, subject, source.choice(("Freezer", "PVEVMUser", "PVEVMAdmin")))
        if entry.key not in keys:
            keys.add(entry.key)
            yield entry


def _path(source: random.Random) -> str:
    kind = source.random()
    if kind < 0.1:
        return source.choice(("/", "/vms"))
    return f"/vms/{source.randrange(100, 1100)}" if kind < 0.9 else f"/pool/pool{source.randrange(20)}"


def _subject(source: random.Random, users: int, groups: int) -> Any:
    kind, user = source.random(), f"user{source.randrange(users)}@pve"
    if kind < 0.5:
        return "user", user
    return ("group", f"group{source.randrange(groups)}") if kind < 0.8 else ("token", f"{user}!t")


# Loaded


async def _print_load(entries: int) -> None:
    source = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        path = Path(name) / "access.db"
        records = [Put(record) for record in _large(source, users=1000, groups=100, entries=entries)]
        store = await SqliteStore.open(path, within=120)
        begin = time.perf_counter()
        await store.change(store.snapshot.version, records)
        written = time.perf_counter() - begin
        one = await _one_change(store)
        await store.close()
        begin = time.perf_counter()
        store = await SqliteStore.open(path)
        opened = time.perf_counter() - begin
        print(
            f"store of {len(store.snapshot.acl):,} ACL entries: opens in {opened:.2f} s; was written in {written:.2f} s; one more change: {one * 1e3:.1f} ms"
        )
        await store.close()


async def _one_change(store: SqliteStore) -> float:
    begin = time.perf_counter()
    await store.change(store.snapshot.version, [Put(AclEntry("/vms", "user", "user1@pve", "NoAccess"))])
    return time.perf_counter() - begin


# Killed


async def _print_kills(count: int) -> None:
    from killing import Killed, changed_until_killed  # noqa: PLC0415 - where the tests are is known only now

    source = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        path = Path(name) / "access.db"
        results: list[Killed] = [await changed_until_killed(path, source.uniform(0.0, 0.15)) for _ in range(count)]
    lost = sum(result.found < result.answered for result in results)
    broken = sum(not result.whole for result in results)
    answered = results[-1].answered if results else 0
    print(
        f"{signal.SIGKILL.name}: {count} times, answered changes lost: {lost}, half changes: {broken}; {answered:,} changes in all"
    )


if __name__ == "__main__":
    main()
