"""What an endpoint may use: the seam between the contract and the parts that know VMs and users.

Above it: the functions in `endpoints/`, each of which names the least of these that it needs. Below it: `inventory/` on
a server, one agent's socket in the client's engine, the store alone in offline administration.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from guestwire.access import Subject

if TYPE_CHECKING:
    from guestwire.access.control import Access
    from guestwire.agent.guest import GuestAgent


class FreezeNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who froze a guest: a user or token; `since` in seconds since the epoch; `count` of file systems, left out: not known."""

    by: str
    since: float
    count: int | None = None


class VmSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """One VM in a list; `status` is `running` or `stopped`; `frozen` is there while its file systems are.

    `last_answer` is there while its agent does not answer: when it last did, in seconds since the epoch.
    """

    vmid: int
    status: str
    name: str | None = None
    frozen: FreezeNote | None = None
    last_answer: float | None = None


class HostFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """The load of a node: bytes, seconds, and `cpu` as a share of all processors from 0 to 1."""

    cpu: float | None = None
    maxcpu: int | None = None
    mem: int | None = None
    maxmem: int | None = None
    disk: int | None = None
    maxdisk: int | None = None
    uptime: int | None = None


class GuestContext(Protocol):
    """The guests of a node, for one call."""

    async def agent(self, vmid: int) -> "GuestAgent":
        """The agent of a running VM.

        Raises:
            VmNotFound: there is no such VM.
            AgentNotConfigured: it has no agent.
            VmNotRunning: it is stopped.
        """
        ...

    async def note_sent(self, vmid: int, command: str) -> None:
        """A command about freezes is about to be sent."""
        ...

    async def note_answer(self, vmid: int, command: str, answer: Any) -> None:
        """What the agent answered to a command about freezes; an error of its own, too."""
        ...


class NodeContext(Protocol):
    """A node and its VMs, for one call."""

    @property
    def node(self) -> str:
        """This node's name."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the server's certificate, `AA:BB:…`; None without TLS."""
        ...

    async def vms(self) -> list[VmSummary]:
        """All VMs of the node, by id, for any caller."""
        ...

    async def figures(self) -> HostFigures:
        """The node's load, for any caller; empty where it is not known."""
        ...

    def may(self, path: str, any_of: Iterable[str]) -> bool:
        """True when the caller has one of these privileges on the access path."""
        ...


class AccessContext(Protocol):
    """Users and what they may do, for one call."""

    @property
    def access(self) -> "Access":
        """Users, and what they may do."""
        ...

    @property
    def subject(self) -> Subject:
        """The caller; a user without a name where no login is needed."""
        ...

    @property
    def address(self) -> str:
        """The client's."""
        ...


class PoolContext(NodeContext, AccessContext, Protocol):
    """Both: which VMs there are, and who may have them."""
