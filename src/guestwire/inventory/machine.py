"""One VM as QEMU and the kernel see it: QMP says what it is, `/proc` what its process uses.

A guest may have taken its QEMU over. What that answers is checked: it must not spoil the lists that other VMs are in.

Both are asked when a list is made, and not again for a while; what a VM was while it ran is known after its end, too.
"""

import asyncio
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from guestwire.channels.agent_port import AGENT_PORT
from guestwire.errors import MonitorError
from guestwire.inventory.host import boot_seconds

if TYPE_CHECKING:
    from guestwire.channels.qmp import Monitor

FACTS_FRESH: Final = 30.0
COUNTERS_FRESH: Final = 1.0
"""Seconds after which they are asked for again."""

TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

MAX_DEVICES: Final = 64
"""Disks and interfaces of one VM that are looked at."""

CHARDEV: Final = "guestwire-agent"

PRESSURES: Final = {"cpu": "cpu.pressure", "io": "io.pressure", "memory": "memory.pressure"}

_interface = re.compile(r"\bifname=([^,\s]{1,15})")
_mac = re.compile(r"\bmacaddr=([0-9a-fA-F:]{17})")
_machine = re.compile(r"[\w.+-]{1,64}", re.ASCII)
_status = re.compile(r"[a-z-]{1,32}")
_average = re.compile(r"^(some|full) avg10=([0-9.]+)", re.MULTILINE)


T = TypeVar("T")
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Word = Annotated[str, Meta(pattern=r"^[!-~]{1,128}$")]


class Image(msgspec.Struct, rename="kebab"):
    """Of `query-block`, as what follows."""

    virtual_size: Count = 0


class Medium(msgspec.Struct):
    """What is in a drive."""

    ro: bool = True
    image: Image = msgspec.field(default_factory=Image)


class Drive(msgspec.Struct):
    """A disk, or a drive for one."""

    removable: bool = False
    inserted: Medium | None = None

    @property
    def size(self) -> int:
        """In bytes; 0 of what can't be written."""
        return 0 if self.removable or self.inserted is None or self.inserted.ro else self.inserted.image.virtual_size


class Release(msgspec.Struct):
    """Of `query-version`."""

    major: Count
    minor: Count
    micro: Count


class DriveStats(msgspec.Struct, rename="kebab"):
    """Of `query-blockstats`."""

    device: str = ""
    node_name: str = ""
    qdev: str = ""
    stats: dict[Word, Any] = msgspec.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The one by which it is known; "": it has none."""
        name = self.device or self.node_name or self.qdev
        return name.encode("utf-8", "backslashreplace").decode()[:128].removeprefix("drive-")

    @property
    def figures(self) -> dict[str, Any]:
        """Numbers, and lists that are empty."""
        return {
            name: value
            for name, value in list(self.stats.items())[:MAX_DEVICES]
            if (isinstance(value, int) and value.bit_length() < 64) or value == []  # noqa: PLR2004  # as JSON's readers have
        }


class Facts(msgspec.Struct, frozen=True):
    """What seldom changes; 0 and None: not known. `disk` is the size of the first one that can be written."""

    cpus: int = 0
    memory: int = 0
    disk: int = 0
    version: str | None = None
    machine: str | None = None
    uuid: str | None = None
    mac_addresses: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    """Of the host, behind the VM's own."""


class Counters(msgspec.Struct, frozen=True):
    """QEMU's run state, and its counters by device."""

    status: str = "running"
    blocks: dict[str, dict[str, Any]] = {}

    def total(self, name: str) -> int:
        """The sum of a counter over all devices."""
        return sum(int(stats.get(name, 0)) for stats in self.blocks.values())


class Usage(msgspec.Struct, frozen=True):
    """What the process of a VM uses: a share of the VM's processors, bytes, seconds since its start (0: not known), percent."""

    pid: int | None
    cpu: float
    memory: int
    uptime: int
    pressure: dict[str, float]


