"""A guest agent's own socket: the endpoints of a node and its guest, run here by the same pipeline as on a server."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guestwire.addresses import AgentAddress, UnixAddress, VsockAddress
from guestwire.agent.commands import FSFREEZE_FREEZE, FSFREEZE_THAW
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import StreamChannel, is_served, open_channel
from guestwire.client.carriers.in_process import InProcessCarrier
from guestwire.client.errors import NO_AGENT_SOCKET
from guestwire.client.protocols import GuestInfo
from guestwire.contract import Endpoint, GuestContext, HostFigures, NodeContext, Registry, VmState
from guestwire.contract.context import NO_CONNECTION, NO_TERMS, WHILE_CONNECTED, FreezeTerms
from guestwire.contract.endpoints import program_streams
from guestwire.contract.guest_registry import GUEST_ENDPOINTS
from guestwire.dispatch import Pipeline, Router
from guestwire.errors import ConfigurationError, InvalidParameters

ENDPOINTS: Final = Registry(GUEST_ENDPOINTS, program_streams.endpoints)

ONLY_AGENT: Final = (
    "an agent's own socket has what the agent can do; for the VM itself name a server: --host https://HOST:8006"
)

NODE: Final = "localhost"
VMID: Final = 100
"""Of the one guest behind the socket; it has no other."""
GUEST: Final = f"VM {VMID}"

QMP_MISSING: Final = (
    "?qmp= needs the Python package qemu-qmp: pip install 'guestwire[server]'; without ?qmp= it is not needed"
)


class _OneGuest:
    """The contexts of endpoints, with one guest; a caller who can open its socket may do everything."""

    node = NODE
    fingerprint = None

    def __init__(self, agent: GuestAgent, address: AgentAddress) -> None:
        self._agent = agent
        self._address = address
        self._watchdog = ""

    async def agent(self, vmid: int) -> GuestAgent:  # noqa: ARG002  # there is only one
        return self._agent

    freeze_lease = None

    async def note_sent(self, vmid: int, command: str, terms: FreezeTerms = NO_TERMS) -> None:  # noqa: ARG002
        """Nobody would read it: a server notes who froze what."""
        if terms.connected:
            raise InvalidParameters({WHILE_CONNECTED: NO_CONNECTION})

    async def note_answer(self, vmid: int, command: str, answer: Any, terms: FreezeTerms = NO_TERMS) -> str:  # noqa: ARG002
        """Remembers the watchdog alone, until the thaw."""
        if command == FSFREEZE_FREEZE.command.name:
            if not isinstance(answer, int):
                return terms.watchdog
            self._watchdog = terms.watchdog
        elif command == FSFREEZE_THAW.command.name and isinstance(answer, int):
            over, self._watchdog = self._watchdog, ""
            return over
        return ""

    async def vms(self) -> list[VmState]:
        """QEMU serves the socket as long as its VM runs; of vsock only the agent itself could tell."""
        served = None if isinstance(self._address, VsockAddress) else is_served(self._address.path)
        status = {True: "running", False: "stopped", None: "unknown"}[served]
        return [VmState(vmid=VMID, status=status, name=self._address.name)]

    async def details(self, vmids: Iterable[int]) -> list[VmState]:  # noqa: ARG002  # there is only one
        return await self.vms()

    def may(self, path: str, any_of: Iterable[str]) -> bool:  # noqa: ARG002  # anything
        return True

    async def figures(self) -> HostFigures:
        return HostFigures()  # nothing is asked of the host

    def release(self) -> None:
        """Nothing is held for one call."""


if TYPE_CHECKING:
    from guestwire.channels.qmp import Monitor
    from guestwire.channels.qmp_ports import QmpPorts

if TYPE_CHECKING:  # the type checker tells when a context wants more
    _CONTEXTS: tuple[type[NodeContext], type[GuestContext]] = (_OneGuest, _OneGuest)


class DirectCarrier(InProcessCarrier):
    """Must be made where an event loop runs, and closed.

    Raises:
        ConfigurationError: the target names a QMP socket, and a package is missing.
    """

    def __init__(self, target: AgentAddress, endpoints: Iterable[Endpoint] = ENDPOINTS) -> None:
        self._channel = open_channel(target, GUEST)
        self._monitor, ports = None, None
        if isinstance(target, UnixAddress) and target.qmp:
            self._monitor, ports = _open_monitor(target.qmp, target.path, self._channel)
        self._agent = GuestAgent(self._channel, GUEST, ExitStatusCache(), ports)
        context = _OneGuest(self._agent, target)
        pipeline = Pipeline(Router(endpoints), lambda _: context)
        super().__init__(str(target), pipeline, no_endpoint=ONLY_AGENT, no_agent=NO_AGENT_SOCKET)
        self.guest = GuestInfo(VMID, target.name, "unknown", NODE)
        """The one that is behind the socket."""

    @property
    def may_have_ports(self) -> bool:
        """See `Carrier.may_have_ports`."""
        return self._monitor is not None

    async def close(self) -> None:
        """See `Carrier.close`."""
        await self._agent.close()
        await self._channel.close()
        if self._monitor:
            await self._monitor.close()


def _open_monitor(qmp: Path, agent: Path, channel: StreamChannel) -> "tuple[Monitor, QmpPorts]":
    try:
        from guestwire.channels.qmp import Monitor  # noqa: PLC0415  # what it needs is in the extra for servers
        from guestwire.channels.qmp_ports import QmpPorts  # noqa: PLC0415  # as above
    except ModuleNotFoundError as error:
        raise ConfigurationError(QMP_MISSING) from error
    monitor = Monitor(qmp, GUEST, agent, channel)
    return monitor, QmpPorts(monitor, GUEST)
