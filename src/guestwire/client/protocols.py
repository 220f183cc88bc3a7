"""The host, as guests and their parts see it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class GuestInfo:
    """One VM; `status` is `running`, `stopped`, `template`, or `unknown` when it was named by its id and not looked up.

    `frozen_by` is the user or token that froze its file systems, at `frozen_since` in seconds since the epoch; None where
    they are not frozen, or the server does not say. `frozen_until` is when that ends by itself; None: it does not. `last_answer` is when an agent that does not answer last did; None
    where it answers, or the server does not say. `tags` are those of its host.
    """

    vmid: int
    name: str
    status: str
    node: str
    frozen_by: str | None = None
    frozen_since: float | None = None
    last_answer: float | None = None
    tags: tuple[str, ...] = ()
    frozen_until: float | None = None

    def has_tags(self, tags: Iterable[str]) -> bool:
        """True if it has all of these."""
        return set(tags) <= set(self.tags)


class HostOfGuest(Protocol):
    """The part of a host that its guests use."""

    @property
    def is_local(self) -> bool:
        """See `Host.is_local`."""
        ...

    async def raw(self, method: str, path: str, /, **parameters: Any) -> Any:
        """See `Host.raw`."""
        ...

    async def is_guestwire(self) -> bool:
        """See `Host.is_guestwire`."""
        ...

    async def may_have_ports(self) -> bool:
        """See `Host.may_have_ports`."""
        ...

    async def may_run(self, vmid: int) -> bool:
        """See `Host.may_run`."""
        ...
