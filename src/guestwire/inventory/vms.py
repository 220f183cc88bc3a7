"""The VMs of this node: their channels, kept open, and leases on them, so that a reload takes nothing from a call in flight."""

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from guestwire.addresses import UnixAddress, VsockAddress
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import Channel, ChannelState, GuestEvent, open_channel
from guestwire.contract.context import AgentChannel
from guestwire.errors import GuestError, VmNotRunning
from guestwire.inventory.config import TAG, VmConfig
from guestwire.inventory.found import added_channel
from guestwire.inventory.freezes import Freezes, in_words
from guestwire.inventory.host import HostLoad, own_address
from guestwire.inventory.libvirt_source import Domain, LibvirtSource, merged
from guestwire.inventory.machine import Counters, Facts, Machine
from guestwire.inventory.task_runner import Tasks
from guestwire.inventory.vm_ids import give_ids
from guestwire.metrics import Exposition
from guestwire.stores import MemoryStore, Store

if TYPE_CHECKING:
    from guestwire.channels.qmp import Monitor

ADDRESS_FRESH: Final = 60.0
"""Seconds."""

SLICE: Final = 100
"""VMs that are gone through in one turn of the loop: there may be ten thousand."""

log = logging.getLogger("guestwire")


class InLibvirt(NamedTuple):
    """A VM that libvirt has: in which, and what it says of it."""

    source: LibvirtSource
    domain: Domain


class Vm:
    """One VM as it is configured, or as libvirt has it, with what reaches it. Must be made where an event loop runs, and closed."""

    def __init__(self, config: VmConfig, kept: ExitStatusCache, libvirt: InLibvirt | None = None) -> None:
        self.config = config
        self.libvirt = libvirt
        self.leases = 0
        self.start_turn = asyncio.Lock()
        self.unused = asyncio.Event()
        self.unused.set()
        guest = f"VM {config.vmid}"
        address = config.agent_address
        if address is None and config.qmp_path and _is_socket(added := added_channel(config.qmp_path)):
            address = UnixAddress(added)
        self._socket = None if address is None or isinstance(address, VsockAddress) else address.path
        self._channel: Channel | None = open_channel(address, guest) if address else None
        if libvirt and libvirt.domain.has_agent:
            self._channel = libvirt.source.channel(libvirt.domain.uuid, guest)
        port = address.path if isinstance(address, UnixAddress) else None
        self.monitor = _open_monitor(config.qmp_path, guest, port, self._channel) if config.qmp_path else None
        self.machine = Machine(self.monitor) if self.monitor else None
        self._resets = self.resets
        ports = libvirt.source.ports(libvirt.domain.uuid, guest) if libvirt else None
        self.agent = GuestAgent(self._channel, guest, kept, ports) if self._channel else None

    def attach(self, path: Path, kept: ExitStatusCache) -> None:
        """Reaches the agent through a channel that the VM has got meanwhile."""
        guest = f"VM {self.config.vmid}"
        self._socket, channel = path, open_channel(UnixAddress(path), guest)
        self._channel, self.agent = channel, GuestAgent(channel, guest, kept)
        if self.monitor:
            self.monitor.attend(path, channel)

    async def is_running(self) -> bool:
        """As QMP says; else as the configuration says; else whether the agent's socket is there."""
        known = self.known_state
        if known is None and self.monitor:
            return await self.monitor.is_running()
        return bool(known)

    @property
    def known_state(self) -> bool | None:
        """The same, as far as it can be said without waiting."""
        if self.libvirt:  # asked anew: a task may hold a VM that is served no more, to see its end
            now = self.libvirt.source.domains.get(self.libvirt.domain.uuid)
            return now is not None and now.is_running
        if self.monitor:
            return self.monitor.known_state
        if self.config.running is not None:
            return self.config.running
        answers = self._channel is not None and self._channel.state is ChannelState.UP
        if answers or self._socket is None:
            return answers or self._channel is not None  # vsock: only its agent can tell, and is asked then
        return _is_socket(self._socket)

    @property
    def last_answer(self) -> float | None:
        """When its agent last answered; None while it does."""
        is_up = self._channel is None or self._channel.state is ChannelState.UP
        return None if is_up or self.agent is None else self.agent.last_answer

    @property
    def facts(self) -> Facts:
        """What seldom changes, as far as it is known now."""
        if self.libvirt:
            return self.libvirt.domain.facts
        return self.machine.facts if self.machine else Facts()

    @property
    def counters(self) -> Counters:
        """QEMU's run state and counters, as they were seen last."""
        if self.libvirt:
            figures = self.libvirt.source.figures.get(self.libvirt.domain.uuid)
            return figures.counters if figures else Counters()
        return self.machine.counters if self.machine else Counters()

    @property
    def resets(self) -> int | None:
        """How often the guest was started anew; None where that can't be seen."""
        if self.libvirt:
            return self.libvirt.source.resets.get(self.libvirt.domain.uuid, 0)
        return self.monitor.resets if self.monitor else None

    def follow(self, config: VmConfig, libvirt: InLibvirt | None) -> None:
        """Takes what is said of it now; its channel is told what happened to the guest."""
        before, self.config, self.libvirt = self.libvirt, config, libvirt
        if not self._channel or not before or not libvirt:
            return
        resets, self._resets = self._resets, self.resets
        if before.domain.is_running and not libvirt.domain.is_running:
            self._channel.notify(GuestEvent.STOPPED)
        elif resets != self._resets:
            self._channel.notify(GuestEvent.RESET)
        elif before.domain.agent_is_up and not libvirt.domain.agent_is_up:
            self._channel.notify(GuestEvent.PORT_CLOSED)
        elif libvirt.domain.agent_is_up and not before.domain.agent_is_up:
            self._channel.notify(GuestEvent.PORT_OPENED)

    async def close(self) -> None:
        """Ends what reaches it."""
        if self.monitor:
            await self.monitor.close()
        if self.agent:
            await self.agent.close()
        if self._channel:
            await self._channel.close()

    def lease(self) -> None:
        """Somebody uses it."""
        self.leases += 1
        self.unused.clear()

    def release(self) -> None:
        """And does not any more."""
        self.leases -= 1
        if not self.leases:
            self.unused.set()

    def reaches_as(self, config: VmConfig, libvirt: InLibvirt | None) -> bool:
        """True if what these say is reached the same way."""
        return _way(self.config, self.libvirt) == _way(config, libvirt)


