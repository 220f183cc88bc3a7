"""The audit trail: one record for each call that changes a guest or access, for each refusal, and for files that are read.

A change has a record on the disk before it happens, and the record of its end takes that one's place before the answer
is sent: no change is missing, whenever the process is killed. Records that come together are written together: a
hundred clients cost one commit and not a hundred.

What can't be written (a full disk) is kept and written when it can be; meanwhile it stands in the log, and calls go on.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from guestwire.contract import Effect, Endpoint, rules
from guestwire.contract.audit_fields import audit_fields
from guestwire.counting import counted
from guestwire.dispatch.pipeline import Call
from guestwire.dispatch.stranger_limiter import StrangerLimiter
from guestwire.errors import StoreError
from guestwire.pacing import Backoff, RateLimiter
from guestwire.stores import BEGUN, AuditLog, AuditRecord

log = logging.getLogger("guestwire.audit")

AT_ONCE: Final = 500

MOST_KEPT: Final = 10_000
"""Records that are kept while the store can't be written."""

RETRY: Final = 0.5
RETRY_AT_MOST: Final = 5.0
"""Seconds until it is tried again."""

OK: Final = 200
UNAUTHENTICATED: Final = 401

READS_WINDOW: Final = 60.0
"""Seconds in which reads of one file by one caller are one record."""

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
        self._reads = RateLimiter(1, READS_WINDOW)

    async def begin(self, call: Call) -> None:
        """See `Recorder.begin`."""
        await asyncio.shield(self._writer.write_soon(self._record_of(call, BEGUN, "begun")))

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
        if call.is_recorded:
            return None
        call.is_recorded = True
        if (
            status == OK
            and call.route
            and call.route.endpoint.effect is Effect.READS
            and not self._is_first(call.route.endpoint, call)
        ):
            return None
        if status == UNAUTHENTICATED and not call.subject.key:
            skipped = self._limiter.allow(call.address, time.monotonic())
            if skipped is None:
                return None
            result = f"{result} (and {skipped} more before it)" if skipped else result
        return self._record_of(call, status, result)

    def _is_first(self, endpoint: Endpoint, call: Call) -> bool:
        """True for the first read of a file by a caller within a minute: a large file is read in a thousand pieces."""
        now = time.monotonic()
        key = (
            call.actor or call.subject.key,
            call.parameters.get("vmid"),
            *map(call.parameters.get, endpoint.read_paths),
        )
        if self._reads.wait(key, now):
            return False
        self._reads.count(key, now)
        return True

    def _record_of(self, call: Call, status: int, result: str) -> AuditRecord:
        endpoint = call.route.endpoint if call.route else None
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
        self._unwritten: list[AuditRecord] = []
        self._since = self._retry_at = 0.0
        self._why = ""
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(RETRY, RETRY_AT_MOST)
        self._wake = asyncio.Event()
        self._closed = False
        self._task = self._loop.create_task(self._write_all(), name="audit")

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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._retry_at if self._unwritten else None):
                    await self._wake.wait()
            self._wake.clear()
            if self._unwritten and not self._queue:
                await self._write([])
            while self._queue:
                batch, self._queue = self._queue[:AT_ONCE], self._queue[AT_ONCE:]
                await self._write([record for record, _ in batch])
                for _, written in batch:
                    if not written.done():
                        written.set_result(None)
        for record in self._unwritten:
            log.critical("never written to the audit trail: %r", record)

    async def _write(self, records: list[AuditRecord]) -> None:
        """Writes these, after those that could not be written before."""
        if self._unwritten and self._loop.time() < self._retry_at and not self._closed:
            self._keep(records)
        else:
            await self._store_all(records)
        ended = [record for record in records if record.status != BEGUN]
        if not self._sink or not ended:
            return
        try:
            await asyncio.to_thread(self._sink, ended)
        except Exception as error:  # noqa: BLE001  # callers wait for their answer, and more records will come
            ids = " ".join(record.request_id for record in ended)
            log.critical("audit records that could not be passed to the sink (%s): %s", error, ids)

    async def _store_all(self, records: list[AuditRecord]) -> None:
        try:
            await self._store.append_audit([*self._unwritten, *records])
        except StoreError as error:
            if not self._unwritten:
                self._since = time.time()
            self._why = str(error)
            self._retry_at = self._loop.time() + self._backoff.next()
            self._keep(records)
        except Exception as error:  # noqa: BLE001  # as above; there is something about these that no store takes
            for record in [*self._unwritten, *records]:
                log.critical("not written to the audit trail (%s): %r", error, record)
            self._unwritten.clear()
        else:
            if self._unwritten:
                since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._since))
                log.warning(
                    "%s written that could not be since %s",
                    counted(len(self._unwritten), "audit record is", "audit records are"),
                    since,
                )
            self._unwritten.clear()
            self._backoff.reset()

    def _keep(self, records: list[AuditRecord]) -> None:
        """Keeps what can't be written, as far as there is room; all of it stands in the log, which may be all that is left."""
        room = max(MOST_KEPT - len(self._unwritten), 0)
        for position, record in enumerate(records):
            kept = "kept until it can be" if position < room else "lost but for this line"
            log.critical("not written to the audit trail, %s (%s): %r", kept, self._why, record)
        self._unwritten += records[:room]
