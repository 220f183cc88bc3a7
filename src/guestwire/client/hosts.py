"""A host: a server, or one guest agent's socket; and the guests on it."""

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from guestwire.client.carriers.base import Carrier
from guestwire.client.errors import CallFailed, NoSuchGuest, Place
from guestwire.client.guests import Guest
from guestwire.client.parts import GuestInfo

log = logging.getLogger("guestwire.client")

_by_id = re.compile(r"(?:(?P<node>[0-9A-Za-z-]+)/)?(?P<vmid>[0-9]{1,9})")

OFFLINE: Final = "offline"


class _Node(msgspec.Struct, frozen=True):
    node: str
    status: str = "unknown"


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
        self._nodes: list[str] = []

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

    async def raw(self, method: str, path: str, exactly: Mapping[str, Any] | None = None, /, **parameters: Any) -> Any:
        """Any endpoint of the API: what it has under `data`.

        Args:
            method: GET, POST, PUT or DELETE.
            path: below `/api2/json`.
            exactly: parameters by their very names.
            parameters: more of them; `-` in a name is written `_`.

        Raises:
            CallFailed: see `client.errors`.
        """
        given = {**(exactly or {}), **{name.replace("_", "-"): value for name, value in parameters.items()}}
        return await self._carrier.call(method, path, given, Place(self.name), repeatable=method == "GET")

    async def version(self) -> dict[str, Any]:
        """What the host says of itself; asked once."""
        if self._version is None:
            found = await self.raw("GET", "/version")
            self._version = found if isinstance(found, dict) else {}
        return self._version

    @property
    def is_local(self) -> bool:
        """Whether calls are executed here, on an agent's own socket: nothing is made into JSON on its way then."""
        return self._only_guest is not None

    async def is_guestwire(self) -> bool:
        """Whether it is guestwire, which has none of the limits of Proxmox VE's own service."""
        return self.is_local or "guestwire" in await self.version()

    async def guests(self) -> list[GuestInfo]:
        """All VMs that the caller may see, by name and id, on all nodes that are up; one that does not answer hides no others."""
        nodes = [node.node for node in await self._list("/nodes", list[_Node]) if node.status != OFFLINE]
        answers = await asyncio.gather(*map(self._guests_on, nodes), return_exceptions=True)
        found = [guest for answer in answers if isinstance(answer, list) for guest in answer]
        self._told(nodes, answers)
        return sorted(found, key=lambda guest: (guest.name, guest.vmid))

    def _told(self, nodes: list[str], answers: list[list[GuestInfo] | BaseException]) -> None:
        """Raises what went wrong where no node answered; else says it in the log."""
        wrong = {node: answer for node, answer in zip(nodes, answers, strict=True) if isinstance(answer, BaseException)}
        for node, error in wrong.items():
            if len(wrong) == len(nodes) or not isinstance(error, CallFailed):
                raise error
            log.warning("%s: the guests of node %s are not known: %s", self.name, node, error.words)

    async def _guests_on(self, node: str) -> list[GuestInfo]:
        vms = await self._list(f"/nodes/{node}/qemu", list[_Vm])
        return [GuestInfo(vm.vmid, vm.name or str(vm.vmid), vm.status, node) for vm in vms]

    async def _list(self, path: str, shape: Any) -> Any:
        data = await self.raw("GET", path)
        try:
            return msgspec.convert(data, shape, strict=False)
        except msgspec.ValidationError as error:
            raise CallFailed(Place(self.name), f"{path}: unexpected answer: {error}") from error

    async def guest(self, name: str | int) -> Guest:
        """One guest, by its VM's name, its id (`100`), or its node and id (`pve1/100`).

        An id needs no privilege and no list of guests where there is one node: that there is no such VM, the first call says.

        Raises:
            NoSuchGuest: there is none, or the caller may not see it; or several have the name.
        """
        if self._only_guest:
            return self._made(self._only_guest, str(name))
        found = _by_id.fullmatch(str(name))
        return await (self._guest_by_id(int(found["vmid"]), found["node"]) if found else self._guest_by_name(str(name)))

    def listed(self, info: GuestInfo) -> Guest:
        """The guest of an entry of `guests()`; asks nobody."""
        return self._made(info, info.name)

    async def _guest_by_id(self, vmid: int, node: str | None) -> Guest:
        nodes = [node] if node else await self._known_nodes()
        if len(nodes) == 1:
            return self._made(GuestInfo(vmid, str(vmid), "unknown", nodes[0]), str(vmid))
        found = next((guest for guest in await self.guests() if guest.vmid == vmid), None)
        if not found:
            advice = f"name its node too, then no privilege to see it is needed: {nodes[0]}/{vmid}; the nodes are {', '.join(nodes)}"
            raise self._none(str(vmid), advice)
        return self._made(found, found.name)

    async def _known_nodes(self) -> list[str]:
        if not self._nodes:
            self._nodes = [node.node for node in await self._list("/nodes", list[_Node])]
        return self._nodes

    async def _guest_by_name(self, name: str) -> Guest:
        found = [guest for guest in await self.guests() if guest.name == name]
        if len(found) == 1:
            return self._made(found[0], found[0].name)
        if not found:
            raise self._none(
                name, "`guestwire ls` lists those that you may see; an id instead of a name works without VM.Audit"
            )
        names = ", ".join(f"{guest.vmid} on node {guest.node}" for guest in found)
        raise NoSuchGuest(Place(self.name, name), f"several VMs have this name: {names}", advice="name one by its id")

    def _none(self, name: str, advice: str) -> NoSuchGuest:
        return NoSuchGuest(Place(self.name, name), "no such VM, or none that you may see (VM.Audit)", advice=advice)

    def _made(self, info: GuestInfo, name: str) -> Guest:
        shown = name if self._only_guest or name == str(info.vmid) else f"{name} ({info.vmid})"
        return Guest(self, self._carrier, info, Place(self.name, shown))
