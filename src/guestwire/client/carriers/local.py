"""This machine's own VMs, found where they run: the endpoints of a node and its VMs, run here on the same inventory as a server's."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence

from guestwire.client.carriers.in_process import InProcessCarrier
from guestwire.client.carriers.libvirt_host import ENDPOINTS, OwnLease, own_subject
from guestwire.client.errors import NO_AGENT_SOCKET, ErrorContext
from guestwire.dispatch import Pipeline, Router
from guestwire.inventory import Inventory
from guestwire.inventory.discovery import Discovery
from guestwire.inventory.found import FoundVm, Source
from guestwire.inventory.sources import Libvirts

NO_ENDPOINT = (
    "the VMs of this machine have what their agents and QEMU can do; users and roles need a server: guestwire serve"
)


class LocalCarrier(InProcessCarrier):
    """Must be made where an event loop runs, and closed. Nothing is looked for before the first call.

    Args:
        name: how messages name it.
        sources: where VMs are looked for.
        libvirts: those whose VMs are listed, too.
    """

    def __init__(self, name: str, sources: Sequence[Source], libvirts: Libvirts | None = None) -> None:
        self._inventory = Inventory(socket.gethostname().partition(".")[0] or "localhost")
        self._discovery = Discovery(self._inventory, sources, libvirts=libvirts)
        self._following: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        subject = own_subject()
        pipeline = Pipeline(Router(ENDPOINTS), lambda _: OwnLease(self._inventory, subject, is_here=True))
        super().__init__(name, pipeline, no_endpoint=NO_ENDPOINT, no_agent=NO_AGENT_SOCKET)

    async def unusable(self) -> list[FoundVm]:
        """The VMs that were found and can't be used, and libvirts that do not answer."""
        await self._look()
        silent = [
            FoundVm(
                key=uri, name=uri, source="libvirt", problem=source.problem, hint="see that it runs, and who may use it"
            )
            for uri, source in self._inventory.sources.items()
            if source.problem
        ]
        return self._discovery.unusable + silent

    async def _look(self) -> None:
        """Looks once, and follows from then on."""
        async with self._turn:
            if self._following is None:
                await self._discovery.look()
                self._following = asyncio.create_task(self._discovery.follow(), name="discovery")

    async def _prepare(self, context: ErrorContext) -> None:  # noqa: ARG002  # looking never fails
        await self._look()

    async def close(self) -> None:
        """See `Carrier.close`."""
        if self._following:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await self._inventory.close()
