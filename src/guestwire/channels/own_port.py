"""A port of our own: a virtio-serial port that guestwire plugs into a running VM, uses, and takes out again.

The agent's channel takes one command after the other, and what is behind it belongs to all. A port of our own is a
stream of bytes between this side and a program of the guest's, as fast as the host's memory.

Above it: what starts that program (`agent/piece_relay.py`). Below it: one implementation for each way to plug a port
in (`libvirt_port.py`, `qmp_ports.py`).

QEMU keeps a port whose owner is killed. So a process beside the owner takes it out then (`port_keeper.py`), within
seconds. Where that is killed too, or the machine fails, the port's name says that it is ours, what for, and since when;
and the next one who wants a port clears what is left (`leftovers`). Owners may be on different machines, and each holds
its port's other side for as long as it uses it: a port whose other side is free, and which is not just being plugged in,
has no owner any more.
"""

import asyncio
import contextlib
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator
from typing import Final, Protocol

from guestwire.channels.port_keeper import PREFIX, Place
from guestwire.channels.port_keeping import forget, keep
from guestwire.errors import GuestError

CONNECTS_WITHIN: Final = 5.0
"""Seconds from plugging a port in to its owner's connection, at most; the clocks of two owners may differ, and then a
port that is just being made is lost to its owner, who goes on without one."""

UNPLUGGED_WITHIN: Final = 10.0

_name = re.compile(rf"{re.escape(PREFIX)}(?P<purpose>[a-z]+)\.(?P<since>[0-9a-f]{{8,12}})-[0-9a-f]{{6}}")


class OwnPorts(Protocol):
    """The ports of our own in one VM. Each method raises `GuestError` with the reason why it can't be done.

    Attributes:
        place: which VM it is, for another process.
        needs_acknowledgement: what a guest sends is taken from it also while nobody reads it here: who sends much must
            wait for a word from time to time.
        resets: how often the VM was reset, as far as that was seen.
    """

    place: Place
    needs_acknowledgement: bool

    @property
    def is_reached(self) -> bool:
        """False while nothing is there yet that would plug a port in: no guest need look for one."""
        ...

    @property
    def resets(self) -> int: ...  # noqa: D102  # above

    async def plug_in(self, name: str) -> None:
        """Gives the running VM a port, until it is stopped."""
        ...

    async def unplug(self, name: str) -> None:
        """Takes a port out of it; one that is not there is gone already."""
        ...

    async def names(self) -> list[str]:
        """The names of its ports; there may be others than those of our own."""
        ...

    async def is_free(self, name: str) -> bool:
        """True if nothing holds the other side of a port."""
        ...

    async def connect(self, name: str) -> socket.socket:
        """The other side of a port, for the one who has plugged it in, once; a connected socket that does not block."""
        ...


def new_name(purpose: str) -> str:
    """A name for a port that is plugged in now; `purpose` is a word in small letters."""
    return f"{PREFIX}{purpose}.{int(time.time()):08x}-{secrets.token_hex(3)}"


@contextlib.asynccontextmanager
async def plugged_in(ports: OwnPorts, name: str) -> AsyncIterator[None]:
    """A port that is there meanwhile.

    Raises:
        GuestError: it can't be had.
    """
    await keep(ports.place, name)
    plugging = asyncio.ensure_future(ports.plug_in(name))
    try:
        await asyncio.shield(plugging)
        yield
    finally:
        # To its end, however often its owner is cancelled meanwhile: nobody else takes this port out while this process lives.
        unplugging = asyncio.create_task(_unplug(ports, name, plugging), name=f"unplug {name}")
        try:
            await asyncio.shield(unplugging)
        except asyncio.CancelledError:
            while not unplugging.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([unplugging])
            raise


async def _unplug(ports: OwnPorts, name: str, plugging: "asyncio.Future[None]") -> None:
    # Who was cancelled while it was plugged in does not know whether it was: a call into libvirt can't be ended.
    with contextlib.suppress(GuestError, TimeoutError):
        async with asyncio.timeout(UNPLUGGED_WITHIN):
            await asyncio.wait([plugging])
            await ports.unplug(name)
            forget(ports.place, name)
    if plugging.done() and not plugging.cancelled():
        plugging.exception()  # its waiter may be gone


async def leftovers(ports: OwnPorts, purpose: str | None = None) -> list[str]:
    """The ports for a purpose, or for any, whose owner is gone.

    Raises:
        GuestError: they are not known.
    """
    left = []
    for name in await ports.names():
        found = _name.fullmatch(name)
        if (
            not found
            or purpose not in (None, found["purpose"])
            or time.time() - int(found["since"], 16) < CONNECTS_WITHIN
        ):
            continue
        if await ports.is_free(name):
            left.append(name)
    return left
