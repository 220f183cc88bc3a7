"""A guest agent's own socket: the endpoints of the contract, executed here instead of on a server."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec

from guestwire.access.subject import Subject
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import UnixChannel
from guestwire.client.errors import NO_AGENT_SOCKET, AgentNotThere, NoSuchEndpoint, Place, failure
from guestwire.client.finding import find
from guestwire.client.parts import GuestInfo
from guestwire.client.targets import Unix
from guestwire.contract import ByteText, VmSummary, validate
from guestwire.errors import AgentNotRunning, GuestwireError, InvalidParameters

if TYPE_CHECKING:
    from guestwire.access.control import Access

NODE: Final = "localhost"
VMID: Final = 100
"""Of the one guest behind the socket; it has no other."""


class _OneGuest:
    """A `contract.Context` of one guest, whose caller may do everything: whoever can open the socket can."""

    node = NODE
    fingerprint = None
    address = ""
    subject = Subject("root@pam")

    def __init__(self, agent: GuestAgent, name: str) -> None:
        self._agent = agent
        self.vm = VmSummary(vmid=VMID, status="running", name=name)

    @cached_property
    def access(self) -> "Access":
        # Hardly anybody asks an agent's socket for users.
        from guestwire.access.control import Access  # noqa: PLC0415
        from guestwire.stores import MemoryStore  # noqa: PLC0415

        return Access(MemoryStore())

    async def agent(self, vmid: int) -> GuestAgent:  # noqa: ARG002  # there is only one
        return self._agent

    async def vms(self) -> list[VmSummary]:
        return [self.vm]


class DirectCarrier:
    """Must be made where an event loop runs, and closed."""

    def __init__(self, target: Unix) -> None:
        self._name = str(target)
        self._channel = UnixChannel(target.path, "VM 100")
        self._agent = GuestAgent(self._channel, "VM 100", ExitStatusCache())
        self._context = _OneGuest(self._agent, target.path.stem)

    @property
    def guest(self) -> GuestInfo:
        """The one that is behind the socket."""
        return GuestInfo(VMID, self._context.vm.name or "", self._context.vm.status, NODE)

    @property
    def name(self) -> str:
        """See `Carrier.name`."""
        return self._name

    async def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        place: Place,
        *,
        repeatable: bool = False,  # noqa: ARG002  # the channel knows that of each command
    ) -> Any:
        """See `Carrier.call`."""
        found = find(method, path)
        if found is None:
            raise NoSuchEndpoint(place, f"Method '{method} {path}' not implemented")
        endpoint, in_path = found
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            result = await endpoint.function(self._context, validate(endpoint.parameters, {**given, **in_path}))
        except InvalidParameters as error:
            raise failure(place, error.status, str(error), error.errors) from error
        except AgentNotRunning as error:
            raise AgentNotThere(place, f"{error} ({error.why})", error.status, advice=NO_AGENT_SOCKET) from error
        except GuestwireError as error:
            raise failure(place, error.status, str(error)) from error
        return msgspec.to_builtins(result, enc_hook=_text)

    async def close(self) -> None:
        """See `Carrier.close`."""
        await self._agent.close()
        await self._channel.close()


def _text(value: object) -> str:
    assert isinstance(value, ByteText)  # noqa: S101  # nothing else needs help
    return str(value)
