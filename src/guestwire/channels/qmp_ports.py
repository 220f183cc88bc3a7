"""Ports of our own in a VM whose QMP socket is known.

A port's other side is one end of a pair of sockets, which goes to QEMU through the QMP socket itself (SCM_RIGHTS): no
path in any file system, nothing to remove, and no one else can connect. When its owner dies, QEMU sees its end close.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Iterable
from typing import Any, Final

from guestwire.channels.own_port import CONNECTS_WITHIN, leftovers
from guestwire.channels.port_keeper import (
    CONTROLLER,
    PERIPHERAL,
    PREFIX,
    QMP,
    Ask,
    Pause,
    Place,
    Refused,
    Steps,
    bus_of,
    has_ports,
    take_out,
    take_out_idle_controllers,
)
from guestwire.channels.qmp import Monitor
from guestwire.errors import GuestError, MonitorError

PORTS_EACH: Final = 256
"""Ports on a controller of our own: a hundred streams of two. QEMU's own controllers have 31."""

GOES_WITHIN: Final = 5.0

APART: Final = 0.04
"""Seconds between two ports: QEMU drops what it has to tell of a port while the guest still has 32 such messages to read."""

_NO_ROOM: Final = ("Maximum port limit", "Out-of-range port id", "No 'virtio-serial-bus' bus")
"""In QEMU's words: the ports are all in use, before and since 3.0, or there is no controller."""
_NO_HOTPLUG: Final = "does not support hotplugging"


