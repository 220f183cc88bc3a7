"""What guests and their parts know of the host that they are on."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class GuestInfo:
    """One VM; `status` is `running` or `stopped`, or `unknown` when it was named by its id, and nobody asked."""

    vmid: int
    name: str
    status: str
    node: str


class HostOfGuest(Protocol):
    """What a guest uses of its host."""

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
