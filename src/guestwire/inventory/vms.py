"""The VMs of this node: their channels, kept open, and leases on them, so that a reload takes nothing from a call in flight."""

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import Final

from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.contract.context import AgentChannel
from guestwire.errors import GuestError, VmNotRunning
from guestwire.inventory.config import TAG, VmConfig
from guestwire.inventory.found import added_channel
from guestwire.inventory.freezes import Freezes, in_words
from guestwire.inventory.guest_watch import GuestWatch
from guestwire.inventory.host import HostLoad, own_address
from guestwire.inventory.libvirt_source import Domain, LibvirtSource, merged
from guestwire.inventory.task_runner import Tasks
from guestwire.inventory.vm import SLICE, InLibvirt, Vm
from guestwire.inventory.vm_ids import give_ids
from guestwire.metrics import Exposition
from guestwire.stores import MemoryStore, Store

ADDRESS_FRESH: Final = 60.0
"""Seconds."""

log = logging.getLogger("guestwire")


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
        self.watch = GuestWatch(lambda: self._vms, self._frozen_by, node)
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

    def _frozen_by(self, vmid: int) -> str | None:
        found = self.freezes.frozen.get(vmid)
        return found.subject if found else None

    @property
    def vms(self) -> Mapping[int, Vm]:
        """The VMs by id."""
        return self._vms

    async def close(self) -> None:
        """Closes all channels."""
        await self.watch.close()
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
