"""What happens to guests, over every way to a host: as it says itself, or by looking at its list, and asking agents, again and again."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, NamedTuple, Protocol

from guestwire.agent.commands import TypedCommand
from guestwire.agent.readers import Read
from guestwire.client.cancellation import background
from guestwire.client.errors import (
    AgentRefused,
    AgentTookTooLong,
    AgentUnavailable,
    CallFailed,
    LoginFailed,
    NoSuchEndpoint,
    PrivilegeMissing,
    WrongParameters,
)
from guestwire.client.guests import Guest
from guestwire.client.protocols import GuestInfo
from guestwire.contract.guest_events import AGENT_SILENT, AGENT_UP, Event, Seen, compare
from guestwire.contract.guest_facts import GuestFacts, read_facts

EVERY: Final = 2.0
"""Seconds from one look to the next."""

FACTS_EVERY: Final = 30.0
"""Seconds after which a guest is asked again for what it says of itself."""

RETRY: Final = 10.0
"""Seconds after which an agent is asked again that does not answer."""

SELDOM: Final = 300.0
"""Seconds after which one is asked again that can't be asked: it has no agent, or the caller may not."""

AT_ONCE: Final = 4
"""Guests that are asked at the same time."""

HOST_LOST, HOST_BACK = "host-lost", "host-back"

FOR_GOOD: Final = (LoginFailed, PrivilegeMissing, WrongParameters)
"""Errors that no waiting mends."""


class Watched(Protocol):
    """A host, as far as this needs it."""

    @property
    def name(self) -> str: ...  # noqa: D102  # see `Host`
    async def look(self) -> tuple[list[GuestInfo], frozenset[str]]: ...  # noqa: D102
    def guest_from(self, info: GuestInfo) -> Guest: ...  # noqa: D102


OwnEvents = Callable[[], AsyncGenerator[Event | None, None]]
"""What a host tells itself from now on; None stands for a moment in which nothing happened, and comes first. NoSuchEndpoint: it tells nothing."""


async def follow(
    host: Watched,
    own_events: OwnEvents,
    on_ready: Callable[[], None],
    every: float = EVERY,
    facts_every: float = FACTS_EVERY,
) -> AsyncGenerator[Event, None]:
    """See `Host.events`."""
    source: _Source = _OwnEvents(host, own_events)
    is_ready = is_lost = False
    while True:
        try:
            async with aclosing(source.events()) as events:
                async for event in events:
                    if is_lost:
                        yield Event(time.time(), HOST_BACK, 0, "", host.name, "answers again")
                    elif not is_ready:
                        on_ready()
                    is_ready, is_lost = True, False
                    if event:
                        yield event
        except NoSuchEndpoint:
            source = _Looks(host, every, facts_every)
            continue
        except CallFailed as error:
            if not is_ready or isinstance(error, FOR_GOOD):
                raise
            if not is_lost:
                yield Event(time.time(), HOST_LOST, 0, "", host.name, error.message)
            is_lost = True
        await asyncio.sleep(every)


class _Source(Protocol):
    def events(self) -> AsyncGenerator[Event | None, None]:
        """The events from now on; again after an error: then also those that were missed. None comes first."""
        ...


class _OwnEvents:
    """What the host tells itself."""

    def __init__(self, host: Watched, own_events: OwnEvents) -> None:
        self._host = host
        self._own_events = own_events
        self._before: dict[int, Seen] | None = None
        """How things were when it was last heard."""

    async def events(self) -> AsyncGenerator[Event | None, None]:
        has_begun = is_stale = False
        looked = 0.0
        async with aclosing(self._own_events()) as events:
            async for event in events:
                yield event
                is_stale |= event is not None
                # A thousand guests may be started in one moment, and their list is long.
                if not has_begun or (is_stale and looked + EVERY <= time.monotonic()):
                    found, _ = await self._host.look()
                    after = _seen(found, {})
                    if not has_begun and self._before is not None:
                        for missed in compare(self._before, after):
                            yield missed
                    self._before, has_begun, is_stale, looked = after, True, False, time.monotonic()


def reader_of(guest: Guest) -> Read:
    """Asks a guest by its endpoints; None where it lacks the command, or the host the endpoint."""

    async def read(command: TypedCommand[Any]) -> Any:
        method = command.command.name.removeprefix("guest-").replace("-", "_")
        try:
            return await getattr(guest, method)()
        except (AgentRefused, NoSuchEndpoint, PrivilegeMissing):
            return None

    return read


class _Looks:
    """What is seen of a host that tells nothing itself."""

    def __init__(self, host: Watched, every: float, facts_every: float) -> None:
        self._host = host
        self._before: dict[int, Seen] | None = None
        self._every = every
        self._facts_every = facts_every
        self._running: list[GuestInfo] = []
        self._due: dict[int, float] = {}
        self._inside: dict[int, _Inside] = {}

    async def events(self) -> AsyncGenerator[Event | None, None]:
        async with background(self._ask_all()) as asking:
            while True:
                if asking.done():
                    await asking
                found, silent = await self._host.look()
                self._running = [one for one in found if one.status == "running"]
                # One that is started again is asked at once.
                self._due = {one.vmid: self._due.get(one.vmid, 0.0) for one in self._running}
                after = _seen(found, self._inside)
                # Of a node that does not answer now nothing is known: its guests are not gone.
                after = {vmid: seen for vmid, seen in (self._before or {}).items() if seen.node in silent} | after
                yield None
                if self._before is not None:
                    for event in compare(self._before, after):
                        yield event
                self._before = after
                await asyncio.sleep(self._every)

    async def _ask_all(self) -> None:
        """Asks the guests that run, a few at once."""
        turns = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                for info in self._running:
                    if self._due[info.vmid] <= time.monotonic():
                        self._due[info.vmid] = time.monotonic() + self._facts_every
                        group.create_task(self._ask(info, turns), name=f"ask {info.vmid} for news")
                await asyncio.sleep(self._every)

    async def _ask(self, info: GuestInfo, turns: asyncio.Semaphore) -> None:
        async with turns:
            before = self._inside.get(info.vmid, _NOTHING)
            guest = self._host.guest_from(info)
            try:
                await guest.ping()
                found = _Inside(AGENT_UP, await read_facts(reader_of(guest), before.facts))
            except (AgentUnavailable, AgentTookTooLong):
                self._due[info.vmid] = time.monotonic() + RETRY
                found = _Inside(AGENT_SILENT, before.facts)
            except CallFailed:
                self._due[info.vmid] = time.monotonic() + SELDOM
                return
            self._inside[info.vmid] = found


class _Inside(NamedTuple):
    """What is known of a guest from inside."""

    agent: str | None = None
    facts: GuestFacts | None = None


_NOTHING: Final = _Inside()


def _seen(guests: list[GuestInfo], inside: dict[int, _Inside]) -> dict[int, Seen]:
    return {
        guest.vmid: Seen(
            name=guest.name,
            node=guest.node,
            status=guest.status,
            frozen_by=guest.frozen_by,
            agent=AGENT_SILENT if guest.last_answer else inside.get(guest.vmid, _NOTHING).agent,
            tags=";".join(guest.tags),
            facts=inside.get(guest.vmid, _NOTHING).facts,
        )
        for guest in guests
    }
