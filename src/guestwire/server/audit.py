"""The audit trail: one record for each call that changes a guest or access, and for each refusal.

A record is on the disk before the call's answer is sent, so that no answered change is missing from it. Records that come
together are written together: a hundred clients cost one commit and not a hundred.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from guestwire.contract import Effect, Endpoint
from guestwire.stores import AuditLog, AuditRecord

log = logging.getLogger("guestwire.audit")

AT_ONCE: Final = 500
REFUSALS: Final = frozenset({401, 403})

Sink = Callable[[Sequence[AuditRecord]], None]
"""Takes records after the store, for instance to a file of lines. May block: it is called in a thread."""


def is_audited(endpoint: Endpoint | None, status: int) -> bool:
    """Whether a call to this endpoint (None: to none that there is) with this outcome leaves a record."""
    return status in REFUSALS or (endpoint is not None and endpoint.effect is not Effect.READS)


class Trail:
    """Writes records, one batch at a time. Must be made where an event loop runs, and closed.

    Args:
        store: where they are kept; belongs to whoever made it.
        commands: whether command lines of exec are kept.
        sink: takes them, too.
    """

    def __init__(self, store: AuditLog, *, commands: bool = True, sink: Sink | None = None) -> None:
        self.commands = commands
        self._store = store
        self._sink = sink
        self._waiting: list[tuple[AuditRecord, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._closed = False
        self._writer = asyncio.get_running_loop().create_task(self._write_all(), name="audit")

    async def write(self, record: AuditRecord) -> None:
        """Returns when the record is on the disk; a store that can't be written is an error in the log, with the record."""
        await asyncio.shield(self.note(record))

    def note(self, record: AuditRecord) -> asyncio.Future[None]:
        """Writes it soon; for calls that nobody waits for any more."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((record, written))
        self._wake.set()
        return written

    async def close(self) -> None:
        """Writes what is there, and ends."""
        self._closed = True
        self._wake.set()
        await self._writer

    async def _write_all(self) -> None:
        while self._waiting or not self._closed:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                await self._write([record for record, _ in batch])
                for _, written in batch:
                    if not written.done():
                        written.set_result(None)

    async def _write(self, records: list[AuditRecord]) -> None:
        try:
            await self._store.append_audit(records)
        except Exception as error:  # noqa: BLE001  # whatever it is: callers wait for their answer, and more records will come
            for record in records:
                log.critical("not written to the audit trail (%s): %r", error, record)
        if self._sink:
            await self._hand_on(self._sink, records)

    async def _hand_on(self, sink: Sink, records: list[AuditRecord]) -> None:
        try:
            await asyncio.to_thread(sink, records)
        except Exception as error:  # noqa: BLE001  # as above
            ids = " ".join(record.request_id for record in records)
            log.critical("audit records that could not be handed on (%s): %s", error, ids)
