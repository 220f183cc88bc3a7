"""One poll of a guest: the agent's answers as series, bounded, for the guest is hostile."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Flag, auto
from itertools import islice
from typing import Final

from guestwire.agent import commands as qga
from guestwire.agent.readers import Read
from guestwire.agent.results import CpuStats, DiskStats, FileSystem, Interface

SECTOR: Final = 512
MOST_OF_A_KIND: Final = 200
"""File systems, disks, interfaces, drivers, processors of one guest that are shown."""

LONGEST_LABEL: Final = 200

MODES: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")

INTERFACE_COUNTERS: Final = {
    f"network_{way}_{name}_total": f"{short}_{field}"
    for way, short in (("receive", "rx"), ("transmit", "tx"))
    for name, field in (("bytes", "bytes"), ("packets", "packets"), ("errs", "errs"), ("drop", "dropped"))
}

DISK_COUNTERS: Final = {
    "disk_read_bytes_total": ("read_sectors", SECTOR),
    "disk_written_bytes_total": ("write_sectors", SECTOR),
    "disk_reads_completed_total": ("read_ios", 1),
    "disk_writes_completed_total": ("write_ios", 1),
}

Labels = tuple[tuple[str, str], ...]


class Group(Flag):
    """What is read together, in its own rhythm."""

    LOAD = auto()
    """Processors, load, disks, network."""
    SPACE = auto()
    """File systems."""
    SYSTEM = auto()
    """System, users, clock, drivers."""

    ALL = LOAD | SPACE | SYSTEM


@dataclass(slots=True)
class Reading:
    """The series of one guest by the names of their families: labels and values."""

    series: dict[str, list[tuple[Labels, float]]] = field(default_factory=dict)
    _known: set[tuple[str, Labels]] = field(default_factory=set)

    def add(self, name: str, value: float | None, **labels: object) -> None:
        """Adds a series; a value that is not known, no number, or no count for a counter, is left out.

        So is one whose labels, as they are written, another has: the pages may have each series once.
        """
        found = self.series.setdefault(name, [])
        if value is None or not math.isfinite(value) or len(found) >= MOST_OF_A_KIND * len(MODES):
            return
        if value < 0 and name.endswith("_total"):
            return
        written = tuple((label, _label(text)) for label, text in labels.items())
        if (name, written) not in self._known:
            self._known.add((name, written))
            found.append((written, value))

    def __iter__(self) -> Iterator[tuple[str, list[tuple[Labels, float]]]]:
        return iter(self.series.items())


def _label(text: object) -> str:
    """Half characters, which JSON can carry and UTF-8 can't, become question marks."""
    return str(text)[:LONGEST_LABEL].encode("utf-8", "replace").decode()


async def read_guest(read: Read, groups: Group = Group.ALL) -> Reading:
    """Polls a guest.

    Raises:
        GuestError: its agent does not answer.
    """
    reading = Reading()
    if Group.LOAD in groups:
        if load := await read(qga.GET_LOAD):
            for minutes in ("1", "5", "15"):
                reading.add(f"load{minutes}", getattr(load, f"load{minutes}m"))
        _add_processors(reading, await read(qga.GET_CPUSTATS) or ())
        _add_disks(reading, await read(qga.GET_DISKSTATS) or ())
        _add_interfaces(reading, await read(qga.NETWORK_GET_INTERFACES) or ())
    if Group.SPACE in groups:
        _add_file_systems(reading, await read(qga.GET_FSINFO) or ())
    if Group.SYSTEM in groups:
        await _add_system(reading, read)
    return reading


def _add_processors(reading: Reading, found: Iterable[CpuStats]) -> None:
    for one in islice(found, MOST_OF_A_KIND):
        for mode in MODES:
            spent = getattr(one, mode)
            reading.add("cpu_seconds_total", None if spent is None else spent / 1000, cpu=one.cpu, mode=mode)


def _add_disks(reading: Reading, found: Iterable[DiskStats]) -> None:
    for one in islice(found, MOST_OF_A_KIND):
        for name, (counter, factor) in DISK_COUNTERS.items():
            count = getattr(one.stats, counter)
            reading.add(name, None if count is None else count * factor, device=one.name)


def _add_interfaces(reading: Reading, found: Iterable[Interface]) -> None:
    for one in islice(found, MOST_OF_A_KIND):
        for name, counter in INTERFACE_COUNTERS.items():
            reading.add(name, getattr(one.statistics, counter, None), device=one.name)


def _add_file_systems(reading: Reading, found: Iterable[FileSystem]) -> None:
    seen = set()
    for one in islice(found, MOST_OF_A_KIND):
        if one.mountpoint in seen:  # mounted over: only the last one is seen in the guest, and two series can't be one
            continue
        seen.add(one.mountpoint)
        labels = {"mountpoint": one.mountpoint, "fstype": one.type, "device": one.name}
        reading.add("filesystem_size_bytes", one.total_bytes, **labels)
        reading.add("filesystem_used_bytes", one.used_bytes, **labels)
        if one.total_bytes is not None and one.used_bytes is not None:
            reading.add("filesystem_avail_bytes", max(one.total_bytes - one.used_bytes, 0), **labels)


async def _add_system(reading: Reading, read: Read) -> None:
    if info := await read(qga.INFO):
        reading.add("agent_info", 1, version=info.version)
    if system := await read(qga.GET_OSINFO):
        names = {
            "os": system.id,
            "version_id": system.version_id,
            "kernel_release": system.kernel_release,
            "machine": system.machine,
        }
        reading.add("os_info", 1, **{name: text or "" for name, text in names.items()})
    users = await read(qga.GET_USERS)
    reading.add("users", None if users is None else len(users))
    vcpus = await read(qga.GET_VCPUS)
    reading.add("vcpus_online", None if vcpus is None else sum(one.online for one in vcpus))
    before = time.time()
    if clock := await read(qga.GET_TIME):
        reading.add("time_offset_seconds", clock / 1e9 - (before + time.time()) / 2)
    dates: dict[tuple[str, str], int] = {}
    for one in islice(await read(qga.GET_DEVICES) or (), MOST_OF_A_KIND):
        if one.driver_date is not None:
            dates[one.driver_name, one.driver_version or ""] = one.driver_date
    for (driver, version), date in dates.items():
        reading.add("device_driver_date_seconds", date / 1e9, driver=driver, version=version)
