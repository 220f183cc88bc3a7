"""The domains of a libvirt as VMs: listed once, and followed by its events, while guestwire runs."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import msgspec

from guestwire.channels.agent_port import AGENT_PORT, LIBVIRT_CHANNEL
from guestwire.channels.libvirt import READ_ONLY, Libvirt, LibvirtChannel, LibvirtConnection, binding
from guestwire.channels.libvirt_port import LibvirtPorts
from guestwire.errors import GuestError
from guestwire.inventory.machine import COUNTERS_FRESH, MAX_DEVICES, Counters, Facts, Usage
from guestwire.inventory.qemu_processes import ProcessStarts
from guestwire.pacing import Backoff

log = logging.getLogger("guestwire")

NAMESPACE: Final = "urn:guestwire"
"""Of a domain's metadata: `<vm xmlns="urn:guestwire" tags="web production"/>`."""

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 1.5
"""Seconds between two attempts to reach a libvirt that is not there, which may come back."""

LOOK_EVERY: Final = 60.0
"""Seconds after which all is listed again: an event may be lost while libvirt is started again."""

SOON: Final = 0.02
"""Seconds in which events are gathered: a start alone has four."""

LIST_WITHIN: Final = 20.0
CALL_WITHIN: Final = 300.0
"""Seconds: a start may take long."""

UNITS: Final = {
    "b": 1,
    "bytes": 1,
    "KB": 1000,
    "k": 1024,
    "KiB": 1024,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}
ACTIONS: Final = {
    "start": "create", "quit": "destroy", "system_powerdown": "shutdown", "system_reset": "reset", "stop": "suspend",
    "cont": "resume", "system_wakeup": "pMWakeup",
}  # fmt: skip
"""What QMP calls it, and libvirt; those without a word of QMP's have ours."""


class Domain(msgspec.Struct, frozen=True):
    """What libvirt says of a domain.

    `run_state` is what it does, in QEMU's words; None while it does not run. `agent_is_up` is libvirt's knowledge of the
    agent's port. `number` is another one after each start; None while it does not run.
    """

    uuid: str
    name: str
    run_state: str | None = None
    number: int | None = None
    has_agent: bool = False
    agent_is_up: bool = False
    description: str | None = None
    tags: tuple[str, ...] = ()
    facts: Facts = Facts()

    @property
    def is_running(self) -> bool:
        """True if it was started, also while it is paused or suspended."""
        return self.run_state is not None


class Figures(msgspec.Struct, frozen=True):
    """What libvirt says of a domain that runs: its use, its counters, and bytes that it received and sent."""

    usage: Usage
    counters: Counters
    received: int
    sent: int


def read_domain(xml: str, *, run_state: str | None) -> Domain:
    """Reads a domain's XML, as libvirt writes it."""
    root = ET.fromstring(xml)  # noqa: S314  # libvirt wrote it, after checking it
    channels = [
        target
        for channel in root.iterfind("devices/channel")
        if (target := channel.find("target")) is not None and target.get("name") == AGENT_PORT
    ]
    memory = root.find("memory")
    size = int(memory.text or 0) * UNITS.get(memory.get("unit", "KiB"), 1024) if memory is not None else 0
    macs = [mac.get("address", "").upper() for mac in root.iterfind("devices/interface/mac")]
    taps = [target.get("dev", "") for target in root.iterfind("devices/interface/target")]
    machine = root.find("os/type")
    metadata = root.find(f"metadata/{{{NAMESPACE}}}vm")
    tags = (metadata.get("tags", "") if metadata is not None else "").replace(";", " ").replace(",", " ").lower()
    return Domain(
        uuid=root.findtext("uuid", "").lower(),
        name=root.findtext("name", ""),
        run_state=run_state,
        number=int(number) if (number := root.get("id", "")).isdecimal() else None,
        has_agent=bool(channels),
        agent_is_up=any(target.get("state") == "connected" for target in channels),
        description=root.findtext("description") or root.findtext("title"),
        tags=tuple(tags.split()),
        facts=Facts(
            cpus=int(root.findtext("vcpu") or 0),
            memory=size,
            machine=machine.get("machine") if machine is not None else None,
            uuid=root.findtext("uuid"),
            mac_addresses=tuple(filter(None, macs[:MAX_DEVICES])),
            interfaces=tuple(filter(None, taps[:MAX_DEVICES])),
        ),
    )


