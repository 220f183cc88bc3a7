"""What an endpoint may use: the seam between the contract and the parts that know VMs and users.

Above it: the functions in `endpoints/`, each of which names the least of these that it needs. Below it: `inventory/` on
a server, one agent's socket in the client's engine, the store alone in offline administration.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from msgspec import field

from guestwire.access import Subject

if TYPE_CHECKING:
    from guestwire.access.control import Access
    from guestwire.agent.guest import GuestAgent
    from guestwire.contract.guest_events import Event
    from guestwire.stores import StoredTask


class FreezeNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who froze a guest: a user or token; `since` in seconds since the epoch; `count` of file systems, left out: not known.

    `until` is when it ends by itself; `connected`: with its caller's connection; `watchdog`: the guest sees to it, too.
    """

    by: str
    since: float
    count: int | None = None
    until: float | None = None
    connected: bool = False
    watchdog: bool = False


class FreezeTerms(msgspec.Struct, frozen=True):
    """How a freeze ends by itself: after `lease` seconds, with its caller's connection; None and False: not at all.

    `watchdog` is the process in the guest that sees to it when nothing else does, as `agent.watchdog` has it.
    """

    lease: float | None = None
    connected: bool = False
    watchdog: str = ""


NO_TERMS: Final = FreezeTerms()

WHILE_CONNECTED: Final = "while-connected"
NO_CONNECTION: Final = "there is no connection here that could end"


_zero: Callable[[], int] = int
"""The default of figures that are always written, also when they are 0."""


class VmState(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True,
    rename={"running_machine": "running-machine", "running_qemu": "running-qemu"},
):  # fmt: skip
    """One VM, with the fields of Proxmox VE.

    Sizes are in bytes, `uptime` in seconds, `cpu` is a share of `cpus`, pressures are in percent. `status` is `running`
    or `stopped`. Figures that can't be known are 0, for clients calculate with them; other fields are left out.
    `frozen` is there while the guest's file systems are. What follows is what QEMU says of itself, where that was asked
    for: `qmpstatus` is its run state, `blockstat` are its counters by device.
    `last_answer` is there while its agent does not answer: when it last did, in seconds since the epoch.
    """

    vmid: int
    name: str
    status: str
    uptime: int = field(default_factory=_zero)
    cpu: float = field(default_factory=_zero)
    cpus: int = field(default_factory=_zero)
    mem: int = field(default_factory=_zero)
    memhost: int = field(default_factory=_zero)
    maxmem: int = field(default_factory=_zero)
    disk: int = field(default_factory=_zero)
    maxdisk: int = field(default_factory=_zero)
    netin: int = field(default_factory=_zero)
    netout: int = field(default_factory=_zero)
    tags: str | None = None
    pid: int | None = None
    pressurecpusome: float | None = None
    pressurecpufull: float | None = None
    pressureiosome: float | None = None
    pressureiofull: float | None = None
    pressurememorysome: float | None = None
    pressurememoryfull: float | None = None
    frozen: FreezeNote | None = None
    last_answer: float | None = None
    qmpstatus: str | None = None
    diskread: int | None = None
    diskwrite: int | None = None
    blockstat: dict[str, dict[str, Any]] | None = None
    running_machine: str | None = None
    running_qemu: str | None = None


class VmDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What a VM is, as far as the configuration says it and QEMU did while it ran; `memory` in bytes, 0: not known."""

    vmid: int
    name: str | None
    has_agent: bool
    description: str | None = None
    tags: tuple[str, ...] = ()
    cpus: int = 0
    memory: int = 0
    machine: str | None = None
    uuid: str | None = None
    mac_addresses: tuple[str, ...] = ()


class HostFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """The load of a node: bytes, seconds, and `cpu` as a share of all processors from 0 to 1."""

    cpu: float | None = None
    maxcpu: int | None = None
    mem: int | None = None
    maxmem: int | None = None
    disk: int | None = None
    maxdisk: int | None = None
    uptime: int | None = None


class Processors(msgspec.Struct, frozen=True):
    """The processors of a node: `cpus` threads in `cores` in `sockets`; `mhz` and `user_hz` as Proxmox VE has them."""

    cpus: int
    cores: int
    sockets: int
    model: str
    mhz: str
    vendor: str
    family: str
    flags: str
    hvm: str
    user_hz: int


class Memory(msgspec.Struct, frozen=True):
    """Bytes."""

    total: int
    used: int
    free: int
    available: int


class Space(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes of a file system, or of swap; `avail` is what a plain user may take."""

    total: int
    used: int
    free: int
    avail: int | None = None


