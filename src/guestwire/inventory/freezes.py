"""Which guests are frozen, by whom and since when, as far as that came through this server.

A note is in the store before the freeze is sent, and goes when the guest is known to be thawed: a server that is killed
in between finds it at its next start. The notes here count, and the store keeps them: a full disk hinders no thaw.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from guestwire.access import Subject
from guestwire.agent import commands as qga
from guestwire.contract.context import NO_TERMS, FreezeTerms
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
        changed: set when there is a new end to wait for.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._frozen = dict(store.snapshot.frozen)
        self._ends: dict[int, float] = {}
        """By VM, on a clock that nobody sets."""
        self._terms: dict[int, FreezeTerms] = {}
        """By VM, those of the call whose freeze its note is; each call has its own object. None of an earlier process."""
        self.own: set[int] = set()
        self.changed = asyncio.Event()
        now, clock = time.time(), time.monotonic()
        for note in self._frozen.values():
            if note.connected:  # its connection was to an earlier process
                self._ends[note.vmid] = clock
            elif note.until is not None:  # the wall clock may be wrong, and the lease is no longer for it
                self._ends[note.vmid] = clock + min(note.until - now, note.until - note.since)

    @property
    def frozen(self) -> Mapping[int, Frozen]:
        """The notes by VM."""
        return self._frozen

    def due(self) -> tuple[list[int], float | None]:
        """The VMs whose freeze should have ended, and the seconds until the next one's; None: there is none."""
        now = time.monotonic()
        later = [end - now for end in self._ends.values() if end > now]
        return [vmid for vmid, end in self._ends.items() if end <= now], min(later, default=None)

    def is_due(self, vmid: int) -> bool:
        """True when the freeze of a VM should have ended; not of a later one, which has an end of its own."""
        return vmid in self._frozen and self._ends.get(vmid, math.inf) <= time.monotonic()

    def end_now(self, vmid: int, terms: FreezeTerms) -> None:
        """The freeze of the call with these terms should end; nothing where it has, or where the guest is frozen by another."""
        if self._terms.get(vmid) is terms:
            self._ends[vmid] = time.monotonic()
            self.changed.set()

    async def note_sent(self, vmid: int, subject: Subject, command: str, terms: FreezeTerms = NO_TERMS) -> None:
        """A command is about to be sent."""
        if command == FREEZE and vmid not in self._frozen:
            await self._put(_note(vmid, subject, terms), terms)

    async def note_answer(
        self, vmid: int, subject: Subject, command: str, answer: Any, terms: FreezeTerms = NO_TERMS
    ) -> str:
        """What the agent answered; an error of its own, too. Returns the watchdog of a freeze that has ended, or ""."""
        before = self._frozen.get(vmid)
        count = answer if type(answer) is int else None
        if command == FREEZE and count:
            is_of_this_call = self._terms.get(vmid) is terms
            note = before if before and is_of_this_call else _note(vmid, subject, terms)
            note = msgspec.structs.replace(note, subject=subject.key, since=time.time(), count=count)
            await self._put(note, None if is_of_this_call else terms)
            log.info(
                "VM %d: %s frozen, by %s%s", vmid, counted(count, *SYSTEMS_ARE), subject.key,
                f", for {terms.lease:g} s" if terms.lease else "",
            )  # fmt: skip
            return ""
        if command == FREEZE:
            # An agent whose freeze fails thaws by itself; but it may fail because of the freeze of another call, which
            # may have no answer yet, or will never have one.
            if self._terms.get(vmid) is terms:
                await self.forget(vmid)
            return terms.watchdog
        await self._note_end(vmid, subject, command, answer)
        return before.watchdog if before and vmid not in self._frozen else ""

    async def _note_end(self, vmid: int, subject: Subject, command: str, answer: Any) -> None:
        before = self._frozen.get(vmid)
        count = answer if type(answer) is int else None
        if command == THAW and count is not None:
            await self.forget(vmid)
            _log_thaw(vmid, count, before, subject)
        elif command == STATUS and answer == THAWED and before and before.count is not None:
            await self.forget(vmid)
            log.warning("VM %d: the freeze was lost: %s, and it is thawed", vmid, in_words(before))

    async def forget(self, vmid: int) -> None:
        """Removes a note, if there is one."""
        # All of it before the store is written: meanwhile the next freeze may begin, and has a note of its own.
        found = self._frozen.pop(vmid, None)
        self.own.discard(vmid)
        self._terms.pop(vmid, None)
        self._ends.pop(vmid, None)
        if found:
            await self._keep(vmid)

    async def _put(self, frozen: Frozen, terms: FreezeTerms | None) -> None:
        """Keeps a note; `terms` are those of a new freeze."""
        self._frozen[frozen.vmid] = frozen
        self.own.add(frozen.vmid)
        if terms is not None:
            self._terms[frozen.vmid] = terms
            self._ends.pop(frozen.vmid, None)
            if terms.lease is not None:
                self._ends[frozen.vmid] = time.monotonic() + terms.lease
                self.changed.set()
        await self._keep(frozen.vmid)

    async def _keep(self, vmid: int) -> None:
        """Has the store say what is known by then, for of two calls that change it the earlier one may be the later to write."""

        def decide(snapshot: Snapshot) -> list[Change]:
            now = self._frozen.get(vmid)
            if now == snapshot.frozen.get(vmid):
                return []
            return [Put(now)] if now else [Remove(Frozen, vmid)]

        try:
            await update(self._store, decide)
        except StoreError as error:
            log.error("which guests are frozen can't be written: %s", error)  # noqa: TRY400  # the text says it all


def _note(vmid: int, subject: Subject, terms: FreezeTerms) -> Frozen:
    now = time.time()
    until = None if terms.lease is None else now + terms.lease
    return Frozen(vmid, subject.key, now, None, until, terms.connected, terms.watchdog)


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
