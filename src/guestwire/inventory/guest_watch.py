"""What happens to the VMs of a node, for all who follow it; while nobody does, nothing is looked at."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from guestwire.agent.readers import reader_of
from guestwire.channels import ChannelState
from guestwire.contract.guest_events import AGENT_GONE, AGENT_SILENT, AGENT_UP, Event, Seen, compare
from guestwire.contract.guest_facts import GuestFacts, read_facts
from guestwire.errors import GuestwireError
from guestwire.inventory.vm import Vm, running_states

log = logging.getLogger("guestwire")

EVERY: Final = 1.0
"""Seconds from one look to the next; a look asks no guest anything."""

FACTS_EVERY: Final = 30.0
FACTS_WITHIN: Final = 5.0
"""Seconds: how often a guest is asked for what it says of itself, and how long for all of that."""

SETTLES_WITHIN: Final = 3.0
"""Seconds after which a guest is asked whose agent has come up: it has just started, and its addresses come one by one."""

AT_ONCE: Final = 8
BEHIND: Final = 1000
"""Looks that a follower may be behind; then it is let go."""

_AGENTS: Final = {ChannelState.UP: AGENT_UP, ChannelState.SILENT: AGENT_SILENT, ChannelState.GONE: AGENT_GONE}


class _Guest:
    """What is known of a guest from inside."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.facts: GuestFacts | None = None
        self.lacks: set[str] = set()
        self.was_asked = False
        self.task: asyncio.Task[None] | None = None

    def forget_task(self, task: asyncio.Task[None]) -> None:
        """It has ended."""
        self.task = None
        if not task.cancelled() and (error := task.exception()):
            log.error("unexpected error", exc_info=error)


class GuestWatch:
    """Watches VMs. Must be closed.

    Args:
        vms: those that there are now, by id.
        frozen_by: who has frozen a VM; None: it is not.
        node: this node's name.
    """

    def __init__(self, vms: Callable[[], Mapping[int, Vm]], frozen_by: Callable[[int], str | None], node: str) -> None:
        self._vms = vms
        self._frozen_by = frozen_by
        self._node = node
        self._followers: set[asyncio.Queue[list[Event] | None]] = set()
        self._guests: dict[int, _Guest] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._task: asyncio.Task[None] | None = None
        self._has_looked = asyncio.Event()

    async def follow(self) -> AsyncGenerator[list[Event], None]:
        """The events of each second from now on, mostly none. The first list, an empty one, comes when it is known how things are."""
        queue: asyncio.Queue[list[Event] | None] = asyncio.Queue(BEHIND)
        self._followers.add(queue)
        if self._task is None:
            self._has_looked.clear()
            self._task = asyncio.create_task(self._run(), name="watch guests")
        try:
            await self._has_looked.wait()
            yield []
            while (events := await queue.get()) is not None:
                yield events
        finally:
            self._followers.discard(queue)
            if not self._followers:
                await self.close()

    async def close(self) -> None:
        """Ends the watch, and what follows it."""
        followers, self._followers = self._followers, set()
        for queue in followers:
            _put(queue, None)
        self._has_looked.set()  # those who have waited for the first look wait no more
        task, self._task = self._task, None
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        before: dict[int, Seen] | None = None
        # Of this run alone: the next one may have begun before this one is at its end.
        guests = self._guests = {}
        try:
            while True:
                try:
                    after = await self._look(is_first=before is None)
                    events = [] if before is None else list(compare(before, after))
                    before = after
                except Exception:  # one odd VM must not end what is said of the others
                    log.exception("guests can't be looked at")
                    events = []
                self._has_looked.set()
                self._tell(events)
                self._ask_guests({event.vmid for event in events if event.kind == AGENT_UP})
                await asyncio.sleep(EVERY)
        finally:
            tasks = [guest.task for guest in guests.values() if guest.task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self, events: list[Event]) -> None:
        for queue in list(self._followers):
            if queue.full():
                self._followers.discard(queue)
                _put(queue, None)
            else:
                queue.put_nowait(events)

    async def _look(self, *, is_first: bool) -> dict[int, Seen]:
        vms = self._vms()
        for vmid in self._guests.keys() - vms.keys():
            if task := self._guests.pop(vmid).task:
                task.cancel()
        running = await running_states(list(vms.values()))
        return {
            vmid: self._see(vmid, vm, is_running=runs, is_first=is_first)
            for (vmid, vm), runs in zip(vms.items(), running, strict=True)
        }

    def _see(self, vmid: int, vm: Vm, *, is_running: bool, is_first: bool) -> Seen:
        guest = self._guests.get(vmid)
        if guest is None:
            # Those that are there at first are asked one after the other, not all in one moment.
            place = len(self._guests) / max(len(self._vms()), 1) if is_first else 0.0
            guest = self._guests[vmid] = _Guest(time.monotonic() + place * FACTS_EVERY)
            guest.was_asked = not is_running  # of a channel that nobody has used yet nothing is known
        agent = None
        if guest.was_asked:
            agent = _agent_of(vm) if is_running else AGENT_GONE
        return Seen(
            name=vm.config.name or f"VM {vmid}",
            node=self._node,
            status="running" if is_running else "stopped",
            frozen_by=self._frozen_by(vmid) if is_running else None,
            agent=agent,
            tags=";".join(vm.config.tags),
            run_state=vm.run_state if is_running else None,
            resets=vm.resets,
            start=vm.start if is_running else None,
            facts=guest.facts,
        )

    def _ask_guests(self, woken: set[int]) -> None:
        """Starts to ask those that are due; and soon those whose agent has just come up, for much may have changed."""
        now = time.monotonic()
        for vmid, guest in self._guests.items():
            if vmid in woken:
                guest.due = min(guest.due, now + SETTLES_WITHIN)
            if guest.task is None and guest.due <= now:
                guest.due = now + FACTS_EVERY
                guest.task = asyncio.create_task(self._ask(vmid, guest), name=f"ask VM {vmid} for news")
                guest.task.add_done_callback(guest.forget_task)

    async def _ask(self, vmid: int, guest: _Guest) -> None:
        async with self._at_once:
            vm = self._vms().get(vmid)
            if vm is None or vm.agent is None or self._frozen_by(vmid) or not await vm.is_running():
                return
            vm.lease()
            try:
                async with asyncio.timeout(FACTS_WITHIN):
                    guest.facts = await read_facts(reader_of(vm.agent, guest.lacks), guest.facts)
            except (GuestwireError, TimeoutError) as error:
                log.debug("VM %d: %s", vmid, str(error) or "no answer")
            finally:
                vm.release()
                guest.was_asked = True


def _agent_of(vm: Vm) -> str | None:
    return None if vm.channel_state is None else _AGENTS[vm.channel_state]


def _put(queue: "asyncio.Queue[list[Event] | None]", item: None) -> None:
    """The last one, also where there is no room."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(item)
