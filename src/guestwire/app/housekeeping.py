"""What has to be done from time to time: new signing keys, old audit records."""

import asyncio
import logging
import time
from typing import Final

from guestwire.access.control import Access
from guestwire.errors import StoreError
from guestwire.inventory import AuditConfig
from guestwire.stores import AuditLog

EVERY: Final = 600.0
"""Seconds."""

DAY: Final = 24 * 3600

log = logging.getLogger("guestwire")


async def keep_house(access: Access, audit: AuditLog, config: AuditConfig) -> None:
    """Does it now and every ten minutes, until it is cancelled."""
    while True:
        try:
            await access.rotate_keys()
            gone = await audit.prune_audit(before=await _oldest_kept(audit, config), max_rows=config.keep_records)
            if gone:
                log.info("%d old audit records are gone", gone)
        except StoreError as error:
            log.error("housekeeping: %s", error)  # noqa: TRY400  # the text says it all
        except Exception:
            log.exception("housekeeping failed; it is tried again in %g seconds", EVERY)
        await asyncio.sleep(EVERY)


async def _oldest_kept(audit: AuditLog, config: AuditConfig) -> float:
    """Counted from the newest record where that is older than now: a clock that jumped must not empty the trail."""
    last = await audit.audit(limit=1)
    now = min([time.time(), *(record.time for record in last)])
    return now - config.keep_days * DAY
