"""This machine's own VMs, found where they run: the endpoints of a node and its guests, run here by the same pipeline as on a server."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from guestwire.access import Subject
from guestwire.access.control import Access
from guestwire.access.engine import SUPERUSER
from guestwire.client.carriers.base import plain
from guestwire.client.errors import NO_AGENT_SOCKET, AgentUnavailable, ErrorContext, failure
from guestwire.contract.guest_registry import CLIENT_ENDPOINTS
from guestwire.dispatch import Call, Pipeline, Router, parameters_given
from guestwire.errors import AgentNotRunning, GuestwireError, InvalidParameters
from guestwire.inventory import Inventory, Lease
from guestwire.inventory.discovery import Discovery
from guestwire.inventory.found import FoundVm, Source
from guestwire.inventory.vmids import Vmids
from guestwire.stores import MemoryStore

OWNER = Subject(SUPERUSER)
"""The caller: a process that may open the sockets may do everything in the guests."""


class LocalCarrier:
    """Must be made where an event loop runs, and closed.

    Args:
        name: how messages name it.
        sources: where VMs are looked for.
    """

    def __init__(self, name: str, sources: Sequence[Source]) -> None:
        self._name = name
        access = Access(MemoryStore())
        self._inventory = Inventory(socket.gethostname().partition(".")[0] or "localhost")
        self._discovery = Discovery(self._inventory, sources, Vmids(None))
        self._pipeline = Pipeline(Router(CLIENT_ENDPOINTS), lambda _: Lease(self._inventory, access, OWNER, "local"))
        self._following: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    @property
    def name(self) -> str:
        """See `Carrier.name`."""
        return self._name

    async def unusable(self) -> list[FoundVm]:
        """The VMs that were found and can't be used."""
        await self._look()
        return self._discovery.unusable

    async def _look(self) -> None:
        """Looks once, and follows from then on."""
        async with self._turn:
            if self._following is None:
                await self._discovery.look()
                self._following = asyncio.create_task(self._discovery.follow(), name="discovery")

    async def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        context: ErrorContext,
        *,
        repeatable: bool = False,  # noqa: ARG002  # the channel knows that of each command
        as_bytes: bool = False,
    ) -> Any:
        """See `Carrier.call`."""
        await self._look()
        try:
            result = await self._pipeline.call(Call(plain(method), plain(path), parameters_given(plain(parameters))))
        except InvalidParameters as error:
            raise failure(context, error.status, str(error), error.errors) from error
        except AgentNotRunning as error:
            raise AgentUnavailable(context, f"{error} ({error.why})", error.status, hint=NO_AGENT_SOCKET) from error
        except GuestwireError as error:
            raise failure(context, error.status, str(error)) from error
        return msgspec.to_builtins(
            result, enc_hook=bytes if as_bytes else str, builtin_types=(bytes,) if as_bytes else None
        )

    async def close(self) -> None:
        """See `Carrier.close`."""
        if self._following:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await self._inventory.close()
