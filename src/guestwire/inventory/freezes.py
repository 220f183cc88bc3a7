"""Which guests are frozen, by whom and since when, as far as that came through this server.

A note is in the store before the freeze is sent, and goes when the guest is known to be thawed: a server that is killed
in between finds it at its next start. The notes here count, and the store keeps them: a full disk hinders no thaw.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from guestwire.access import Subject
from guestwire.agent import commands as qga
from guestwire.counting import counted
from guestwire.errors import StoreError
from guestwire.stores import Change, Frozen, Put, Remove, Snapshot, Store, update

log = logging.getLogger("guestwire.freezes")

FREEZE: Final = qga.FSFREEZE_FREEZE.command.name
THAW: Final = qga.FSFREEZE_THAW.command.name
STATUS: Final = qga.FSFREEZE_STATUS.command.name

THAWED: Final = "thawed"

SYSTEMS_ARE: Final = ("file system is", "file systems are")


class Freezes:
    """The notes of one server.

    Args:
        store: keeps them; belongs to its maker.

    Attributes:
        own: the VMs that were frozen through this process.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._frozen = dict(store.snapshot.frozen)
        self.own: set[int] = set()

    @property
    def frozen(self) -> Mapping[int, Frozen]:
        """The notes by VM."""
        return self._frozen

    async def note_sent(self, vmid: int, subject: Subject, command: str) -> None:
        """A command is about to be sent."""
        if command == FREEZE and vmid not in self._frozen:
            await self._put(Frozen(vmid, subject.key, time.time()))

    async def note_answer(self, vmid: int, subject: Subject, command: str, answer: Any) -> None:
        """What the agent answered; an error of its own, too."""
        before = self._frozen.get(vmid)
        count = answer if isinstance(answer, int) else None
        if command == FREEZE and count:
            await self._put(Frozen(vmid, subject.key, time.time(), count))
            log.info("VM %d: %s frozen, by %s", vmid, counted(count, *SYSTEMS_ARE), subject.key)
        elif command == FREEZE and before and before.count is None:  # an agent whose freeze fails thaws by itself
            await self.forget(vmid)
        elif command == THAW and count is not None:
            await self.forget(vmid)
            _log_thaw(vmid, count, before, subject)
        elif command == STATUS and answer == THAWED and before and before.count is not None:
            await self.forget(vmid)
            log.warning("VM %d: the freeze was lost: %s, and it is thawed", vmid, in_words(before))

    async def forget(self, vmid: int) -> None:
        """Removes a note, if there is one."""
        if self._frozen.pop(vmid, None):
            await self._keep(lambda snapshot: [Remove(Frozen, vmid)] if vmid in snapshot.frozen else [])
        self.own.discard(vmid)

    async def _put(self, frozen: Frozen) -> None:
        self._frozen[frozen.vmid] = frozen
        self.own.add(frozen.vmid)
        await self._keep(lambda _: [Put(frozen)])

    async def _keep(self, decide: Callable[[Snapshot], list[Change]]) -> None:
        try:
            await update(self._store, decide)
        except StoreError as error:
            log.error("which guests are frozen can't be written: %s", error)  # noqa: TRY400  # the text says it all


def _log_thaw(vmid: int, count: int, before: Frozen | None, subject: Subject) -> None:
    if before and before.count is not None and count < before.count:
        log.warning(
            "VM %d: the freeze was lost: %s, and only %s left to be thawed by %s",
            vmid, in_words(before), counted(count, "was", "were"), subject.key,
        )  # fmt: skip
    elif count or before:
        seconds = f" after {time.time() - before.since:.1f} s" if before else ""
        log.info("VM %d: %s thawed%s, by %s", vmid, counted(count, *SYSTEMS_ARE), seconds, subject.key)


def in_words(frozen: Frozen) -> str:
    """As `3 file systems were frozen by ann@pve since 2026-11-26 12:00:00 UTC`."""
    were = ("file system was", "file systems were")
    systems = f"a number of {were[1]}" if frozen.count is None else counted(frozen.count, *were)
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(frozen.since))
    return f"{systems} frozen by {frozen.subject or 'an unknown caller'} since {since}"
