"""A host: a server, a libvirt, or one guest agent's socket; and the guests on it. `connect` makes one, in an event loop."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from guestwire.client.carriers.base import Carrier
from guestwire.client.errors import CallFailed, ErrorContext, NoSuchEndpoint, NoSuchGuest
from guestwire.client.guests import Guest
from guestwire.client.protocols import GuestInfo
from guestwire.client.settings import LOCAL, Https, LibvirtUri, Local, Settings, parse_target, settings_for

if TYPE_CHECKING:
    from guestwire.client.carriers.local import LocalCarrier
    from guestwire.contract.guest_events import Event
    from guestwire.inventory.found import FoundVm

log = logging.getLogger("guestwire.client")

_by_id = re.compile(r"(?:(?P<node>[0-9A-Za-z-]+)/)?(?P<vmid>[0-9]{1,9})")

ELSEWHERE: Final = "`guestwire ls` lists those that were found here; for another host give --host, set GUESTWIRE_HOST, or write a profile"

OFFLINE: Final = "offline"
RUN_PRIVILEGE: Final = "VM.GuestAgent.Unrestricted"
TEMPLATE: Final = "template"
"""The status of a VM that can't be started: others are made from it."""


class _Node(msgspec.Struct, frozen=True):
    node: str
    status: str = "unknown"


class _Freeze(msgspec.Struct, frozen=True):
    by: str = ""
    since: float | None = None
    until: float | None = None


class _Vm(msgspec.Struct, frozen=True):
    vmid: int
    status: str = "unknown"
    name: str = ""
    frozen: _Freeze | None = None
    last_answer: float | None = None
    template: bool = False
    tags: str = ""


