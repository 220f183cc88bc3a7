"""Callers of the server: their host, their pace, what is kept for them, and the guests that they mean."""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final

from guestwire.client import CallFailed, Guest, GuestInfo, Host
from guestwire.client.errors import ErrorContext, NoSuchGuest
from guestwire.client.freezing import thaw
from guestwire.counting import counted
from guestwire.mcp.display import TextCache, sanitize
from guestwire.mcp.policy import Policy, Rule, TooMany
from guestwire.pacing import RateLimiter

log = logging.getLogger("guestwire.mcp")

MINUTE: Final = 60.0

LISTED_FOR: Final = 5.0
"""Seconds that a list of guests is good for: listing them asks every node."""


def rule_for(policy: Policy, host: Host, guest: GuestInfo) -> Rule:
    """The rule that decides for a guest.

    An agent's own socket does not tell the VM's id, unless the file is named by it.
    """
    if not host.has_one_guest:
        return policy.rule_for(guest.vmid, guest.name)
    return policy.rule_for(int(guest.name) if guest.name.isascii() and guest.name.isdigit() else 0, guest.name)


@dataclass
class Caller:
    """A user of the server, by their own credentials.

    Attributes:
        host: connected with them.
        texts: long texts that were shortened for this caller.
        id: unlike any other caller's.
        running: a task for each call.
        processes: that this caller started, by node and VMID, with their pids.
        frozen: guests whose file systems this caller froze, by node and VMID, with their number.
    """

    host: Host
    texts: TextCache = field(default_factory=TextCache)
    id: str = field(default_factory=lambda: token_hex(8))
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    processes: dict[tuple[str, int], deque[int]] = field(default_factory=dict)
    frozen: dict[tuple[str, int], tuple[Guest, int]] = field(default_factory=dict)
    _pace: RateLimiter | None = None
    _noted: float = -math.inf
    _guests: list[GuestInfo] = field(default_factory=list)
    _listed: float = -math.inf

    async def close(self) -> None:
        """Ends calls under way and the connection; thaws first what is frozen, for there is no caller left to do it."""
        for task in (running := tuple(self.running)):
            task.cancel()  # a freeze that is cancelled is thawed
        await asyncio.gather(*running, return_exceptions=True)
        while self.frozen:
            _, (guest, count) = self.frozen.popitem()
            try:
                await thaw(guest, count)
            except CallFailed as error:
                log.warning("its caller left: %s", sanitize(str(error)))
            else:
                log.warning("%s: its caller left, and its file systems were thawed", sanitize(str(guest.context)))
        await self.host.close()

    def count(self, now: float, limit: int) -> None:
        """Counts a call.

        Raises:
            TooMany: there were too many within a minute.
        """
        self._pace = self._pace or RateLimiter(limit, MINUTE)
        if wait := self._pace.wait(self.id, now):
            raise TooMany(
                f"{counted(limit, 'call a minute is', 'calls a minute are')} allowed; wait {counted(math.ceil(wait), 'second')}"
            )
        self._pace.count(self.id, now)

    def should_record_refusal(self, now: float) -> bool:
        """True when a refusal for too many calls is the first within a minute.

        A flood must not wash the records away.
        """
        if now < self._noted + MINUTE:
            return False
        self._noted = now
        return True

    async def names(self, policy: Policy) -> list[str]:
        """The names of the guests that the policy does not hide; ids where a name could mean several.

        Raises:
            CallFailed: see `client.errors`.
        """
        guests = await self._list(fresh=True)
        often = Counter(word for guest in guests for word in {guest.name, str(guest.vmid)})
        return [
            guest.name if often[guest.name] == 1 else str(guest.vmid)
            for guest in guests
            if rule_for(policy, self.host, guest).levels
        ]

    async def find(self, name: str, *, fresh: bool = False) -> Guest:
        """A guest by its VM's id, node and id, or name, in this order. It must be listed: rules go by names, too.

        Args:
            name: as the caller gave it.
            fresh: do not rely on a list of a few seconds ago.

        Raises:
            NoSuchGuest: it is not listed, or several have the name.
            CallFailed: see `client.errors`.
        """
        found = self._matching(name, await self._list(fresh=fresh))
        if len(found) != 1:
            found = self._matching(name, await self._list(fresh=True))
        if len(found) == 1:
            return self.host.guest_from(found[0])
        reason = (
            "several guests have this name; use the VMID"
            if found
            else "no such guest, or you may not see it (VM.Audit)"
        )
        raise NoSuchGuest(
            ErrorContext(self.host.name, sanitize(name[:100])), reason, hint="list_guests shows those that there are"
        )

    def _matching(self, name: str, guests: list[GuestInfo]) -> list[GuestInfo]:
        if self.host.has_one_guest:
            return guests
        by_id = [guest for guest in guests if name in (str(guest.vmid), f"{guest.node}/{guest.vmid}")]
        return by_id or [guest for guest in guests if guest.name == name]

    async def _list(self, *, fresh: bool) -> list[GuestInfo]:
        if fresh or time.monotonic() > self._listed + LISTED_FOR:
            self._guests = await self.host.guests()
            self._listed = time.monotonic()
        return self._guests