def _is_socket(path: Path) -> bool:
    """As far as this user may see it."""
    try:
        return path.is_socket()
    except OSError:
        return False


def _open_monitor(path: Path, guest: str, port: Path | None, channel: Channel | None) -> "Monitor":
    from guestwire.channels.qmp import Monitor  # noqa: PLC0415  # what it needs is in the extra for servers

    return Monitor(path, guest, port, channel)


def _way(config: VmConfig, libvirt: InLibvirt | None) -> tuple[object, ...]:
    in_libvirt = (libvirt.source, libvirt.domain.uuid, libvirt.domain.has_agent) if libvirt else ()
    return config.agent, config.qmp, *in_libvirt


def _config_of(vmid: int, domain: Domain) -> VmConfig:
    tags = [tag for tag in domain.tags if re.match(TAG, tag)]
    return VmConfig(vmid=vmid, name=domain.name, description=domain.description, tags=tags)


class Inventory:
    """All VMs of one node; without a store, freezes and tasks are forgotten at the end, and ids are made of uuids."""

    def __init__(self, node: str, fingerprint: str | None = None, store: Store | None = None) -> None:
        self.node = node
        self._id_store = store
        store = store or MemoryStore()
        self.freezes = Freezes(store)
        self.freeze_lease: float | None = None
        """Seconds after which freezes end that name no lease of their own; None: never."""
        self.exposition: Exposition | None = None
        """The metrics of guests that are polled; None where none is."""
        self.tasks = Tasks(node, store)
        self.fingerprint = fingerprint
        self._vms: dict[int, Vm] = {}
        self._configs: list[VmConfig] = []
        self.sources: dict[str, LibvirtSource] = {}
        """By URI."""
        self._updates: set[asyncio.Task[None]] = set()
        self.host = HostLoad()
        self._kept = ExitStatusCache()
        self._address: asyncio.Future[str] | None = None
        self._address_at = 0.0
        self._turn = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], Vm] = {}

    async def apply(self, configs: Iterable[VmConfig], libvirts: Iterable[str] = ()) -> None:
        """Makes these the VMs, and those of these libvirts, which are followed from now on; returns when they are known.

        Raises:
            ConfigurationError: libvirt's binding is not installed.
        """
        self._configs = list(configs)
        before, uris = self.sources, list(libvirts)
        self.sources = {uri: before.get(uri) or LibvirtSource(uri, self._update_soon) for uri in uris}
        await asyncio.gather(*(source.listed() for source in self.sources.values()))
        await self._update()
        await asyncio.gather(*(source.close() for uri, source in before.items() if uri not in self.sources))

    def _update_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._update(), name="update VMs")
        self._updates.add(task)
        task.add_done_callback(self._updates.discard)

    async def _update(self) -> None:
        """Makes what is configured and found the VMs; one after the other, while the loop runs.

        One that is reached as before keeps its channel; one that goes away ends its calls first.
        """
        async with self._turn:
            old, new = dict(self._vms), {}
            for position, (config, libvirt) in enumerate(await self._definitions()):
                if position % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                vm = old.get(config.vmid)
                if vm and vm.reaches_as(config, libvirt):
                    vm.follow(config, libvirt)
                    new[config.vmid] = old.pop(config.vmid)
                else:
                    new[config.vmid] = Vm(config, self._kept, libvirt)
            self._vms = new
            for vm in old.values():
                self._retire(vm)

    async def own_address(self) -> str:
        """The node's address; looked up once for all who ask meanwhile, and for a minute: a name server may be slow."""
        now = time.monotonic()
        if self._address is None or (self._address.done() and now - self._address_at >= ADDRESS_FRESH):
            self._address, self._address_at = asyncio.ensure_future(asyncio.to_thread(own_address)), now
        return await asyncio.shield(self._address)

    async def add_channel(self, vmid: int) -> AgentChannel:
        """Gives a running VM a channel for its agent, or one of libvirt's that is defined there. Its id must be known.

        Raises:
            GuestError: it has one, it does not run, or neither QEMU nor libvirt can be asked.
        """
        vm = self._vms[vmid]
        if vm.agent:
            raise GuestError(f"VM {vmid} has a channel for a guest agent already")
        if vm.libvirt:
            source, domain = vm.libvirt
            is_now, is_permanent = await source.add_channel(domain.uuid)
            await self._update()
            log.info("VM %d has got a channel for its agent, in libvirt %s", vmid, source.uri)
            return AgentChannel(source.uri, is_now, is_permanent)
        if not await vm.is_running():
            raise VmNotRunning(vmid)
        if vm.machine is None or vm.config.qmp_path is None:
            raise GuestError(f"VM {vmid}: a channel is plugged in by QEMU's own socket; name qmp under [[vm]]")
        path = added_channel(vm.config.qmp_path)
        await vm.machine.add_agent_channel(path)
        vm.attach(path, self._kept)
        log.info("VM %d has got a channel for its agent: %s", vmid, path)
        return AgentChannel(f"unix:{path}", now=True, permanent=False)

    async def _definitions(self) -> list[tuple[VmConfig, InLibvirt | None]]:
        configured: list[tuple[VmConfig, InLibvirt | None]] = [(config, None) for config in self._configs]
        found = {uuid: InLibvirt(*pair) for uuid, pair in merged(self.sources).items()}
        in_order = sorted(found, key=lambda uuid: (found[uuid].domain.name, uuid))
        ids = await give_ids(self._id_store, in_order, {config.vmid for config in self._configs})
        return configured + [(_config_of(ids[uuid], found[uuid].domain), found[uuid]) for uuid in in_order]

    def _retire(self, vm: Vm) -> None:
        """Ends what reaches a VM that is served no more, when its calls have ended."""
        if vm.config.vmid in self.freezes.frozen and vm.config.vmid not in self._vms:
            log.warning(
                "VM %d is served no more, and is frozen: %s",
                vm.config.vmid,
                in_words(self.freezes.frozen[vm.config.vmid]),
            )
        task = asyncio.get_running_loop().create_task(_retire(vm), name=f"retire VM {vm.config.vmid}")
        self._retiring[task] = vm
        task.add_done_callback(self._retiring.pop)

    @property
    def vms(self) -> Mapping[int, Vm]:
        """The VMs by id."""
        return self._vms

    async def close(self) -> None:
        """Closes all channels."""
        await self.tasks.close()
        if self._address:
            self._address.cancel()
        updates = list(self._updates)
        for update in updates:
            update.cancel()
        await asyncio.gather(*updates, return_exceptions=True)
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        vms = (*retiring.values(), *self._vms.values())
        await asyncio.gather(*(vm.close() for vm in vms), return_exceptions=True)
        await asyncio.gather(*(source.close() for source in self.sources.values()), return_exceptions=True)


async def _retire(vm: Vm) -> None:
    await vm.unused.wait()
    await vm.close()