class Host:
    """`async with` closes it.

    Args:
        carrier: belongs to the host from now on.
        only_guest: behind the carrier is this guest and no other; whatever name is given for it is taken.
        is_local: calls are executed in this process.
        machine: the same carrier, where it is this machine's.
    """

    def __init__(
        self, carrier: Carrier, *, only_guest: GuestInfo | None = None, is_local: bool = False,
        machine: "LocalCarrier | None" = None,
    ) -> None:  # fmt: skip
        self._carrier = carrier
        self._is_local = is_local or only_guest is not None
        self._only_guest = only_guest
        self._machine = machine
        self._version: dict[str, Any] | None = None
        self._nodes: list[str] = []
        self._may_run: dict[int, bool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def name(self) -> str:
        """Its name in messages."""
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
        merged = {**(exactly or {}), **{name.replace("_", "-"): value for name, value in parameters.items()}}
        return await self._carrier.call(method, path, merged, ErrorContext(self.name), repeatable=method == "GET")

    async def version(self) -> dict[str, Any]:
        """The answer of `GET /version`; asked for once."""
        if self._version is None:
            found = await self.raw("GET", "/version")
            self._version = found if isinstance(found, dict) else {}
        return self._version

    @property
    def is_local(self) -> bool:
        """True if calls are executed here, on an agent's own socket or a libvirt: nothing is made into JSON on its way then."""
        return self._is_local

    @property
    def has_one_guest(self) -> bool:
        """True if this is an agent's own socket."""
        return self._only_guest is not None

    async def is_guestwire(self) -> bool:
        """True if it is guestwire, which has none of the limits of Proxmox VE's own service."""
        return self.is_local or "guestwire" in await self.version()

    async def may_have_ports(self) -> bool:
        """False where it is known that programs and files can't have ports of our own, for the host is another or has no QMP."""
        return self._carrier.may_have_ports and await self.is_guestwire()

    async def may_run(self, vmid: int) -> bool:
        """True if the caller may run programs in a VM; asked once, and true where the host does not tell.

        A job that has another way takes that at once, and leaves no refusal behind.
        """
        if self.is_local:
            return True
        if vmid not in self._may_run:
            path = f"/vms/{vmid}"
            try:
                found = await self.raw("GET", "/access/permissions", path=path)
                self._may_run[vmid] = RUN_PRIVILEGE in found[path]
            except (CallFailed, KeyError, TypeError):
                self._may_run[vmid] = True
        return self._may_run[vmid]

    async def guests(self) -> list[GuestInfo]:
        """All VMs that the caller may see, by name and id, on all nodes that are up.

        One that does not answer hides no others.
        """
        return (await self.look())[0]

    async def look(self) -> tuple[list[GuestInfo], frozenset[str]]:
        """The guests, as `guests` lists them, and the nodes whose guests are not known now: they are down, or do not answer."""
        known = await self._list("/nodes", list[_Node])
        nodes = [node.node for node in known if node.status != OFFLINE]
        answers = await asyncio.gather(*map(self._guests_on, nodes), return_exceptions=True)
        failed = {node: one for node, one in zip(nodes, answers, strict=True) if isinstance(one, BaseException)}
        for node, error in failed.items():
            if len(failed) == len(nodes) or not isinstance(error, CallFailed):
                raise error
            log.warning("%s: the guests of node %s are not known: %s", self.name, node, error.message)
        found = [guest for answer in answers if isinstance(answer, list) for guest in answer]
        silent = frozenset(node.node for node in known if node.status == OFFLINE or node.node in failed)
        return sorted(found, key=lambda guest: (guest.name, guest.vmid)), silent

    def events(self, *, on_ready: Callable[[], None] | None = None) -> "AsyncGenerator[Event, None]":
        """What happens to the guests, from now on, until the iteration is left: see `contract.guest_events` for its kinds.

        guestwire, libvirt and this machine tell it within a second or two. Of Proxmox VE and an agent's own socket the
        guests are looked at every two seconds, and asked for what changes inside every thirty. A host that can't be
        reached is an event, and so is that it can again.

        Args:
            on_ready: called when it is known how things are: nothing that happens from then on is missed.

        Raises:
            CallFailed: it can't be reached at first, or the login is not good any more.
        """
        from guestwire.client.watching import follow  # noqa: PLC0415  # few calls are about it

        return follow(self, self._own_events, on_ready or (lambda: None))

    async def _own_events(self) -> "AsyncGenerator[Event | None, None]":
        """What the host itself tells of its guests; None stands for a moment in which nothing happened, and comes first.

        Raises:
            NoSuchEndpoint: it tells nothing.
            CallFailed: see `client.errors`.
        """
        nodes = await self._list("/nodes", list[_Node])
        context = ErrorContext(self.name)
        if len(nodes) != 1 or not await self.is_guestwire():
            raise NoSuchEndpoint(context, "it tells no events")
        async with aclosing(self._carrier.events(f"/nodes/{nodes[0].node}/guestwire/events", context)) as events:
            async for event in events:
                yield event

    async def _guests_on(self, node: str) -> list[GuestInfo]:
        vms = await self._list(f"/nodes/{node}/qemu", list[_Vm])
        return [
            GuestInfo(
                vm.vmid, vm.name or str(vm.vmid), TEMPLATE if vm.template else vm.status, node,
                frozen_by=vm.frozen.by if vm.frozen else None, frozen_since=vm.frozen.since if vm.frozen else None,
                last_answer=vm.last_answer, tags=tuple(filter(None, re.split(r"[;, ]", vm.tags))),
                frozen_until=vm.frozen.until if vm.frozen else None,
            )
            for vm in vms
        ]  # fmt: skip

    async def _list(self, path: str, shape: Any) -> Any:
        data = await self.raw("GET", path)
        try:
            return msgspec.convert(data, shape, strict=False)
        except msgspec.ValidationError as error:
            raise CallFailed(ErrorContext(self.name), f"{path}: unexpected answer: {error}") from error

    async def guest(self, name: str | int) -> Guest:
        """One guest, by its VM's name, its id (`100`), or its node and id (`pve1/100`).

        An id needs no privilege and no list of guests where there is one node: that there is no such VM, the first
        call says.

        Raises:
            NoSuchGuest: there is none, or the caller may not see it; or several have the name.
        """
        if self._only_guest:
            return self._guest(self._only_guest, str(name))
        found = _by_id.fullmatch(str(name))
        return await (self._guest_by_id(int(found["vmid"]), found["node"]) if found else self._guest_by_name(str(name)))

    async def unusable(self) -> "list[FoundVm]":
        """The VMs that were found on this machine and can't be used, with the reasons; none of other hosts."""
        return await self._machine.unusable() if self._machine else []

    def guest_from(self, info: GuestInfo) -> Guest:
        """The guest of an entry of `guests()`; no call is made."""
        return self._guest(info, info.name)

    async def _guest_by_id(self, vmid: int, node: str | None) -> Guest:
        if not node and not self._nodes:
            self._nodes = [one.node for one in await self._list("/nodes", list[_Node])]
        nodes = [node] if node else self._nodes
        if len(nodes) == 1:
            return self._guest(GuestInfo(vmid, str(vmid), "unknown", nodes[0]), str(vmid))
        found = next((guest for guest in await self.guests() if guest.vmid == vmid), None)
        if not found:
            hint = f"name its node too, then no privilege to see it is needed: {nodes[0]}/{vmid}"
            hint += f"; the nodes are {', '.join(nodes)}"
            raise self._no_such_guest(str(vmid), hint)
        return self._guest(found, found.name)

    async def _guest_by_name(self, name: str) -> Guest:
        found = [guest for guest in await self.guests() if guest.name == name]
        if len(found) == 1:
            return self._guest(found[0], found[0].name)
        if not found and self.is_local and not self._machine:
            raise NoSuchGuest(ErrorContext(self.name, name), "no such VM")
        if not found:
            raise self._no_such_guest(
                name, "`guestwire ls` lists those that you may see; an id instead of a name works without VM.Audit"
            )
        names = ", ".join(f"{guest.vmid} on node {guest.node}" for guest in found)
        raise NoSuchGuest(
            ErrorContext(self.name, name), f"several VMs have this name: {names}", hint="name one by its id"
        )

    def _no_such_guest(self, name: str, hint: str) -> NoSuchGuest:
        if self._machine:
            return NoSuchGuest(ErrorContext(self.name, name), "no VM of this machine has this name", hint=ELSEWHERE)
        return NoSuchGuest(ErrorContext(self.name, name), "no such VM, or none that you may see (VM.Audit)", hint=hint)

    def _guest(self, info: GuestInfo, name: str) -> Guest:
        shown = name if self._only_guest or name == str(info.vmid) else f"{name} ({info.vmid})"
        return Guest(self, self._carrier, info, ErrorContext(self.name, shown))


async def connect(target: str | None = None, *, profile: str | None = None, **options: str | bool | None) -> Host:
    """Makes a host, which `async with` closes. Nothing is sent before the first call.

    Args:
        target: `https://host:8006` (Proxmox VE or guestwire), a libvirt (`qemu:///system`), an agent's own socket
            (`unix:/path/to.qga`; see `addresses`), or `local:`, this machine, whose VMs are found; default:
            GUESTWIRE_HOST, the profile's, or this machine.
        profile: a table in `~/.config/guestwire/config.toml`.
        options: `token`, `token_file`, `user`, `password`, `ca`, `fingerprint`, `verify`; see `client.settings`.

    Raises:
        ConfigurationError: an option can't be used.
    """
    return open_host(settings_for({"host": target, **options}, profile=profile))


def open_host(settings: Settings) -> Host:
    """The host that the settings name; to be called where an event loop runs.

    Raises:
        ConfigurationError: they name none, or something can't be used.
    """
    target = parse_target(settings.host or LOCAL)
    # Each takes a tenth of a second to load, and one is enough.
    if isinstance(target, Https):
        from guestwire.client.carriers.https import HttpsCarrier  # noqa: PLC0415

        return Host(HttpsCarrier(target, settings.credentials(), settings.trust()))
    if isinstance(target, Local):
        from guestwire.client.carriers.local import LocalCarrier  # noqa: PLC0415
        from guestwire.inventory.config import UNCONFIGURED  # noqa: PLC0415
        from guestwire.inventory.sources import Libvirts, sources_of  # noqa: PLC0415

        carrier_here = LocalCarrier("this machine", sources_of(UNCONFIGURED), Libvirts(UNCONFIGURED))
        return Host(carrier_here, machine=carrier_here, is_local=True)
    if isinstance(target, LibvirtUri):
        from guestwire.client.carriers.libvirt_host import LibvirtCarrier  # noqa: PLC0415

        return Host(LibvirtCarrier(target.uri), is_local=True)
    from guestwire.client.carriers.direct import DirectCarrier  # noqa: PLC0415

    carrier = DirectCarrier(target)
    return Host(carrier, only_guest=carrier.guest)
