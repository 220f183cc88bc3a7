"""What has to be done from time to time: new signing keys, old audit records.

The age of a record is a difference of clock readings, and a clock can be wrong: a machine that starts without one, a
hand that sets it, a time server that lies. Old records go only while the clock has moved on plausibly (`ClockWatch`), so
that one wrong reading does not cost the trail.
"""

import asyncio
import logging
import time
from typing import Final

from guestwire.access.control import Access
from guestwire.counting import counted
from guestwire.errors import StoreError
from guestwire.inventory import AuditConfig
from guestwire.stores import AuditLog

EVERY: Final = 600.0
"""Seconds."""

DAY: Final = 24 * 3600

JUMP: Final = 600.0
"""Seconds that the clock may move ahead of the time that has passed: what setting it right after a start takes."""

GAP: Final = 7 * DAY
"""Seconds from the newest record to a start; after a longer pause the clock has to prove itself, too."""

PROOF: Final = DAY
"""Seconds without a jump, after which the clock is believed."""

log = logging.getLogger("guestwire")


class ClockWatch:
    """Says whether the clock can be believed.

    Args:
        newest: time of the newest record at the start; None when there is none.
        clock: seconds since the epoch, at the start.
        passed: seconds of a clock that nobody sets, at the start.
    """

    def __init__(self, newest: float | None, clock: float, passed: float) -> None:
        self._offset = clock - passed
        self._doubted_since = passed if newest is not None and clock - newest > GAP else None

    def is_plausible(self, clock: float, passed: float) -> bool:
        """True while the clock moves on as time passes; after a jump ahead, once it has done so for a day."""
        offset = clock - passed
        if offset - self._offset > JUMP:
            self._doubted_since = passed
        # What was set back is a clock put right, for all that matters here: it makes records younger.
        self._offset = offset
        if self._doubted_since is not None and passed - self._doubted_since >= PROOF:
            self._doubted_since = None
        return self._doubted_since is None


async def keep_house(access: Access, audit: AuditLog, config: AuditConfig) -> None:
    """Does it now and every ten minutes, until it is cancelled."""
    watch: ClockWatch | None = None
    while True:
        try:
            await access.rotate_keys()
            newest = max((record.time for record in await audit.audit(limit=1)), default=None)
            now, passed = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
            watch = watch or ClockWatch(newest, now, passed)
            oldest = oldest_kept(newest, now, config.keep_days) if watch.is_plausible(now, passed) else 0.0
            gone = await audit.prune_audit(before=oldest, max_rows=config.keep_records)
            if gone:
                log.info("%s gone", counted(gone, "old audit record is", "old audit records are"))
        except StoreError as error:
            log.error("housekeeping: %s", error)  # noqa: TRY400  # the text says it all
        except Exception:
            log.exception("housekeeping failed; it is tried again in %g seconds", EVERY)
        await asyncio.sleep(EVERY)


def oldest_kept(newest: float | None, now: float, keep_days: int) -> float:
    """Seconds since the epoch; counted from the newest record where that is older than now.

    A trail that nobody adds to keeps its last days.
    """
    return min(now, newest if newest is not None else now) - keep_days * DAY
