"""One VM: what reaches its agent and its QEMU, kept open."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from guestwire.addresses import UnixAddress, VsockAddress
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import Channel, ChannelState, GuestEvent, open_channel
from guestwire.channels.own_port import OwnPorts
from guestwire.inventory.config import VmConfig
from guestwire.inventory.found import added_channel
from guestwire.inventory.libvirt_source import Domain, LibvirtSource
from guestwire.inventory.machine import Counters, Facts, Machine

if TYPE_CHECKING:
    from guestwire.channels.qmp import Monitor

SLICE: Final = 100
"""VMs that are gone through in one turn of the loop: there may be ten thousand."""


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
        self._ports = libvirt.source.ports(libvirt.domain.uuid, guest) if libvirt else _ports_by(self.monitor, guest)
        self.agent = GuestAgent(self._channel, guest, kept, self._ports) if self._channel else None

    def attach(self, path: Path, kept: ExitStatusCache) -> None:
        """Reaches the agent through a channel that the VM has got meanwhile."""
        guest = f"VM {self.config.vmid}"
        self._socket, channel = path, open_channel(UnixAddress(path), guest)
        self._channel, self.agent = channel, GuestAgent(channel, guest, kept, self._ports)
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
    def channel_state(self) -> ChannelState | None:
        """What is known of its agent; None where it has no channel."""
        return self._channel.state if self._channel else None

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

    @property
    def run_state(self) -> str | None:
        """What it does while it runs, in QEMU's words: running, paused, suspended and more; None: not known."""
        if self.libvirt:
            return self.libvirt.domain.run_state
        return self.monitor.run_state if self.monitor else None

    @property
    def start(self) -> int | None:
        """A number that is another one after each start; None: not known."""
        if self.libvirt:
            return self.libvirt.domain.number
        return self.monitor.pid if self.monitor else None

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
        if self.agent:
            await self.agent.close()  # it takes its ports out, by the monitor
        if self.monitor:
            await self.monitor.close()
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


async def running_states(vms: Sequence[Vm]) -> list[bool]:
    """Which of these run; those where that takes a moment are waited for together."""
    running: list[bool | None] = []
    for position, vm in enumerate(vms):
        if position % SLICE == SLICE - 1:
            await asyncio.sleep(0)
        running.append(vm.known_state)
    unknown = [position for position, runs in enumerate(running) if runs is None]
    found = await asyncio.gather(*(vms[position].is_running() for position in unknown))
    for position, runs in zip(unknown, found, strict=True):
        running[position] = runs
    return [bool(runs) for runs in running]


def _is_socket(path: Path) -> bool:
    """As far as this user may see it."""
    try:
        return path.is_socket()
    except OSError:
        return False


def _open_monitor(path: Path, guest: str, port: Path | None, channel: Channel | None) -> "Monitor":
    from guestwire.channels.qmp import Monitor  # noqa: PLC0415  # what it needs is in the extra for servers

    return Monitor(path, guest, port, channel)


def _ports_by(monitor: "Monitor | None", guest: str) -> OwnPorts | None:
    if monitor is None:
        return None
    from guestwire.channels.qmp_ports import QmpPorts  # noqa: PLC0415  # as above

    return QmpPorts(monitor, guest)


def _way(config: VmConfig, libvirt: InLibvirt | None) -> tuple[object, ...]:
    in_libvirt = (libvirt.source, libvirt.domain.uuid, libvirt.domain.has_agent) if libvirt else ()
    return config.agent, config.qmp, *in_libvirt