class LibvirtSource:
    """Follows the domains of one libvirt. Must be made where an event loop runs, and closed.

    Args:
        uri: as virsh has it, for example `qemu:///system`.
        on_change: called when a domain has come, gone or changed.

    Attributes:
        domains: what is known now, by uuid.
        problem: why nothing is known, or not the newest; "" when all is well.
        resets: how often a domain was started anew, by uuid.

    Raises:
        ConfigurationError: libvirt's binding is not installed.
    """

    def __init__(self, uri: str, on_change: Callable[[], None]) -> None:
        self.uri = uri
        self.domains: dict[str, Domain] = {}
        self.problem = "it was not asked yet"
        self.resets: dict[str, int] = {}
        self.figures: dict[str, Figures] = {}
        """Of those that run, by uuid, as `measure` found them last."""
        self._measured_at = -COUNTERS_FRESH
        self._cpu_times: dict[str, int] = {}
        self._starts = None if urlsplit(uri).hostname else ProcessStarts()
        self._on_change = on_change
        self._libvirt = Libvirt(uri)
        self._loop = asyncio.get_running_loop()
        self._connection = LibvirtConnection(uri)
        """The one whose events are heard."""
        self._registered: list[tuple[Any, int]] = []
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._asked = asyncio.Event()
        self._task = self._loop.create_task(self._follow(), name=f"follow {uri}")

    async def listed(self) -> None:
        """Returns when it is known which domains there are, or why not."""
        try:
            async with asyncio.timeout(LIST_WITHIN):
                await self._asked.wait()
        except TimeoutError:
            self.problem = f"no answer in {LIST_WITHIN:g} seconds"
            self._asked.set()  # not waited for again, whatever else comes and goes

    async def measure(self) -> None:
        """Asks for the figures of all domains that run, in one call; not again within a second."""
        libvirt: Any = binding()
        passed = time.monotonic() - self._measured_at
        if passed < COUNTERS_FRESH:
            return
        self._measured_at = time.monotonic()
        wanted = ("STATE", "CPU_TOTAL", "BALLOON", "INTERFACE", "BLOCK")
        stats = sum(getattr(libvirt, f"VIR_DOMAIN_STATS_{name}") for name in wanted)
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        # A VM that is busy is not waited for.
        flags |= getattr(libvirt, "VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT", 0)
        try:
            found = await self._libvirt.run(lambda one: _stats(one, stats, flags))
        except libvirt.libvirtError:  # a driver without them, or a libvirt that is gone: the figures are not known
            self.figures = {}
            return
        before, self._cpu_times = self._cpu_times, {uuid: one.get("cpu.time", 0) for uuid, one in found.items()}
        # libvirt does not say when a domain was started; of this machine's, QEMU's process does.
        uptimes = await asyncio.to_thread(self._starts.uptimes, found) if self._starts else {}
        known, self.figures = self.figures, {}
        for uuid, one in found.items():
            if "balloon.rss" not in one and uuid in known:  # a busy VM says less
                one["balloon.rss"] = known[uuid].usage.memory // 1024
            used = max(self._cpu_times[uuid] - before.get(uuid, self._cpu_times[uuid]), 0) / 1e9
            domain = self.domains.get(uuid)
            pid, uptime = uptimes.get(uuid, (None, 0))
            cpu = used / passed / max(domain.facts.cpus if domain else 1, 1)
            self.figures[uuid] = _figures(one, Usage(pid, cpu, one.get("balloon.rss", 0) * 1024, uptime, {}))

    def channel(self, uuid: str, guest: str) -> LibvirtChannel:
        """A channel to a domain's agent; `guest` is its name in messages."""
        return LibvirtChannel(self._libvirt, uuid, guest)

    def ports(self, uuid: str, guest: str) -> LibvirtPorts:
        """The ports of our own in a domain; `guest` is its name in messages."""
        return LibvirtPorts(self._libvirt, uuid, guest)

    async def add_channel(self, uuid: str) -> tuple[bool, bool]:
        """Gives a domain a channel for its agent: True if it has it now, and if it has it at its next starts.

        A domain that runs takes none where it has no virtio-serial controller, which libvirt does not plug in.

        Raises:
            GuestError: libvirt's reason.
        """
        libvirt: Any = binding()

        def work(domain: Any) -> tuple[bool, bool]:
            now, later = bool(domain.isActive()), bool(domain.isPersistent())
            channel, config = LIBVIRT_CHANNEL.format(name=AGENT_PORT), libvirt.VIR_DOMAIN_AFFECT_CONFIG if later else 0
            try:
                domain.attachDeviceFlags(channel, config | (libvirt.VIR_DOMAIN_AFFECT_LIVE if now else 0))
            except libvirt.libvirtError as error:
                if not (now and later and "virtio-serial" in str(error)):
                    raise
                domain.attachDeviceFlags(channel, config)
                now = False
            return now, later

        done: tuple[bool, bool] = await self._call(uuid, work)
        # Its event comes, too; the caller need not wait for it.
        self.domains = {**self.domains, **await self._libvirt.run(partial(_look, self._connection, {uuid}))}
        return done

    async def act(self, uuid: str, action: str) -> None:
        """Does one of `ACTIONS` to a domain.

        Raises:
            GuestError: libvirt's reason.
        """
        await self._call(uuid, lambda domain: getattr(domain, ACTIONS[action])())

    async def ask_agent(self, uuid: str, mode: str) -> None:
        """Has a guest's agent shut it down (`powerdown`) or start it anew (`reboot`).

        Raises:
            GuestError: libvirt's reason.
        """
        libvirt: Any = binding()

        def work(domain: Any) -> None:
            if mode == "reboot":
                domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)
            else:
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)

        await self._call(uuid, work)

    async def is_asleep(self, uuid: str) -> bool:
        """True if its guest is suspended, and can be woken."""
        libvirt: Any = binding()
        return bool(await self._call(uuid, lambda domain: domain.state()[0] == libvirt.VIR_DOMAIN_PMSUSPENDED))

    async def close(self) -> None:
        """Follows no more, and ends its connections."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        registered, self._registered = self._registered, []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):  # a daemon that hangs keeps nobody from ending
                await self._libvirt.run(lambda _: _deregister(registered))
        self._connection.close()
        self._libvirt.close()

    async def _call(self, uuid: str, work: Callable[[Any], Any]) -> Any:
        libvirt: Any = binding()
        try:
            async with asyncio.timeout(CALL_WITHIN):
                return await self._libvirt.run_in_guest(lambda connection: work(connection.domain(uuid)))
        except TimeoutError:
            raise GuestError(f"libvirt did not answer in {CALL_WITHIN:g} seconds") from None
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED:
                raise GuestError(READ_ONLY) from error
            raise GuestError(str(error.get_error_message() or error)) from error

    # Following

    async def _follow(self) -> None:
        libvirt: Any = binding()
        pauses = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                await self._libvirt.run(lambda _: self._subscribe())
                if self.problem:
                    log.info("libvirt %s: connected", self.uri)
                self.problem = ""
                pauses.reset()
                await self._list_and_heed()
            except libvirt.libvirtError as error:
                problem = str(error.get_error_message() or error)
                if not self.problem:  # whoever wanted it at first is told by `problem`
                    log.warning("libvirt %s: %s", self.uri, problem)
                self.problem = problem
                self._asked.set()
            except Exception:  # one odd domain must not end what follows the others
                log.exception("libvirt %s: unexpected error", self.uri)
                self.problem = "unexpected error, see the log"
                self._asked.set()
            await asyncio.sleep(pauses.next())

    async def _list_and_heed(self) -> None:
        """Lists all, and then what events name; returns when the connection is lost, or all is to be listed again."""
        self._changed.clear()
        before, self.domains = self.domains, await self._libvirt.run(lambda _: _list(self._connection.open()))
        self.problem = ""
        self._asked.set()
        if self.domains != before:
            self._on_change()
        listed = time.monotonic()
        while time.monotonic() - listed < LOOK_EVERY:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_PAUSE):
                    await self._wake.wait()
                    await asyncio.sleep(SOON)
            if not await self._libvirt.run(lambda _: self._is_alive()):
                self._registered.clear()
                return
            changed, self._changed = self._changed, set()
            if changed:
                found = await self._libvirt.run(partial(_look, self._connection, changed))
                self.domains = {
                    **{uuid: domain for uuid, domain in self.domains.items() if uuid not in changed},
                    **found,
                }
                self._on_change()

    def _is_alive(self) -> bool:
        heard = self._registered[0][0] if self._registered else self._connection.open()
        return bool(heard.isAlive())

    def _subscribe(self) -> None:
        """In a thread. Some drivers have not all of the events."""
        libvirt: Any = binding()
        connection = self._connection.open()
        if self._registered and self._registered[0][0] is connection:
            return
        self._registered = []

        def heard(_connection: Any, domain: Any, *_details: Any) -> None:
            self._hear(domain.UUIDString())

        def rebooted(_connection: Any, domain: Any, *_details: Any) -> None:
            self._hear(domain.UUIDString(), resets=1)

        wanted = {
            "LIFECYCLE": heard,
            "AGENT_LIFECYCLE": heard,
            "METADATA_CHANGE": heard,
            "DEVICE_ADDED": heard,
            "DEVICE_REMOVED": heard,
            "REBOOT": rebooted,
        }
        for name, callback in wanted.items():
            kind = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{name}")
            with contextlib.suppress(libvirt.libvirtError):
                self._registered.append((connection, connection.domainEventRegisterAny(None, kind, callback, None)))

    def _hear(self, uuid: str, *, resets: int = 0) -> None:
        """In libvirt's thread."""

        def note() -> None:
            self.resets[uuid] = self.resets.get(uuid, 0) + resets
            self._changed.add(uuid)
            self._wake.set()

        with contextlib.suppress(RuntimeError):  # the loop may be closed
            self._loop.call_soon_threadsafe(note)


