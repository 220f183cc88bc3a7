"""What happens to guests, over every way to a host: the host's list is looked at again and again."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final, Protocol

from guestwire.client.errors import CallFailed, LoginFailed, PrivilegeMissing, WrongParameters
from guestwire.client.protocols import GuestInfo
from guestwire.contract.guest_events import Event, Seen, compare

EVERY: Final = 2.0
"""Seconds from one look to the next."""

HOST_LOST, HOST_BACK = "host-lost", "host-back"

FOR_GOOD: Final = (LoginFailed, PrivilegeMissing, WrongParameters)
"""Errors that no waiting mends."""


class Watched(Protocol):
    """A host, as far as this needs it."""

    @property
    def name(self) -> str: ...  # noqa: D102  # see `Host`
    async def guests(self) -> list[GuestInfo]: ...  # noqa: D102


async def follow(host: Watched, every: float = EVERY) -> AsyncIterator[Event]:
    """See `Host.events`."""
    before, lost = await _look(host), ""
    while True:
        await asyncio.sleep(every)
        try:
            after = await _look(host)
        except FOR_GOOD:
            raise
        except CallFailed as error:
            if not lost:
                yield Event(time.time(), HOST_LOST, 0, "", host.name, error.message)
            lost = error.message
            continue
        if lost:
            yield Event(time.time(), HOST_BACK, 0, "", host.name, "answers again")
            lost = ""
        for event in compare(before, after):
            yield event
        before = after


async def _look(host: Watched) -> dict[int, Seen]:
    return {
        guest.vmid: Seen(guest.name, guest.node, guest.status, guest.frozen_by, guest.last_answer, ";".join(guest.tags))
        for guest in await host.guests()
    }
