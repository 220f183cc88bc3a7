"""What happens to guests, as a stream."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from guestwire.contract.context import EventContext
from guestwire.contract.endpoint import OWN, Kind, Registry
from guestwire.contract.guest_events import FROM_INSIDE, Event
from guestwire.contract.parameters import NodeParameters

endpoints = Registry()

SEES_VM: Final = ("VM.Audit",)
SEES_INSIDE: Final = ("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted")


@endpoints.endpoint("GET", f"/nodes/{{node}}/{OWN}/events", NodeParameters, kind=Kind.STREAM)
async def events(context: EventContext, _parameters: NodeParameters) -> AsyncGenerator[Event | None, None]:
    """Tells what happens to the VMs that the caller may see (`VM.Audit`), as server-sent events, until the connection ends.

    VMs come, go, start, stop, are reset, paused and suspended; agents fall silent and answer again; file systems are
    frozen and thawed. To those who may ask its agent (`VM.GuestAgent.Audit`), also what changes inside a guest: its host
    name, system, addresses and users, file systems that are nearly full, a clock that is off.
    """
    return _follow(context)


async def _follow(context: EventContext) -> AsyncGenerator[Event | None, None]:
    """None stands for a moment in which nothing happened."""
    async with aclosing(context.events()) as seconds:
        async for events_of_second in seconds:
            for event in events_of_second:
                if context.may(f"/vms/{event.vmid}", SEES_INSIDE if event.kind in FROM_INSIDE else SEES_VM):
                    yield event
            yield None
