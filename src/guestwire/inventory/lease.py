"""What one call may use of a node: its VMs, their agents, the machine itself."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from guestwire.access import Subject
from guestwire.access.control import Access
from guestwire.agent.guest import GuestAgent
from guestwire.contract import FreezeNote, HostFigures, VmState
from guestwire.contract.context import (
    NO_CONNECTION,
    NO_TERMS,
    WHILE_CONNECTED,
    AgentChannel,
    FreezeTerms,
    NodeStatus,
    VmDefinition,
)
from guestwire.contract.endpoints.agent import fsfreeze_thaw
from guestwire.contract.guest_events import Event
from guestwire.contract.parameters import VmParameters
from guestwire.errors import AgentNotConfigured, GuestError, InvalidParameters, VmNotFound, VmNotRunning
from guestwire.inventory.machine import Machine, Usage, traffic
from guestwire.inventory.power_actions import ASK_GUEST, KINDS, NEED_RUNNING, Power
from guestwire.inventory.task_runner import Say, Tasks
from guestwire.inventory.vm import Vm, running_states
from guestwire.inventory.vms import Inventory

Hold = Callable[[], asyncio.Future[None]]
"""Keeps a caller's connection open, and gives what is done when it has ended."""

LOOK: Final = 2.0
"""Seconds that a list waits for what QEMU says."""


class Sight(NamedTuple):
    """What was seen of a VM: whether it runs, what its process uses, bytes that it received and sent."""

    running: bool
    usage: Usage | None = None
    received: int = 0
    sent: int = 0


class Lease:
    """What one call may use (every context that `contract` names); release it when the call has ended."""

    __slots__ = ("_hold", "_inventory", "_used", "access", "address", "subject")

    def __init__(
        self, inventory: Inventory, access: Access, subject: Subject, address: str, hold: Hold | None = None
    ) -> None:
        self.access = access
        self.subject = subject
        self.address = address
        self._inventory = inventory
        self._hold = hold
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
        vm = self._vm(vmid)
        if vm.agent is None:
            raise AgentNotConfigured(vmid)
        vm.lease()
        self._used.append(vm)
        if not await vm.is_running():
            raise VmNotRunning(vmid)
        return vm.agent

    @property
    def freeze_lease(self) -> float | None:
        """See `GuestContext.freeze_lease`."""
        return self._inventory.freeze_lease

    async def note_sent(self, vmid: int, command: str, terms: FreezeTerms = NO_TERMS) -> None:
        """See `GuestContext.note_sent`."""
        freezes = self._inventory.freezes
        if terms.connected and self._hold is None:
            raise InvalidParameters({WHILE_CONNECTED: NO_CONNECTION})
        if terms.connected and self._hold:
            # Before the note is written: this call may be cancelled then, and the note stays.
            self._hold().add_done_callback(lambda _: freezes.end_now(vmid, terms))
        await freezes.note_sent(vmid, self.subject, command, terms)

    async def note_answer(self, vmid: int, command: str, answer: Any, terms: FreezeTerms = NO_TERMS) -> str:
        """See `GuestContext.note_answer`."""
        return await self._inventory.freezes.note_answer(vmid, self.subject, command, answer, terms)

    async def vms(self) -> list[VmState]:
        """See `NodeContext.vms`."""
        vms = [vm for _, vm in sorted(self._inventory.vms.items())]
        return [self._state(vm, sight) for vm, sight in zip(vms, await _look_at(vms), strict=True)]

    async def events(self) -> AsyncGenerator[list[Event], None]:
        """See `EventContext.events`."""
        async with aclosing(self._inventory.watch.follow()) as followed:
            async for events in followed:
                yield events

    async def details(self, vmids: Sequence[int]) -> list[VmState]:
        """See `MachineContext.details`."""
        vms = [vm for vmid in vmids if (vm := self._inventory.vms.get(vmid))]
        found = []
        for vm, sight in zip(vms, await _look_at(vms, counters=True), strict=True):
            facts, counters = vm.facts, vm.counters
            state = msgspec.structs.replace(
                self._state(vm, sight), qmpstatus=counters.status if sight.running else "stopped"
            )
            if sight.usage:
                state = msgspec.structs.replace(
                    state, diskread=counters.total("rd_bytes"), diskwrite=counters.total("wr_bytes"),
                    blockstat=counters.blocks, running_machine=facts.machine, running_qemu=facts.version,
                )  # fmt: skip
            found.append(state)
        return found

    async def definition(self, vmid: int) -> VmDefinition:
        """See `MachineContext.definition`."""
        vm = self._vm(vmid)
        await _look_at([vm])
        facts = vm.facts
        return VmDefinition(
            vmid=vmid,
            name=vm.config.name,
            has_agent=vm.agent is not None,
            description=vm.config.description,
            tags=tuple(vm.config.tags),
            cpus=facts.cpus,
            memory=facts.memory,
            machine=facts.machine,
            uuid=facts.uuid,
            mac_addresses=facts.mac_addresses,
        )

    def _state(self, vm: Vm, sight: Sight) -> VmState:
        facts, usage = vm.facts, sight.usage
        state = VmState(
            vmid=vm.config.vmid,
            name=vm.config.name or f"VM {vm.config.vmid}",
            status="running" if sight.running else "stopped",
            cpus=facts.cpus,
            maxmem=facts.memory,
            maxdisk=facts.disk,
            netin=sight.received,
            netout=sight.sent,
            tags=";".join(vm.config.tags) or None,
            frozen=self._freeze_of(vm.config.vmid) if sight.running else None,
            last_answer=vm.last_answer if sight.running else None,
        )
        if usage is None:
            return state
        return msgspec.structs.replace(
            state, uptime=usage.uptime, cpu=usage.cpu, mem=min(usage.memory, facts.memory or usage.memory),
            memhost=usage.memory, pid=usage.pid, **usage.pressure,
        )  # fmt: skip

    @property
    def tasks(self) -> Tasks:
        """See `TaskContext.tasks`."""
        return self._inventory.tasks

    async def power(self, vmid: int, action: str, **options: Any) -> str:
        """See `TaskContext.power`."""
        if action in NEED_RUNNING and not await self._vm(vmid).is_running():
            raise GuestError(f"VM {vmid} not running")

        async def work(say: Say) -> None:
            vm = self._vm(vmid)
            vm.lease()
            try:
                if action in ASK_GUEST:
                    await self._thaw_own(vmid, say)
                await getattr(Power(vm, say), action)(**options)
            finally:
                vm.release()

        return await self._inventory.tasks.begin(KINDS[action], vmid, self.subject, work)

    async def _thaw_own(self, vmid: int, say: Say) -> None:
        """Thaws what the caller has frozen: an agent whose file systems are frozen takes no other command."""
        note = self._inventory.freezes.frozen.get(vmid)
        if note is None or note.subject != self.subject.key:
            return
        lease = Lease(self._inventory, self.access, self.subject, self.address)  # the call of this one has ended
        try:
            await fsfreeze_thaw.function(lease, VmParameters(node=self.node, vmid=vmid))
        finally:
            lease.release()
        say("its file systems are thawed: the one who froze them asks for this")

    async def add_channel(self, vmid: int) -> AgentChannel:
        """See `TaskContext.add_channel`."""
        self._vm(vmid)
        return await self._inventory.add_channel(vmid)

    def _vm(self, vmid: int) -> Vm:
        vm = self._inventory.vms.get(vmid)
        if vm is None:
            raise VmNotFound(vmid, self.node)
        return vm

    def _freeze_of(self, vmid: int) -> FreezeNote | None:
        found = self._inventory.freezes.frozen.get(vmid)
        if found is None:
            return None
        return FreezeNote(
            found.subject, found.since, found.count, found.until, found.connected, watchdog=bool(found.watchdog)
        )

    async def figures(self) -> HostFigures:
        """See `NodeContext.figures`."""
        return await asyncio.to_thread(self._inventory.host.read)

    async def node_status(self) -> NodeStatus:
        """See `MachineContext.node_status`."""
        return await asyncio.to_thread(self._inventory.host.status)

    async def node_address(self) -> str:
        """See `MachineContext.node_address`."""
        return await self._inventory.own_address()

    def may(self, path: str, any_of: Iterable[str]) -> bool:
        """See `NodeContext.may`."""
        return self.access.may(self.subject, path, any_of)

    def release(self) -> None:
        """The call has ended."""
        for vm in self._used:
            vm.release()
        self._used.clear()