class Machine:
    """Asks for one VM; `monitor` belongs to its maker."""

    def __init__(self, monitor: "Monitor") -> None:
        self.facts = Facts()
        self.counters = Counters()
        self._monitor = monitor
        self._facts_at = self._counters_at = float("-inf")
        self._turn = asyncio.Lock()
        self._ticks: tuple[int, int, float] | None = None
        """Of which process, how many, when."""
        self._share = 0.0

    async def refresh(self, *, counters: bool) -> None:
        """Asks again what is too old; what QEMU does not say stays as it was."""
        async with self._turn:
            now = time.monotonic()
            if now - self._facts_at >= FACTS_FRESH:
                self.facts, self._facts_at = await self._ask_facts(), now
            if counters and now - self._counters_at >= COUNTERS_FRESH:
                self.counters, self._counters_at = await self._ask_counters(), now

    async def _ask(self, command: str, shape: type[T], default: T, **arguments: object) -> T:
        try:
            return msgspec.convert(await self._monitor.execute(command, arguments or None), shape)
        except (MonitorError, msgspec.ValidationError, ValueError):
            return default  # another client's socket, or an old or odd QEMU: it is not known

    async def _ask_facts(self) -> Facts:
        processors = await self._ask("query-cpus-fast", list[Any], [])
        if not processors:
            return self.facts
        memory = await self._ask("query-memory-size-summary", dict[str, Count], {})
        disks = await self._ask("query-block", list[Drive], [])
        release = (await self._ask("query-version", dict[str, Any], {})).get("qemu")
        uuid = (await self._ask("query-uuid", dict[str, Word], {})).get("UUID")
        machine = await self._ask("qom-get", str, "", path="/machine", property="type")
        network = await self._ask("human-monitor-command", str, "", **{"command-line": "info network"})
        return Facts(
            cpus=len(processors),
            memory=memory.get("base-memory", 0) + memory.get("plugged-memory", 0),
            disk=next(filter(None, (disk.size for disk in disks[:MAX_DEVICES])), 0),
            version=_version(release),
            machine=machine.removesuffix("-machine") if _machine.fullmatch(machine) else None,
            uuid=uuid,
            mac_addresses=tuple(mac.upper() for mac in _mac.findall(network)[:MAX_DEVICES]),
            interfaces=tuple(_interface.findall(network)[:MAX_DEVICES]),
        )

    async def _ask_counters(self) -> Counters:
        status = (await self._ask("query-status", dict[str, Any], {})).get("status", "running")
        blocks = await self._ask("query-blockstats", list[DriveStats], [])
        return Counters(
            status if _status.fullmatch(str(status)) else "running",
            {one.name: one.figures for one in blocks[:MAX_DEVICES] if one.name},
        )

    async def add_agent_channel(self, path: Path) -> None:
        """Plugs a guest agent's channel into the running VM, with a socket of the host at `path`.

        Raises:
            MonitorError: QEMU refuses; the socket is gone again then.
        """
        address = {"type": "unix", "data": {"path": str(path)}}
        backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
        await self._monitor.execute("chardev-add", {"id": CHARDEV, "backend": backend})
        port = {"driver": "virtserialport", "id": f"{CHARDEV}-port", "chardev": CHARDEV, "name": AGENT_PORT}
        try:
            try:
                await self._monitor.execute("device_add", port)
            except MonitorError as error:
                if "virtio-serial-bus" not in error.why:
                    raise
                await self._monitor.execute("device_add", {"driver": "virtio-serial-pci", "id": f"{CHARDEV}-bus"})
                await self._monitor.execute("device_add", port)
        except (MonitorError, asyncio.CancelledError):
            await self._ask("chardev-remove", object, None, id=CHARDEV)
            raise

    def usage(self) -> Usage | None:
        """What its process uses now; None where it is not known. Reads files of the kernel's: for a thread."""
        pid = self._monitor.pid
        if pid is None:
            return None
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return None
        ticks, started = int(fields[11]) + int(fields[12]), int(fields[19]) / TICKS
        now = boot_seconds()
        _, ticks_before, before = self._ticks if self._ticks and self._ticks[0] == pid else (pid, 0, started)
        if now - before >= COUNTERS_FRESH:
            self._share = (ticks - ticks_before) / TICKS / (now - before)
            self._ticks = pid, ticks, now
        return Usage(
            pid=pid,
            cpu=self._share / max(self.facts.cpus, 1),
            memory=pages * PAGE,
            uptime=int(now - started),
            pressure=_pressure(pid),
        )


def _version(release: Any) -> str | None:
    try:
        found = msgspec.convert(release, Release)
    except msgspec.ValidationError:
        return None
    return f"{found.major}.{found.minor}.{found.micro}"


def _pressure(pid: int) -> dict[str, float]:
    """The stalls of the process's own control group in the last ten seconds; 0 where it has none, as in Proxmox VE."""
    found = {f"pressure{name}{kind}": 0.0 for name in PRESSURES for kind in ("some", "full")}
    try:
        group = Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::")[2].splitlines()[0]
        if group != "/":
            for name, file in PRESSURES.items():
                text = Path(f"/sys/fs/cgroup{group}/{file}").read_text()
                found |= {f"pressure{name}{kind}": float(value) for kind, value in _average.findall(text)}
    except (OSError, ValueError, IndexError):
        pass  # no such kernel, or no such group
    return found


def traffic(interfaces: tuple[str, ...], table: str) -> tuple[int, int]:
    """Bytes that a VM received and sent, from the text of `/proc/net/dev`: what the host sends there, the VM receives."""
    received = sent = 0
    for line in table.splitlines():
        name, colon, figures = line.strip().partition(":")
        if colon and name in interfaces:
            columns = figures.split()
            received, sent = received + int(columns[8]), sent + int(columns[0])
    return received, sent
