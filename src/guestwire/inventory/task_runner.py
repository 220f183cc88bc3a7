"""Work that goes on after its call, with a status and a log: as Proxmox VE's tasks.

The store has a task before it begins, so that a server that is killed says at its next start what it left undone.
"""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from guestwire.access import Subject
from guestwire.contract.upid import Upid
from guestwire.errors import GuestError, GuestwireError, StoreError
from guestwire.inventory.host import boot_seconds
from guestwire.stores import Change, Put, Remove, Snapshot, Store, StoredTask, update

log = logging.getLogger("guestwire.tasks")

MOST_RUNNING: Final = 256

KEPT: Final = 1000
"""Tasks that are remembered after their end."""

MAX_LOG: Final = 64 * 1024
"""Characters of one task's log; what comes later is left out."""

MAX_STATUS: Final = 1000
"""Characters; a guest has a say in them."""

CLOSING: Final = 5.0
"""Seconds that tasks have to their end when the server ends."""

Say = Callable[[str], None]
"""Adds a line to a task's log."""


class Tasks:
    """The tasks of one node.

    Args:
        node: its name.
        store: keeps them; belongs to its maker.
    """

    def __init__(self, node: str, store: Store) -> None:
        self._node = node
        self._store = store
        self._known = dict(sorted(store.snapshot.tasks.items(), key=_begin))
        self._running: dict[str, asyncio.Task[None]] = {}
        self._numbers = itertools.count()

    @property
    def known(self) -> Mapping[str, StoredTask]:
        """The tasks by upid, the oldest first."""
        return self._known

    async def settle(self) -> None:
        """At the start of a server: what ran when the one before ended has an unknown end."""
        for task in [task for task in self._known.values() if not task.status]:
            log.warning("a task did not come to its end before the server did: %s", task.upid)
            await self._keep(StoredTask(task.upid, "unexpected status", int(time.time()), task.log))

    async def begin(self, kind: str, vmid: int, subject: Subject, work: Callable[[Say], Awaitable[None]]) -> str:
        """Begins work on a VM, and returns its upid at once. An error of guestwire's is the task's end.

        Raises:
            GuestError: too many tasks run.
        """
        if len(self._running) >= MOST_RUNNING:
            raise GuestError(f"{MOST_RUNNING} tasks run already; wait until some have ended, or end some")
        ticks = int(boot_seconds() * 100) + next(self._numbers)
        upid = str(Upid(self._node, os.getpid(), ticks, int(time.time()), kind, str(vmid), subject.key))
        self._known[upid] = StoredTask(upid)
        task = asyncio.get_running_loop().create_task(self._run(upid, work), name=f"{kind} {vmid}")
        self._running[upid] = task
        task.add_done_callback(lambda _: self._running.pop(upid, None))
        return upid

    async def cancel(self, upid: str) -> None:
        """Ends a task that still runs, and waits for its end."""
        if task := self._running.get(upid):
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        """Gives what runs a moment, and ends it then."""
        if running := list(self._running.values()):
            _, left = await asyncio.wait(running, timeout=CLOSING)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _run(self, upid: str, work: Callable[[Say], Awaitable[None]]) -> None:
        written: list[str] = []

        def say(text: str) -> None:
            if sum(map(len, written)) < MAX_LOG:
                written.extend(text[:MAX_LOG].splitlines() or [""])
                self._known[upid] = StoredTask(upid, log="\n".join(written))

        try:
            await self._keep(StoredTask(upid))
            await work(say)
        except GuestwireError as error:
            status = " ".join(str(error).split())[:MAX_STATUS]
        except asyncio.CancelledError:
            status = "received interrupt"
        except Exception:
            log.exception("unexpected error in task %s", upid)
            status = "internal error, see the log"
        else:
            status = "OK"
        say("TASK OK" if status == "OK" else f"TASK ERROR: {status}")
        log.info("%s: %a", upid, status)
        await self._keep(StoredTask(upid, status, int(time.time()), "\n".join(written)))

    async def _keep(self, task: StoredTask) -> None:
        self._known[task.upid] = task
        ended = [known.upid for known in self._known.values() if known.status]
        old = ended[: max(len(ended) - KEPT, 0)]
        for upid in old:
            del self._known[upid]

        def decide(snapshot: Snapshot) -> list[Change]:
            return [Put(task), *(Remove(StoredTask, upid) for upid in old if upid in snapshot.tasks)]

        try:
            await update(self._store, decide)
        except StoreError as error:  # a full disk hinders no shutdown
            log.error("task %s can't be written: %s", task.upid, error)  # noqa: TRY400  # the text says it all


def _begin(task: tuple[str, StoredTask]) -> tuple[int, int]:
    upid = Upid.parse(task[0])
    return (upid.starttime, upid.pstart) if upid else (0, 0)
