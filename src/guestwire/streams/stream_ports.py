"""Ports of our own for streams: what earlier owners left of them goes before the first one comes."""

import asyncio
import contextlib
import socket
import weakref
from collections.abc import AsyncIterator
from typing import Final

from guestwire.channels.own_port import OwnPorts, leftovers, new_name, plugged_in
from guestwire.streams.marks import MarkScanner, Piece
from guestwire.streams.remote_process import MOST_AT_ONCE

PURPOSE: Final = "stream"

RECEIVED_AT_ONCE: Final = 4 * MOST_AT_ONCE

_cleared: "weakref.WeakSet[OwnPorts]" = weakref.WeakSet()
"""The ports of VMs where nothing is left of streams whose owners are gone."""


def new_port_name() -> str:
    """The name of a port that is plugged in now."""
    return new_name(PURPOSE)


async def plug_in(ports: OwnPorts, name: str, plugged: contextlib.AsyncExitStack) -> socket.socket:
    """Our side of a new port of that name, which is there until `plugged` is closed.

    Raises:
        GuestError: it can't be had.
    """
    if ports not in _cleared:
        for left in await leftovers(ports, PURPOSE):
            await ports.unplug(left)
        _cleared.add(ports)
    sockets = plugged.enter_context(contextlib.ExitStack())  # which ends last: who reads from it sees an end before
    await plugged.enter_async_context(plugged_in(ports, name))
    return sockets.enter_context(await ports.connect(name))


async def pieces_of(port: socket.socket, scanner: MarkScanner) -> AsyncIterator[Piece]:
    """What comes from a port, until it is closed."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            if scanner.held_for is None:
                data = await loop.sock_recv(port, RECEIVED_AT_ONCE)
            else:
                receiving = asyncio.ensure_future(loop.sock_recv(port, RECEIVED_AT_ONCE))
                try:
                    if not (await asyncio.wait([receiving], timeout=scanner.held_for))[0]:
                        yield Piece(scanner.release())
                    data = await receiving  # the same one: bytes that have just come to one that is cancelled are lost
                finally:
                    receiving.cancel()
        except OSError:
            return
        if not data:
            return
        for piece in scanner.feed(data, may_go_on=True):
            yield piece
