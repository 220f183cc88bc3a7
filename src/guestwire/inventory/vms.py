"""The VMs of this node: their channels, kept open, and leases on them, so that a reload takes nothing from a call in flight."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from guestwire.addresses import UnixAddress, VsockAddress
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import Channel, ChannelState, open_channel
from guestwire.errors import GuestError, VmNotRunning
from guestwire.inventory.config import VmConfig
from guestwire.inventory.freezes import Freezes, in_words
from guestwire.inventory.host import HostLoad
from guestwire.inventory.machine import Machine
from guestwire.inventory.task_runner import Tasks
from guestwire.stores import MemoryStore, Store

if TYPE_CHECKING:
    from guestwire.channels.qmp import Monitor

SLICE: Final = 100
"""VMs that are gone through in one turn of the loop: there may be ten thousand."""

log = logging.getLogger("guestwire")


class Vm:
    """One VM as it is configured, with what reaches it. Must be made where an event loop runs, and closed."""

    def __init__(self, config: VmConfig, kept: ExitStatusCache) -> None:
        self.config = config
        self.leases = 0
        self.unused = asyncio.Event()
        self.unused.set()
        guest = f"VM {config.vmid}"
        address = config.agent_address
        if address is None and config.qmp_path and (added := added_channel(config.qmp_path)).is_socket():
            address = UnixAddress(added)
        self._socket = None if address is None or isinstance(address, VsockAddress) else address.path
        self._channel: Channel | None = open_channel(address, guest) if address else None
        port = address.path if isinstance(address, UnixAddress) else None
        self.monitor = _watch(config.qmp_path, guest, port, self._channel) if config.qmp_path else None
        self.machine = Machine(self.monitor) if self.monitor else None
        self.agent = GuestAgent(self._channel, guest, kept) if self._channel else None

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
        if self.monitor:
            return self.monitor.known_state
        if self.config.running is not None:
            return self.config.running
        answers = self._channel is not None and self._channel.state is ChannelState.UP
        if answers or self._socket is None:
            return answers or self._channel is not None  # vsock: only its agent can tell, and is asked then
        return self._socket.is_socket()

    @property
    def last_answer(self) -> float | None:
        """When its agent last answered; None while it does."""
        is_up = self._channel is None or self._channel.state is ChannelState.UP
        return None if is_up or self.agent is None else self.agent.last_answer

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

    def reaches_as(self, config: VmConfig) -> bool:
        """True if `config` is reached the same way."""
        return (self.config.agent, self.config.qmp) == (config.agent, config.qmp)


def added_channel(qmp: Path) -> Path:
    """The agent's socket of a VM that has got its channel from guestwire: beside the QMP socket, so that it is found again."""
    return qmp.with_name(f"{qmp.name}.qga")


class Inventory:
    """All VMs of one node; without a store, freezes and tasks are forgotten at the end."""

    def __init__(self, node: str, fingerprint: str | None = None, store: Store | None = None) -> None:
        self.node = node
        store = store or MemoryStore()
        self.freezes = Freezes(store)
        self.tasks = Tasks(node, store)
        self.fingerprint = fingerprint
        self._vms: dict[int, Vm] = {}
        self.host = HostLoad()
        self._kept = ExitStatusCache()
        self._turn = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], Vm] = {}

    async def apply(self, configs: Iterable[VmConfig]) -> None:
        """Makes these the VMs; one after the other, while the loop runs.

        One that is reached as before keeps its channel; one that goes away ends its calls first.
        """
        async with self._turn:
            old, new = dict(self._vms), {}
            for position, config in enumerate(configs):
                if position % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                vm = old.get(config.vmid)
                if vm and vm.reaches_as(config):
                    vm.config = config
                    new[config.vmid] = old.pop(config.vmid)
                else:
                    new[config.vmid] = Vm(config, self._kept)
            self._vms = new
            for vm in old.values():
                self._retire(vm)

    async def add_channel(self, vmid: int) -> Path:
        """Gives a running VM a channel for its agent; returns the socket. The VM's id must be known.

        Raises:
            GuestError: it has one, it does not run, or QEMU can't be asked.
        """
        vm = self._vms[vmid]
        if vm.agent:
            raise GuestError(f"VM {vmid} has a channel for a guest agent already")
        if not await vm.is_running():
            raise VmNotRunning(vmid)
        if vm.machine is None or vm.config.qmp_path is None:
            raise GuestError(f"VM {vmid}: a channel is plugged in by QEMU's own socket; name qmp under [[vm]]")
        path = added_channel(vm.config.qmp_path)
        await vm.machine.add_agent_channel(path)
        vm.attach(path, self._kept)
        log.info("VM %d has got a channel for its agent: %s", vmid, path)
        return path

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
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        vms = (*retiring.values(), *self._vms.values())
        await asyncio.gather(*(vm.close() for vm in vms), return_exceptions=True)


def _watch(path: Path, guest: str, agent: Path | None, channel: Channel | None) -> "Monitor":
    from guestwire.channels.qmp import Monitor  # noqa: PLC0415  # its package comes with the server

    return Monitor(path, guest, agent, channel)


async def _retire(vm: Vm) -> None:
    await vm.unused.wait()
    await vm.close()
