"""Polls guests for their metrics in the background, each in its own rhythm, so that a scrape asks no guest anything."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from guestwire.access import Subject
from guestwire.access.control import Access
from guestwire.access.engine import SUPERUSER
from guestwire.agent.commands import PING
from guestwire.agent.readers import OF_FREEZES, reader_of
from guestwire.errors import AgentError, AgentNotConfigured, GuestwireError, VmNotFound, VmNotRunning
from guestwire.inventory import Inventory, Lease
from guestwire.metrics import Exposition, Reading, read_guest
from guestwire.metrics.polling import Group

log = logging.getLogger("guestwire.metrics")

FIRST: Final = 10.0
"""Seconds within which the first polls are; the pauses behind them are twice as long each, up to the configured one."""

RHYTHM: Final = {Group.SPACE: 2, Group.SYSTEM: 10}
"""How many times the configured pause lies between two readings of a group; load is read in each poll."""

POLL_WITHIN: Final = 2.0
"""Seconds."""

TICK: Final = 0.1
"""Seconds between two looks at what is due."""

AT_ONCE: Final = 64

POLLER: Final = Subject(SUPERUSER)


class PolledGuest:
    """What is known of one guest; times are of a clock that nobody sets.

    Args:
        now: the time.
        place: its place among those that were found at the same time, from 0 to 1.
        pause: seconds until it is polled a second time.
    """

    def __init__(self, now: float, place: float, pause: float) -> None:
        self.place = place
        self.pause = pause
        self.due = now + place * pause  # not all at once
        self.group_due = dict.fromkeys(RHYTHM, 0.0)
        self.lacks: set[str] = set()
        """Commands that its agent does not have; it is asked again with the system's group."""
        self.task: asyncio.Task[None] | None = None

    def plan(self, began: float, pause: float) -> None:
        """When it is due again, after a poll that began then.

        A pause that grows also draws those apart that were found together. Else 1,000 guests, first polled within ten
        seconds, would be polled within ten seconds of each minute for ever, and other calls would be slow then.
        """
        self.due = began + pause + self.place * max(0.0, pause - self.pause)
        self.pause = pause


class GuestPolls:
    """The polls of all guests of a node.

    Args:
        inventory: the VMs; its exposition gets the series.
        access: for leases.
        every: seconds between two readings of load, disks and network; file systems are read half as often, the rest
            a tenth.
    """

    def __init__(self, inventory: Inventory, access: Access, every: float) -> None:
        self._inventory = inventory
        self._access = access
        self._every = every
        self._guests: dict[int, PolledGuest] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._exposition = Exposition()
        inventory.exposition = self._exposition

    async def run(self) -> None:
        """Polls until it is cancelled."""
        try:
            while True:
                now = time.monotonic()
                self._follow(now)
                for vmid, guest in self._guests.items():
                    if guest.due <= now and guest.task is None:
                        guest.task = asyncio.create_task(self._poll(vmid, guest), name=f"poll of VM {vmid}")
                        guest.task.add_done_callback(guest_done(guest))
                await asyncio.sleep(TICK)
        finally:
            tasks = [guest.task for guest in self._guests.values() if guest.task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, now: float) -> None:
        known = {vmid for vmid, vm in self._inventory.vms.items() if vm.agent}
        for vmid in self._guests.keys() - known:
            if self._guests[vmid].task is None:
                del self._guests[vmid]
                self._exposition.forget(vmid)
        new = known - self._guests.keys()
        for position, vmid in enumerate(sorted(new)):
            self._guests[vmid] = PolledGuest(now, position / len(new), min(FIRST, self._every))

    async def _poll(self, vmid: int, guest: PolledGuest) -> None:
        """One poll, and when the next one is due."""
        async with self._turn:
            began = time.monotonic()
            groups = Group.LOAD
            for group, due in guest.group_due.items():
                if due <= began:
                    groups |= group
            if Group.SYSTEM in groups:
                guest.lacks.clear()
            try:
                answered = await self._read(vmid, guest, groups)
            except (VmNotFound, VmNotRunning, AgentNotConfigured):
                self._exposition.forget(vmid)
                guest.plan(began, min(FIRST, self._every))
            else:
                for group in groups if answered else ():
                    guest.group_due[group] = began + RHYTHM[group] * self._every - TICK
                guest.plan(began, min(guest.pause * 2, self._every))

    async def _read(self, vmid: int, guest: PolledGuest, groups: Group) -> bool:
        """Reads these groups, and shows what was seen; False where the guest did not answer."""
        began, is_frozen, reading = time.monotonic(), False, None
        lease = Lease(self._inventory, self._access, POLLER, "")
        try:
            async with asyncio.timeout(POLL_WITHIN):
                agent = await lease.agent(vmid)
                if vmid in self._inventory.freezes.frozen:  # it answers next to nothing, and should be left alone
                    self._show(vmid, guest, {"frozen": [((), 1)]}, keeps=True)
                    return False
                await agent.execute(PING)  # it may lack all that follows, and be up
                reading = await read_guest(reader_of(agent, guest.lacks), groups)
        except AgentError as error:
            is_frozen = OF_FREEZES in error.description
        except (VmNotFound, VmNotRunning, AgentNotConfigured):
            raise
        except (GuestwireError, TimeoutError) as error:
            log.debug("VM %d: %s", vmid, str(error) or "no answer")
        finally:
            lease.release()
        seen = Reading()
        seen.add("agent_up", 1 if reading or is_frozen else 0)
        seen.add("frozen", int(is_frozen))
        seen.add("last_poll_timestamp_seconds", time.time())
        seen.add("poll_duration_seconds", time.monotonic() - began)
        # What a guest said before it fell silent is no news: a dashboard should see a gap.
        series = {**(reading.series if reading else {}), **seen.series}
        if not reading:
            guest.group_due = dict.fromkeys(guest.group_due, 0.0)
        self._show(vmid, guest, series, keeps=bool(reading) or is_frozen)
        return reading is not None

    def _show(self, vmid: int, guest: PolledGuest, series: Mapping[str, Any], *, keeps: bool) -> None:
        vm = self._inventory.vms.get(vmid)
        if vm is not None:
            name = vm.config.name or f"VM {vmid}"
            if not self._exposition.put(vmid, name, self._inventory.node, series, keeps=keeps):
                guest.group_due = dict.fromkeys(guest.group_due, 0.0)


def guest_done(guest: PolledGuest) -> Any:
    """What is called when the poll of a guest has ended."""

    def done(task: asyncio.Task[None]) -> None:
        guest.task = None
        if not task.cancelled() and (error := task.exception()):
            guest.due = time.monotonic() + FIRST
            log.error("unexpected error", exc_info=error)

    return done
