"""What happens to guests, as a stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from guestwire.contract.context import NodeContext
from guestwire.contract.endpoint import OWN, Kind, Registry
from guestwire.contract.guest_events import Event, Seen, compare
from guestwire.contract.parameters import NodeParameters

endpoints = Registry()

EVERY: Final = 1.0
"""Seconds from one look to the next."""


@endpoints.endpoint("GET", f"/nodes/{{node}}/{OWN}/events", NodeParameters, kind=Kind.STREAM)
async def events(context: NodeContext, _parameters: NodeParameters) -> AsyncIterator[Event | None]:
    """Tells what happens to the VMs that the caller may see (`VM.Audit`), as server-sent events, until the connection ends.

    VMs come, go, start and stop; agents fall silent and answer again; file systems are frozen and thawed.
    """
    return _follow(context)


async def _follow(context: NodeContext) -> AsyncIterator[Event | None]:
    """None stands for a moment in which nothing happened."""
    before = await _look(context)
    yield None
    while True:
        await asyncio.sleep(EVERY)
        after = await _look(context)
        for event in compare(before, after):
            yield event
        yield None
        before = after


async def _look(context: NodeContext) -> dict[int, Seen]:
    return {
        vm.vmid: Seen(
            vm.name, context.node, vm.status, vm.frozen.by if vm.frozen else None, vm.last_answer, vm.tags or ""
        )
        for vm in await context.vms()
        if context.may(f"/vms/{vm.vmid}", ("VM.Audit",))
    }
