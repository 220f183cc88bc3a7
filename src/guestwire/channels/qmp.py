"""What QMP says of a VM: whether it runs, and what happens beside the guest agent's channel.

QMP takes one client a socket: give guestwire a socket of its own. When another client holds it, QEMU is at least known
to run.
"""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any, Final

from qemu.qmp import ConnectError, EventListener, QMPClient, QMPError

from guestwire.channels.budget import shared_budget
from guestwire.channels.channel import Channel, GuestEvent
from guestwire.pacing import Backoff

CONNECT_TIMEOUT: Final = 3.0
RETRY: Final = 0.5
RETRY_AT_MOST: Final = 4.0

EVENTS: Final = {
    "SUSPEND": GuestEvent.SUSPENDED,
    "SUSPEND_DISK": GuestEvent.SUSPENDED,
    "WAKEUP": GuestEvent.WOKEN,
    "RESET": GuestEvent.RESET,
    "SHUTDOWN": GuestEvent.STOPPED,
}
PORT_CHANGE: Final = "VSERPORT_CHANGE"

_library_log = logging.getLogger("qemu.qmp")
_library_log.setLevel(logging.CRITICAL)  # it logs what it also raises


class Monitor:
    """Watches one VM's QMP socket until it is closed. Must be made where an event loop runs.

    Args:
        path: the QMP socket.
        guest: how messages name the guest.
        agent: the guest agent's socket; tells its port from the VM's others.
        channel: told what happens.
    """

    def __init__(self, path: Path, guest: str, agent: Path | None, channel: Channel | None) -> None:
        self._path = path
        self._guest = guest
        self._agent = agent
        self._channel = channel
        self._connections = shared_budget().connections
        self._running = asyncio.Event()
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._watch(), name=f"monitor {guest}")

    @property
    def known_state(self) -> bool | None:
        """True if the VM's QEMU runs, False if it has no socket; None: `is_running` would wait to find out."""
        if self._running.is_set():
            return True
        return None if self._path_exists() else False

    async def is_running(self) -> bool:
        """True if the VM's QEMU runs; a socket that has just appeared is waited for, one second at most."""
        if self.known_state is None:
            self._wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._running.wait()
        return self._running.is_set()

    async def close(self) -> None:
        """Ends the watch."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _path_exists(self) -> bool:
        return self._path.is_socket()

    async def _watch(self) -> None:
        backoff = Backoff(RETRY, RETRY_AT_MOST)
        while True:
            if await self._attend():
                backoff.reset()
            self._running.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._wake.wait()
            self._wake.clear()

    async def _attend(self) -> bool:
        """One connection from beginning to end; False when there was none."""
        try:
            self._connections.take()
        except OSError:
            return False
        try:
            return await self._attend_to(QMPClient(self._guest))
        finally:
            self._connections.give_back()

    async def _attend_to(self, client: QMPClient) -> bool:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await client.connect(str(self._path))
        except TimeoutError:
            self._running.set()
            return True
        except (ConnectError, OSError):
            return False
        self._running.set()
        try:
            await self._listen(client)
        finally:
            with contextlib.suppress(QMPError, EOFError, OSError):
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await client.disconnect()
        return True

    async def _listen(self, client: QMPClient) -> None:
        with client.listener((*EVENTS, PORT_CHANGE)) as events:
            hearing = asyncio.create_task(self._hear(client, events))
            try:
                await client.runstate_changed()
            finally:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)

    async def _hear(self, client: QMPClient, events: EventListener) -> None:
        async for event in events:
            name = str(event["event"])
            happened = await self._port(client) if name == PORT_CHANGE else EVENTS[name]
            if happened and self._channel:
                self._channel.notify(happened)

    async def _port(self, client: QMPClient) -> GuestEvent | None:
        """Which way our port went; the event names a device and not a socket, so QEMU is asked."""
        try:
            devices: Any = await client.execute("query-chardev")
        except QMPError:
            return None
        for device in devices:
            if self._agent and str(self._agent) in str(device.get("filename")):
                return GuestEvent.PORT_OPENED if device.get("frontend-open") else GuestEvent.PORT_CLOSED
        return None
