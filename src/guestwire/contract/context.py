"""What an endpoint may use: the seam between the contract and whoever knows the VMs.

Above it: the functions in `endpoints/`. Below it: `inventory/`, or whatever else knows nodes, VMs and how to reach them.
"""

from typing import TYPE_CHECKING, Protocol

import msgspec

from guestwire.access import Subject
from guestwire.agent.guest import GuestAgent

if TYPE_CHECKING:
    # It needs a store; an agent's own socket has none.
    from guestwire.access.control import Access


class VmSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """One VM in a list; `status` is `running` or `stopped`."""

    vmid: int
    status: str
    name: str | None = None


class Context(Protocol):
    """Node, VMs, guests and access, for one call."""

    @property
    def access(self) -> "Access":
        """Users, and what they may do."""
        ...

    @property
    def subject(self) -> Subject:
        """Who calls; nobody (a user without name) where no login is needed."""
        ...

    @property
    def address(self) -> str:
        """The client's."""
        ...

    @property
    def node(self) -> str:
        """This node's name."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the server's certificate, `AA:BB:…`; None without TLS."""
        ...

    async def agent(self, vmid: int) -> GuestAgent:
        """The agent of a running VM.

        Raises:
            VmNotFound: there is no such VM.
            AgentNotConfigured: it has no agent.
            VmNotRunning: it is stopped.
        """
        ...

    async def vms(self) -> list[VmSummary]:
        """All VMs of the node, by id, whoever asks."""
        ...
