"""The host, as guests and their parts see it."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class GuestInfo:
    """One VM; `status` is `running`, `stopped`, `template`, or `unknown` when it was named by its id and not looked up."""

    vmid: int
    name: str
    status: str
    node: str


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

    async def may_run(self, vmid: int) -> bool:
        """See `Host.may_run`."""
        ...
