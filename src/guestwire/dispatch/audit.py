"""The audit trail: one record for each call that changes a guest or access, and for each refusal.

A record is on the disk before the call's answer is sent, so that no answered change is missing from it. Records that
come together are written together: a hundred clients cost one commit and not a hundred.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from guestwire.contract import rules
from guestwire.contract.audit_fields import audit_fields
from guestwire.dispatch.pipeline import Call
from guestwire.dispatch.stranger_limiter import StrangerLimiter
from guestwire.stores import AuditLog, AuditRecord

log = logging.getLogger("guestwire.audit")

AT_ONCE: Final = 500
UNAUTHENTICATED: Final = 401

LONGEST_RESULT: Final = 200
LONGEST_PATH: Final = 200
LONGEST_VMID: Final = 9

Sink = Callable[[Sequence[AuditRecord]], None]
"""Takes records after the store, for instance to a file of lines. May block: it is called in a thread."""


class AuditRecorder:
    """The `Recorder` that keeps calls in the audit trail.

    Args:
        writer: writes them; belongs to its maker.
        commands: False keeps command lines of exec out.
    """

    def __init__(self, writer: "AuditWriter", *, commands: bool = True) -> None:
        self._writer = writer
        self._commands = commands
        self._limiter = StrangerLimiter()

    async def record(self, call: Call, status: int, result: str) -> None:
        """See `Recorder.record`. What can't be written stands in the log as an error, and the call goes on."""
        if pending := self._pending_record(call, status, result):
            await asyncio.shield(self._writer.write_soon(pending))

    def record_soon(self, call: Call, status: int, result: str) -> None:
        """See `Recorder.record_soon`."""
        if pending := self._pending_record(call, status, result):
            self._writer.write_soon(pending)

    def _pending_record(self, call: Call, status: int, result: str) -> AuditRecord | None:
        """The record to write; None when the call leaves none, or has left one: a later outcome is about its answer."""
        endpoint = call.route.endpoint if call.route else None
        if call.is_recorded:
            return None
        call.is_recorded = True
        if status == UNAUTHENTICATED and not call.subject.key:
            skipped = self._limiter.allow(call.address, time.monotonic())
            if skipped is None:
                return None
            result = f"{result} (and {skipped} more before it)" if skipped else result
        vmid = str(call.parameters.get("vmid", ""))
        return AuditRecord(
            time=time.time(),
            request_id=call.id,
            subject=call.actor or call.subject.key,
            address=call.address,
            vmid=int(vmid) if vmid.isascii() and vmid.isdigit() and len(vmid) <= LONGEST_VMID else None,
            endpoint=f"{call.method} {endpoint.path if endpoint else call.path[:LONGEST_PATH]}",
            parameters=audit_fields(rules(endpoint.parameters), call.parameters, commands=self._commands)
            if endpoint
            else {},
            status=status,
            result=result.partition("\n")[0][:LONGEST_RESULT],
            duration_ms=round(call.milliseconds, 3),
        )


class AuditWriter:
    """Writes records, one batch at a time. Must be made where an event loop runs, and closed.

    Args:
        store: where they are kept; belongs to its maker.
        sink: takes them, too.
    """

    def __init__(self, store: AuditLog, *, sink: Sink | None = None) -> None:
        self._store = store
        self._sink = sink
        self._queue: list[tuple[AuditRecord, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._closed = False
        self._task = asyncio.get_running_loop().create_task(self._write_all(), name="audit")

    def write_soon(self, record: AuditRecord) -> asyncio.Future[None]:
        """Writes it with the next batch; the future is done when it is on the disk, or stands in the log with the reason."""
        written = asyncio.get_running_loop().create_future()
        self._queue.append((record, written))
        self._wake.set()
        return written

    async def close(self) -> None:
        """Writes what is there, and ends."""
        self._closed = True
        self._wake.set()
        await self._task

    async def _write_all(self) -> None:
        while self._queue or not self._closed:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch, self._queue = self._queue[:AT_ONCE], self._queue[AT_ONCE:]
                await self._write([record for record, _ in batch])
                for _, written in batch:
                    if not written.done():
                        written.set_result(None)

    async def _write(self, records: list[AuditRecord]) -> None:
        try:
            await self._store.append_audit(records)
        except Exception as error:  # noqa: BLE001  # callers wait for their answer, and more records will come
            for record in records:
                log.critical("not written to the audit trail (%s): %r", error, record)
        if not self._sink:
            return
        try:
            await asyncio.to_thread(self._sink, records)
        except Exception as error:  # noqa: BLE001  # as above
            ids = " ".join(record.request_id for record in records)
            log.critical("audit records that could not be passed to the sink (%s): %s", error, ids)