async def _look_at(vms: Sequence[Vm], *, counters: bool = False) -> list[Sight]:
    """QEMU is asked for a moment: one that hangs delays no list for long."""
    running = await running_states(vms)
    machines = {vm.config.vmid: vm.machine for vm, runs in zip(vms, running, strict=True) if runs and vm.machine}
    sources = {vm.libvirt.source.uri: vm.libvirt.source for vm in vms if vm.libvirt}
    if not machines and not sources:
        return [Sight(runs) for runs in running]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK):
            asked = [machine.refresh(counters=counters) for machine in machines.values()]
            await asyncio.gather(*asked, *(source.measure() for source in sources.values()))
    seen = await asyncio.to_thread(_read_usage, machines) if machines else {}
    seen |= {vm.config.vmid: sight for vm in vms if (sight := _sight_in_libvirt(vm))}
    return [seen.get(vm.config.vmid) or Sight(runs) for vm, runs in zip(vms, running, strict=True)]


def _sight_in_libvirt(vm: Vm) -> Sight | None:
    if vm.libvirt is None or not vm.libvirt.domain.is_running:
        return None
    figures = vm.libvirt.source.figures.get(vm.libvirt.domain.uuid)
    return Sight(True, figures.usage, figures.received, figures.sent) if figures else None  # noqa: FBT003


def _read_usage(machines: dict[int, Machine]) -> dict[int, Sight]:
    """By VM. Reads files of the kernel's."""
    table = ""
    with contextlib.suppress(OSError):
        table = Path("/proc/net/dev").read_text()
    return {
        vmid: Sight(True, machine.usage(), *traffic(machine.facts.interfaces, table))  # noqa: FBT003
        for vmid, machine in machines.items()
    }