class QmpPorts:
    """See `OwnPorts`.

    Args:
        monitor: the VM's. Belongs to its maker.
        guest: how messages name the guest, for example `VM 100`.
    """

    needs_acknowledgement = False

    def __init__(self, monitor: Monitor, guest: str) -> None:
        self.place = Place(QMP, str(monitor.path.absolute()))
        self._monitor = monitor
        self._guest = guest
        self._sockets: dict[str, socket.socket] = {}
        """Our ends that nothing has taken yet."""
        self._turn = asyncio.Lock()
        """Held while it is seen where there is room: two at once would make a controller each."""
        self._next_at = 0.0
        monitor.beside = self._clear_leftovers

    @property
    def is_reached(self) -> bool:
        """See `OwnPorts`."""
        return self._monitor.is_connected

    @property
    def resets(self) -> int:
        """See `OwnPorts`."""
        return self._monitor.resets

    async def plug_in(self, name: str) -> None:
        """See `OwnPorts.plug_in`."""
        await self._connected()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003
        self._sockets[name] = ours
        try:
            with theirs:
                await self._monitor.give_descriptor(name, theirs.fileno())
            address = {"type": "fd", "data": {"str": name}}
            backend = {"type": "socket", "data": {"addr": address, "server": False}}
            await self._monitor.execute("chardev-add", {"id": name, "backend": backend})
            at = max(self._next_at, time.monotonic())
            self._next_at = at + APART
            await asyncio.sleep(at - time.monotonic())
            async with self._turn:
                await self._add_port(name)
        except BaseException:
            with contextlib.suppress(GuestError):
                await self.unplug(name)
                await self._monitor.execute("closefd", {"fdname": name})  # a chardev that was not made has not taken it
            raise

    async def unplug(self, name: str) -> None:
        """See `OwnPorts.unplug`."""
        if unused := self._sockets.pop(name, None):
            unused.close()
        try:
            async with asyncio.timeout(GOES_WITHIN):
                await self._do(take_out(name))
                async with self._turn:
                    await self._do(take_out_idle_controllers())
        except TimeoutError:
            raise GuestError(f"{self._guest}: QEMU keeps the port {name}") from None
        except MonitorError:
            if await self._monitor.is_running():
                raise
            # QEMU has ended, and the port with it.

    async def names(self) -> list[str]:
        """See `OwnPorts.names`."""
        return [str(device["label"]) for device in await self._chardevs()]

    async def is_free(self, name: str) -> bool:
        """See `OwnPorts.is_free`."""
        states = {device["label"]: str(device["filename"]) for device in await self._chardevs()}
        return states.get(name, "").startswith("disconnected:")

    async def connect(self, name: str) -> socket.socket:
        """See `OwnPorts.connect`."""
        if found := self._sockets.pop(name, None):
            return found
        raise GuestError(f"{self._guest}: the port {name} is in use, or another program's")

    async def _clear_leftovers(self) -> None:
        """What killed owners have left goes, too, where nobody wants a port: their keepers get no word while QEMU has this client."""
        left = 2
        while left:
            with contextlib.suppress(GuestError):  # a busy QEMU answers next time
                for name in await leftovers(self):
                    await self.unplug(name)
                left -= 1
            await asyncio.sleep(CONNECTS_WITHIN + 1.0)  # one that was just being made may have been left, too

    async def _connected(self) -> None:
        """Waits a moment for QEMU where nothing was asked of it yet; what is wrong is said by the next command."""
        await self._monitor.until_connected()

    async def _chardevs(self) -> Iterable[dict[str, Any]]:
        await self._connected()
        devices: list[dict[str, Any]] = await self._monitor.execute("query-chardev")
        return [device for device in devices if str(device["label"]).startswith(PREFIX)]

    async def _add_port(self, name: str) -> None:
        """Puts the port where there is room: beside the agent's, on a controller of ours, or on a new one."""
        if await self._fits(name) or await self._fits_on_ours(name):
            return
        bus = f"{await self._add_controller()}.0"
        if not await self._fits(name, bus=bus):
            raise GuestError(f"{self._guest}: there is no room for another port")

    async def _fits(self, name: str, **where: str) -> bool:
        try:
            await self._monitor.execute(
                "device_add", {"driver": "virtserialport", "id": name, "name": name, "chardev": name, **where}
            )
        except MonitorError as error:
            if any(words in error.why for words in _NO_ROOM):
                return False
            raise
        return True

    async def _fits_on_ours(self, name: str) -> bool:
        """Only one that has a port now: an idle one is about to go."""
        for device in await self._monitor.execute("qom-list", {"path": PERIPHERAL}):
            if str(device["name"]).startswith(CONTROLLER):
                with contextlib.suppress(MonitorError):  # it has gone meanwhile
                    children = await self._monitor.execute("qom-list", {"path": bus_of(device["name"])})
                    if has_ports(children) and await self._fits(name, bus=f"{device['name']}.0"):
                        return True
        return False

    async def _add_controller(self) -> str:
        """Plugs a controller of ours in, where the machine has a place for one; its id."""
        controller = f"{CONTROLLER}{secrets.token_hex(3)}"
        device = {"driver": "virtio-serial-pci", "id": controller, "max_ports": PORTS_EACH}
        try:
            await self._monitor.execute("device_add", device)
        except MonitorError as error:
            why = error.why
        else:
            return controller
        # A q35 takes new devices behind its root ports alone, one each.
        buses: list[dict[str, Any]] = await self._monitor.execute("query-pci") if _NO_HOTPLUG in why else []
        for port in (one for bus in buses for one in bus["devices"]):
            if port.get("qdev_id") and "pci_bridge" in port and not port["pci_bridge"].get("devices"):
                with contextlib.suppress(MonitorError):
                    await self._monitor.execute("device_add", {**device, "bus": port["qdev_id"]})
                    return controller
        raise GuestError(f"{self._guest}: its ports are all in use, and no place is free for more of them: {why}")

    async def _do(self, steps: Steps) -> None:
        with contextlib.suppress(StopIteration):
            step = next(steps)
            while True:
                answer = None
                try:
                    match step:
                        case Pause(seconds):
                            await asyncio.sleep(seconds)
                        case Ask(command, arguments):
                            answer = await self._monitor.execute(command, arguments)
                except MonitorError as error:
                    if not error.is_refusal:
                        raise
                    step = steps.throw(Refused(error.why))
                else:
                    step = steps.send(answer)
