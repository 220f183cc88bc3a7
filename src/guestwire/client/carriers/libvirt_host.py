"""The VMs of a libvirt, without a server: the endpoints of a node and its VMs, run here on the same inventory as a server's."""

import asyncio
import ipaddress
import os
import pwd
import re
import socket
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from guestwire.access import Subject
from guestwire.channels.agent_port import AGENT_PORT, LIBVIRT_CHANNEL
from guestwire.client.carriers.in_process import InProcessCarrier
from guestwire.client.errors import ErrorContext, Unreachable
from guestwire.contract import HostFigures, Registry
from guestwire.contract.endpoints import events, program_streams, tasks
from guestwire.contract.guest_registry import CLIENT_ENDPOINTS
from guestwire.dispatch import Pipeline, Router
from guestwire.inventory.lease import Lease
from guestwire.inventory.vms import Inventory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guestwire.access.control import Access

ENDPOINTS: Final = Registry(CLIENT_ENDPOINTS, events.endpoints, tasks.endpoints, program_streams.endpoints)

NO_ENDPOINT: Final = (
    "libvirt's VMs have what their agents and libvirt can do; users and roles need a server: guestwire serve"
)
NO_AGENT: Final = (
    "qemu-guest-agent must run in the guest, and the domain have its channel,"
    f" {LIBVIRT_CHANNEL.format(name=AGENT_PORT)}"
)
NO_LIBVIRT: Final = "check that libvirtd (or virtqemud) runs there, and that `virsh --connect URI list` works for you"


def own_subject() -> Subject:
    """The user of this process, as its tasks name it."""
    try:
        return Subject(f"{pwd.getpwuid(os.geteuid()).pw_name}@pam")
    except KeyError:  # it has no account
        return Subject(f"{os.geteuid()}@pam")


class OwnLease(Lease):
    """A lease for a caller who may use libvirt or the sockets, and so do everything that they allow."""

    __slots__ = ("is_here",)

    def __init__(self, inventory: Inventory, subject: Subject, *, is_here: bool) -> None:
        super().__init__(inventory, cast("Access", None), subject, "")  # nothing here asks for users
        self.is_here = is_here

    def may(self, path: str, any_of: "Iterable[str]") -> bool:  # noqa: ARG002  # anything
        """See `NodeContext.may`."""
        return True

    async def figures(self) -> HostFigures:
        """See `NodeContext.figures`."""
        return await super().figures() if self.is_here else HostFigures()


def _node_of(host: str) -> str:
    """A node's name for a host: the first part of its name, or its address with dashes, for a node's has no dots."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        host = host.partition(".")[0]
    return re.sub(r"[^0-9A-Za-z]+", "-", host).strip("-") or "localhost"


class LibvirtCarrier(InProcessCarrier):
    """Must be made where an event loop runs, and closed. Nothing is asked of libvirt before the first call.

    Args:
        uri: as virsh has it.
    """

    def __init__(self, uri: str) -> None:
        host = urlsplit(uri).hostname
        self._uri = uri
        self._inventory = Inventory(_node_of(host or socket.gethostname()))
        self._turn = asyncio.Lock()
        subject = own_subject()
        pipeline = Pipeline(Router(ENDPOINTS), lambda _: OwnLease(self._inventory, subject, is_here=not host))
        super().__init__(uri, pipeline, no_endpoint=NO_ENDPOINT, no_agent=NO_AGENT)

    async def close(self) -> None:
        """See `Carrier.close`."""
        await self._inventory.close()

    async def _prepare(self, context: ErrorContext) -> None:
        """Follows libvirt from the first call on.

        Raises:
            Unreachable: libvirt does not answer; its reason is in the text.
        """
        async with self._turn:
            if not self._inventory.sources:
                await self._inventory.apply([], [self._uri])
        (source,) = self._inventory.sources.values()
        if source.problem:
            raise Unreachable(context, f"libvirt: {source.problem}", hint=NO_LIBVIRT)
