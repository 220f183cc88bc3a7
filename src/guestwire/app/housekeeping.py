"""What has to be done from time to time: new signing keys, old audit records."""

import asyncio
import logging
import time
from typing import Final

from guestwire.access import Access
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
            gone = await audit.prune_audit(before=time.time() - config.keep_days * DAY, max_rows=config.keep_records)
            if gone:
                log.info("%d old audit records are gone", gone)
        except StoreError as error:
            log.error("housekeeping: %s", error)  # noqa: TRY400  # the text says it all
        await asyncio.sleep(EVERY)
