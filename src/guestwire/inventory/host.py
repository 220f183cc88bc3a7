"""The load of this machine, as `GET /nodes` shows it. Linux; what can't be read is left out."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from guestwire.contract import HostFigures

DISK = "/"
SHORTEST = 1.0
"""Seconds that a share of processor time is measured over at least."""


class HostLoad:
    """Reads the figures; the processors' load is that since the reading before, or since the machine's start."""

    def __init__(self) -> None:
        self._before = 0, 0
        self._share = 0.0
        self._read_at = -SHORTEST

    def read(self) -> HostFigures:
        """The figures now. Blocks for a moment."""
        memory, disk = _memory(), shutil.disk_usage(DISK)
        return HostFigures(
            cpu=self._cpu(),
            maxcpu=os.cpu_count(),
            mem=memory.get("MemTotal", 0) - memory.get("MemAvailable", 0),
            maxmem=memory.get("MemTotal"),
            disk=disk.used,
            maxdisk=disk.total,
            uptime=int(time.clock_gettime(time.CLOCK_BOOTTIME)),
        )

    def _cpu(self) -> float:
        now = time.monotonic()
        if now - self._read_at >= SHORTEST:
            with contextlib.suppress(OSError, ValueError):
                ticks = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
                idle, total = ticks[3] + ticks[4], sum(ticks)
                idle_before, total_before = self._before
                if total > total_before:
                    self._share = 1 - max(idle - idle_before, 0) / (total - total_before)
                self._before, self._read_at = (idle, total), now
        return max(self._share, 0.0)


def _memory() -> dict[str, int]:
    """Bytes by name."""

    def pairs() -> Iterator[tuple[str, int]]:
        with contextlib.suppress(OSError):
            for line in Path("/proc/meminfo").read_text().splitlines():
                name, _, rest = line.partition(":")
                yield name, int(rest.split()[0]) * 1024

    return dict(pairs())
