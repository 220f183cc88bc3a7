"""A process that changes a store until it is killed, and what is found afterwards."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from guestwire.stores import SqliteStore

CHANGES = """
import asyncio, sys
from pathlib import Path
from guestwire.stores import Group, Put, SqliteStore, User

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        number = len(store.snapshot.users)
        user = User(f"u{number}@pve", comment="x" * 20_000)
        await store.change(store.snapshot.version, [Put(user), Put(Group(f"g{number}", members=frozenset({user.userid})))])
        print(store.snapshot.version, flush=True)

asyncio.run(main())
"""
"""Each change makes a user and a group; the version is printed when it was answered."""


@dataclass(frozen=True, slots=True)
class Killed:
    """The last version that was answered, the version that is there, and whether no half of a change is."""

    answered: int
    found: int
    whole: bool


async def changed_until_killed(path: Path, after: float) -> Killed:
    """Starts the process, kills it `after` seconds from its first change on, and looks."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHANGES, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"ready\n"
        answered = await _answers(process, after)
    return await _look(path, answered)


async def _answers(process: asyncio.subprocess.Process, after: float) -> int:
    assert process.stdout
    asyncio.get_running_loop().call_later(after, process.kill)
    output = await process.stdout.read()
    await process.wait()
    complete = output[: output.rfind(b"\n") + 1].split()
    return int(complete[-1]) if complete else 0


async def _look(path: Path, answered: int) -> Killed:
    store = await SqliteStore.open(path)
    snapshot = store.snapshot
    await store.close()
    whole = {f"u{number}@pve" for number in range(snapshot.version)} == set(snapshot.users)
    whole = whole and all(
        snapshot.groups[f"g{number}"].members == {f"u{number}@pve"} for number in range(snapshot.version)
    )
    return Killed(answered, snapshot.version, whole and len(snapshot.groups) == snapshot.version)
