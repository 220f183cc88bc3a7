"""A host: a server, or one guest agent's socket; and the guests on it."""

from typing import Any, Self

import msgspec

from guestwire.client.carriers.base import Carrier
from guestwire.client.errors import CallFailed, NoSuchGuest, Place
from guestwire.client.guests import Guest
from guestwire.client.parts import GuestInfo


class _Node(msgspec.Struct, frozen=True):
    node: str


class _Vm(msgspec.Struct, frozen=True):
    vmid: int
    status: str = "unknown"
    name: str = ""


class Host:
    """`async with` closes it.

    Args:
        carrier: belongs to the host from now on.
        only_guest: behind the carrier is this guest and no other; whatever name is given for it is taken.
    """

    def __init__(self, carrier: Carrier, *, only_guest: GuestInfo | None = None) -> None:
        self._carrier = carrier
        self._only_guest = only_guest
        self._version: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def name(self) -> str:
        """How messages name it."""
        return self._carrier.name

    async def close(self) -> None:
        """Ends connections."""
        await self._carrier.close()

    async def raw(self, method: str, path: str, /, **parameters: Any) -> Any:
        """Any endpoint of the API: what it has under `data`. `path` stands below `/api2/json`; `-` in a parameter's name is written `_`.

        Raises:
            CallFailed: see `client.errors`.
        """
        given = {name.replace("_", "-"): value for name, value in parameters.items()}
        return await self._carrier.call(method, path, given, Place(self.name), repeatable=method == "GET")

    async def version(self) -> dict[str, Any]:
        """What the host says of itself; asked once."""
        if self._version is None:
            found = await self.raw("GET", "/version")
            self._version = found if isinstance(found, dict) else {}
        return self._version

    async def is_guestwire(self) -> bool:
        """Whether it is guestwire, which has none of the limits of Proxmox VE's own service."""
        return self._only_guest is not None or "guestwire" in await self.version()

    async def guests(self) -> list[GuestInfo]:
        """All VMs that the caller may see, on all nodes, by name and id."""
        nodes = await self._list("/nodes", list[_Node])
        found = []
        for node in nodes:
            vms = await self._list(f"/nodes/{node.node}/qemu", list[_Vm])
            found += [GuestInfo(vm.vmid, vm.name or str(vm.vmid), vm.status, node.node) for vm in vms]
        return sorted(found, key=lambda guest: (guest.name, guest.vmid))

    async def _list(self, path: str, shape: Any) -> Any:
        data = await self.raw("GET", path)
        try:
            return msgspec.convert(data, shape, strict=False)
        except msgspec.ValidationError as error:
            raise CallFailed(Place(self.name), f"{path}: unexpected answer: {error}") from error

    async def guest(self, name: str | int) -> Guest:
        """One guest, by its VM's name or id.

        Raises:
            NoSuchGuest: there is none, or the caller may not see it; or several have the name.
        """
        if self._only_guest:
            return self._made(self._only_guest, str(name))
        known = await self.guests()
        found = [guest for guest in known if str(name) in (guest.name, str(guest.vmid))]
        if len(found) == 1:
            return self._made(found[0], found[0].name)
        place = Place(self.name, str(name))
        if not found:
            raise NoSuchGuest(place, "no such VM, or none that you may see (VM.Audit)")
        names = ", ".join(f"{guest.vmid} on node {guest.node}" for guest in found)
        raise NoSuchGuest(place, f"several VMs have this name: {names}", advice="name one by its id")

    def _made(self, info: GuestInfo, name: str) -> Guest:
        shown = name if self._only_guest or name == str(info.vmid) else f"{name} ({info.vmid})"
        return Guest(self, self._carrier, info, Place(self.name, shown))
