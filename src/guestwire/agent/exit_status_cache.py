"""Results of ended processes, kept for a while.

A guest agent forgets a process the moment its end was read, and an HTTP answer can get lost.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from guestwire.agent.results import ProcessStatus

KEEP_FOR: Final = 600.0
"""Seconds."""

KEEP_BYTES: Final = 32 * 1024 * 1024
"""Bytes of output in all, for all guests; the latest result is kept whatever its size."""

ENTRY_COST: Final = 512

Key = tuple[str, int]


class ExitStatusCache:
    """Bounded by age and size, oldest first; one for all guests.

    Args:
        clock: seconds; another one in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._results: OrderedDict[Key, tuple[float, ProcessStatus]] = OrderedDict()
        self._bytes = 0

    def put(self, guest: str, pid: int, status: ProcessStatus) -> None:
        """Keeps the result of the guest's process `pid`."""
        self.drop(guest, pid)
        self._results[guest, pid] = (self._clock(), status)
        self._bytes += _cost(status)
        self._forget_old()

    def get(self, guest: str, pid: int) -> ProcessStatus | None:
        """The result, when it is still kept."""
        self._forget_old()
        found = self._results.get((guest, pid))
        return found[1] if found else None

    def drop(self, guest: str, pid: int) -> None:
        """Forgets one: the guest has given its pid to another process."""
        if found := self._results.pop((guest, pid), None):
            self._bytes -= _cost(found[1])

    def _forget_old(self) -> None:
        oldest_kept = self._clock() - KEEP_FOR
        while self._results:
            (guest, pid), (kept_at, _) = next(iter(self._results.items()))
            too_much = self._bytes > KEEP_BYTES and len(self._results) > 1
            if kept_at >= oldest_kept and not too_much:
                return
            self.drop(guest, pid)


def _cost(status: ProcessStatus) -> int:
    return ENTRY_COST + len(status.out_data or b"") + len(status.err_data or b"")
