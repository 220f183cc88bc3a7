"""The VMs of this node: their channels, kept open, and leases on them, so that a reload takes nothing from a call in flight."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from guestwire.access import Subject
from guestwire.access.control import Access
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import Channel, ChannelState, UnixChannel
from guestwire.channels.qmp import Monitor
from guestwire.contract import FreezeNote, HostFigures, VmSummary
from guestwire.errors import AgentNotConfigured, VmNotFound, VmNotRunning
from guestwire.inventory.config import VmConfig
from guestwire.inventory.freezes import Freezes, in_words
from guestwire.inventory.host import HostLoad
from guestwire.stores import MemoryStore

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
        socket = config.agent_path
        self._socket = socket
        self._channel: Channel | None = UnixChannel(socket, guest) if socket else None
        self._monitor = Monitor(config.qmp_path, guest, socket, self._channel) if config.qmp_path else None
        self.agent = GuestAgent(self._channel, guest, kept) if self._channel else None

    async def is_running(self) -> bool:
        """As QMP says; else as the configuration says; else whether the agent's socket is there."""
        known = self.known_state
        if known is None and self._monitor:
            return await self._monitor.is_running()
        return bool(known)

    @property
    def known_state(self) -> bool | None:
        """The same, as far as it can be said without waiting."""
        if self._monitor:
            return self._monitor.known_state
        if self.config.running is not None:
            return self.config.running
        answers = self._channel is not None and self._channel.state is ChannelState.UP
        return answers or (self._socket is not None and self._socket.is_socket())

    @property
    def last_answer(self) -> float | None:
        """When its agent last answered; None while it does."""
        is_up = self._channel is None or self._channel.state is ChannelState.UP
        return None if is_up or self.agent is None else self.agent.last_answer

    async def close(self) -> None:
        """Ends what reaches it."""
        if self._monitor:
            await self._monitor.close()
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


class Inventory:
    """All VMs of one node; without `freezes`, which guests are frozen is forgotten at the end."""

    def __init__(self, node: str, fingerprint: str | None = None, freezes: Freezes | None = None) -> None:
        self.node = node
        self.freezes = freezes or Freezes(MemoryStore())
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
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        vms = (*retiring.values(), *self._vms.values())
        await asyncio.gather(*(vm.close() for vm in vms), return_exceptions=True)


async def _retire(vm: Vm) -> None:
    await vm.unused.wait()
    await vm.close()


class Lease:
    """What one call may use (every context that `contract` names); release it when the call has ended."""

    __slots__ = ("_inventory", "_used", "access", "address", "subject")

    def __init__(self, inventory: Inventory, access: Access, subject: Subject, address: str) -> None:
        self.access = access
        self.subject = subject
        self.address = address
        self._inventory = inventory
        self._used: list[Vm] = []

    @property
    def node(self) -> str:
        """See `NodeContext.node`."""
        return self._inventory.node

    @property
    def fingerprint(self) -> str | None:
        """See `NodeContext.fingerprint`."""
        return self._inventory.fingerprint

    async def agent(self, vmid: int) -> GuestAgent:
        """See `GuestContext.agent`."""
        vm = self._inventory.vms.get(vmid)
        if vm is None:
            raise VmNotFound(vmid, self.node)
        if vm.agent is None:
            raise AgentNotConfigured(vmid)
        vm.lease()
        self._used.append(vm)
        if not await vm.is_running():
            raise VmNotRunning(vmid)
        return vm.agent

    async def note_sent(self, vmid: int, command: str) -> None:
        """See `GuestContext.note_sent`."""
        await self._inventory.freezes.note_sent(vmid, self.subject, command)

    async def note_answer(self, vmid: int, command: str, answer: Any) -> None:
        """See `GuestContext.note_answer`."""
        await self._inventory.freezes.note_answer(vmid, self.subject, command, answer)

    async def vms(self) -> list[VmSummary]:
        """See `NodeContext.vms`."""
        vms = [vm for _, vm in sorted(self._inventory.vms.items())]
        running: list[bool | None] = []
        for position, vm in enumerate(vms):
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            running.append(vm.known_state)
        unknown = [position for position, runs in enumerate(running) if runs is None]
        found = await asyncio.gather(*(vms[position].is_running() for position in unknown))
        for position, runs in zip(unknown, found, strict=True):
            running[position] = runs
        return [
            VmSummary(
                vmid=vm.config.vmid,
                name=vm.config.name,
                status="running" if runs else "stopped",
                frozen=self._freeze_of(vm.config.vmid) if runs else None,
                last_answer=vm.last_answer if runs else None,
            )
            for vm, runs in zip(vms, running, strict=True)
        ]

    def _freeze_of(self, vmid: int) -> FreezeNote | None:
        found = self._inventory.freezes.frozen.get(vmid)
        return FreezeNote(found.subject, found.since, found.count) if found else None

    async def figures(self) -> HostFigures:
        """See `NodeContext.figures`."""
        return await asyncio.to_thread(self._inventory.host.read)

    def may(self, path: str, any_of: Iterable[str]) -> bool:
        """See `NodeContext.may`."""
        return self.access.may(self.subject, path, any_of)

    def release(self) -> None:
        """The call has ended."""
        for vm in self._used:
            vm.release()
        self._used.clear()