def _deregister(registered: list[tuple[Any, int]]) -> None:
    libvirt: Any = binding()
    for connection, number in registered:
        with contextlib.suppress(libvirt.libvirtError):
            connection.domainEventDeregisterAny(number)


def _list(connection: Any) -> dict[str, Domain]:
    libvirt: Any = binding()

    def domains(kind: str) -> Any:
        return connection.listAllDomains(getattr(libvirt, f"VIR_CONNECT_LIST_DOMAINS_{kind}"))

    # Asked once for all: most domains run.
    states = {domain.UUIDString(): "paused" for domain in domains("PAUSED")}
    for domain in domains("OTHER"):
        with contextlib.suppress(libvirt.libvirtError):  # it has gone meanwhile
            states[domain.UUIDString()] = _state(domain)
    found = {}
    for kind, state in (("ACTIVE", "running"), ("INACTIVE", None)):
        for domain in domains(kind):
            with contextlib.suppress(libvirt.libvirtError):
                read = read_domain(domain.XMLDesc(), run_state=state and states.get(domain.UUIDString(), state))
                found[read.uuid] = read
    return found


def _state(domain: Any) -> str:
    """In QEMU's words, of one that runs."""
    libvirt: Any = binding()
    names = {libvirt.VIR_DOMAIN_PAUSED: "paused", libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended"}
    return names.get(domain.state()[0], "running")


def _stats(connection: LibvirtConnection, stats: int, flags: int) -> dict[str, dict[str, Any]]:
    return {domain.UUIDString(): found for domain, found in connection.open().getAllDomainStats(stats, flags)}


def _figures(found: dict[str, Any], usage: Usage) -> Figures:
    """Source: virConnectGetAllDomainStats; memory is in KiB there."""
    libvirt: Any = binding()
    interfaces = range(min(found.get("net.count", 0), MAX_DEVICES))
    blocks = {
        str(found.get(f"block.{number}.name", number)): {
            "rd_bytes": found.get(f"block.{number}.rd.bytes", 0), "wr_bytes": found.get(f"block.{number}.wr.bytes", 0),
            "rd_operations": found.get(f"block.{number}.rd.reqs", 0), "wr_operations": found.get(f"block.{number}.wr.reqs", 0),
        }
        for number in range(min(found.get("block.count", 0), MAX_DEVICES))
    }  # fmt: skip
    is_paused = found.get("state.state") == libvirt.VIR_DOMAIN_PAUSED
    return Figures(
        usage=usage,
        counters=Counters("paused" if is_paused else "running", blocks),
        received=sum(found.get(f"net.{number}.rx.bytes", 0) for number in interfaces),
        sent=sum(found.get(f"net.{number}.tx.bytes", 0) for number in interfaces),
    )


def _look(connection: LibvirtConnection, uuids: set[str], _pooled: LibvirtConnection) -> dict[str, Domain]:
    libvirt: Any = binding()
    found = {}
    for uuid in uuids:
        try:
            domain = connection.open().lookupByUUIDString(uuid)
            found[uuid] = read_domain(domain.XMLDesc(), run_state=_state(domain) if domain.isActive() else None)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found


def merged(sources: Mapping[str, LibvirtSource]) -> dict[str, tuple[LibvirtSource, Domain]]:
    """The domains of all, by uuid; of one that two have, the first counts."""
    in_order = reversed(list(sources.values()))
    return {uuid: (source, domain) for source in in_order for uuid, domain in source.domains.items()}
