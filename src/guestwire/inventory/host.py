"""This machine's load and state, as `GET /nodes` and `GET /nodes/{node}/status` show them. Linux; what can't be read is left out."""

import contextlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from guestwire.contract import HostFigures
from guestwire.contract.context import Kernel, Memory, NodeStatus, Processors, Space

DISK: Final = "/"
SHORTEST: Final = 1.0
"""Seconds that a share of processor time is measured over at least."""

IDLE: Final = 3
WAIT: Final = 4
"""Columns of `/proc/stat`."""

_flag_of_virtualization = re.compile(r"\b(vmx|svm)\b")


class HostLoad:
    """Reads the figures; the processors' load is that since the reading before, or since the machine's start."""

    def __init__(self) -> None:
        self._before: tuple[int, ...] = (0,) * 8
        self._share = self._waiting = 0.0
        self._read_at = -SHORTEST

    def read(self) -> HostFigures:
        """The figures now. Blocks for a moment."""
        memory, disk = _memory(), shutil.disk_usage(DISK)
        self._measure()
        return HostFigures(
            cpu=self._share,
            maxcpu=os.cpu_count(),
            mem=memory.get("MemTotal", 0) - memory.get("MemAvailable", 0),
            maxmem=memory.get("MemTotal"),
            disk=disk.used,
            maxdisk=disk.total,
            uptime=int(boot_seconds()),
        )

    def status(self) -> NodeStatus:
        """The whole state now. Blocks for a moment."""
        memory, disk, kernel = _memory(), os.statvfs(DISK), os.uname()
        self._measure()
        total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
        swap, free_swap = memory.get("SwapTotal", 0), memory.get("SwapFree", 0)
        return NodeStatus(
            uptime=int(boot_seconds()),
            cpu=self._share,
            wait=self._waiting,
            loadavg=tuple(f"{load:.2f}" for load in os.getloadavg()),
            cpuinfo=_processors(),
            memory=Memory(total=total, used=total - available, free=memory.get("MemFree", 0), available=available),
            swap=Space(total=swap, used=swap - free_swap, free=free_swap),
            rootfs=Space(
                total=disk.f_blocks * disk.f_frsize,
                used=(disk.f_blocks - disk.f_bfree) * disk.f_frsize,
                free=disk.f_bfree * disk.f_frsize,
                avail=disk.f_bavail * disk.f_frsize,
            ),
            kernel=Kernel(kernel.sysname, kernel.release, kernel.version, kernel.machine),
            kversion=f"{kernel.sysname} {kernel.release} {kernel.version}",
            boot={"mode": "efi" if Path("/sys/firmware/efi").is_dir() else "legacy-bios"},
        )

    def _measure(self) -> None:
        now = time.monotonic()
        if now - self._read_at < SHORTEST:
            return
        with contextlib.suppress(OSError, ValueError):
            ticks = tuple(int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
            passed = [after - before for after, before in zip(ticks, self._before, strict=True)]
            if (total := sum(passed)) > 0:
                self._waiting = max(passed[WAIT], 0) / total
                self._share = max(1 - max(passed[IDLE] + passed[WAIT], 0) / total, 0.0)
            self._before, self._read_at = ticks, now


def boot_seconds() -> float:
    """Seconds since this machine was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def own_address() -> str:
    """The address that others reach this machine at: that of its host name, else of the way out. May ask a name server."""
    with contextlib.suppress(OSError):
        found = socket.gethostbyname(socket.gethostname())
        if not found.startswith("127."):
            return found
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; the kernel says which address it would send from
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def _processors() -> Processors:
    text = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(errors="replace")

    def values(name: str) -> list[str]:
        return re.findall(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)

    def first(name: str) -> str:
        return next(iter(values(name)), "")

    cpus = os.cpu_count() or 1
    sockets = len(set(values("physical id"))) or 1
    cores = len(set(zip(values("physical id"), values("core id"), strict=False))) or cpus
    return Processors(
        cpus=cpus,
        cores=cores,
        sockets=sockets,
        model=first("model name"),
        mhz=first("cpu MHz"),
        vendor=first("vendor_id"),
        family=first("cpu family"),
        flags=first("flags"),
        hvm="1" if _flag_of_virtualization.search(first("flags")) else "",
        user_hz=os.sysconf("SC_CLK_TCK"),
    )


def _memory() -> dict[str, int]:
    """Bytes by name."""

    def pairs() -> Iterator[tuple[str, int]]:
        with contextlib.suppress(OSError):
            for line in Path("/proc/meminfo").read_text().splitlines():
                name, _, rest = line.partition(":")
                yield name, int(rest.split()[0]) * 1024

    return dict(pairs())