class Kernel(msgspec.Struct, frozen=True):
    """As `uname` says it."""

    sysname: str
    release: str
    version: str
    machine: str


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True, rename={"kernel": "current-kernel", "boot": "boot-info"}):
    """The state of a node: `cpu` and `wait` are shares of all processors, `uptime` seconds, `loadavg` texts."""

    uptime: int
    cpu: float
    wait: float
    loadavg: tuple[str, ...]
    cpuinfo: Processors
    memory: Memory
    swap: Space
    rootfs: Space
    kernel: Kernel
    kversion: str
    boot: dict[str, str]
    idle: int = 0
    ksm: dict[str, int] = msgspec.field(default_factory=lambda: {"shared": 0})
    pveversion: str = ""


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

    @property
    def freeze_lease(self) -> float | None:
        """Seconds after which a freeze ends by itself that names no lease of its own; None: never."""
        ...

    async def note_sent(self, vmid: int, command: str, terms: FreezeTerms = NO_TERMS) -> None:
        """A command about freezes is about to be sent.

        Raises:
            InvalidParameters: the caller has no connection that could end.
        """
        ...

    async def note_answer(self, vmid: int, command: str, answer: Any, terms: FreezeTerms = NO_TERMS) -> str:
        """What the agent answered to a command about freezes; an error of its own, too.

        Returns:
            The watchdog of a freeze that has ended; "" where there is none.
        """
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

    async def vms(self) -> list[VmState]:
        """All VMs of the node, by id, for any caller."""
        ...

    async def details(self, vmids: Sequence[int]) -> list[VmState]:
        """These VMs of the node, in the same order, with what QEMU says of itself; without those that have gone meanwhile."""
        ...

    async def figures(self) -> HostFigures:
        """The node's load, for any caller; empty where it is not known."""
        ...

    def may(self, path: str, any_of: Iterable[str]) -> bool:
        """True when the caller has one of these privileges on the access path."""
        ...


class MachineContext(NodeContext, Protocol):
    """A node and its VMs as machines, beside the agents in them, for one call."""

    async def definition(self, vmid: int) -> VmDefinition:
        """The definition of a VM.

        Raises:
            VmNotFound: there is no such VM.
        """
        ...

    async def node_status(self) -> NodeStatus:
        """The node's state, for any caller."""
        ...

    async def node_address(self) -> str:
        """The node's IP address, as others reach it; 127.0.0.1 where it has none."""
        ...


class EventContext(NodeContext, Protocol):
    """A node whose VMs are watched, for one call."""

    def events(self) -> AsyncGenerator[list["Event"], None]:
        """The events of each second from now on, of all VMs and for any caller; an empty list comes first, when it is known how things are."""
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


class ClusterContext(MachineContext, AccessContext, Protocol):
    """The same, with the VMs as machines."""


class TaskList(Protocol):
    """The tasks of a node."""

    @property
    def known(self) -> "Mapping[str, StoredTask]":
        """All by upid, the oldest first."""
        ...

    async def cancel(self, upid: str) -> None:
        """Ends a task that still runs, and waits for its end."""
        ...


class AgentChannel(msgspec.Struct, frozen=True):
    """A channel that a VM has got.

    Attributes:
        agent: its address, for the VM's configuration; or the libvirt that has it.
        now: the VM has it already; False: from its next start on.
        permanent: the VM has it at its next starts.
    """

    agent: str
    now: bool
    permanent: bool


class TaskContext(MachineContext, AccessContext, Protocol):
    """What changes a VM itself; and work that goes on after its call."""

    async def add_channel(self, vmid: int) -> AgentChannel:
        """Gives a running VM a channel for its agent; one of libvirt's need not run.

        Raises:
            VmNotFound, GuestError: there is no such VM, or it can't be done.
        """
        ...

    @property
    def tasks(self) -> TaskList:
        """The node's tasks."""
        ...

    async def power(self, vmid: int, action: str, **options: Any) -> str:
        """Begins to start, stop, … a VM; returns the task's upid at once.

        Raises:
            VmNotFound, GuestError: there is no such VM, or it does not run, where the action is about one that does.
        """
        ...
