"""The audit trail: one record for each call that changes a guest or access, and for each refusal.

A record is on the disk before the call's answer is sent, so that no answered change is missing from it. Records that come
together are written together: a hundred clients cost one commit and not a hundred.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from guestwire.contract import Audited, Effect, Endpoint, rules, to_bytes
from guestwire.contract.parameters import Rule
from guestwire.stores import AuditLog, AuditRecord

log = logging.getLogger("guestwire.audit")

LONGEST_TEXT: Final = 2000
"""Characters of one value; a command line may be longer, and nobody reads that."""

LONGEST_LIST: Final = 8000
"""Characters of a list's items, all together."""

MOST_ITEMS: Final = 100
AT_ONCE: Final = 500
REFUSALS: Final = frozenset({401, 403})

Sink = Callable[[Sequence[AuditRecord]], None]
"""Takes records after the store, for instance to a file of lines. May block: it is called in a thread."""


def is_audited(endpoint: Endpoint | None, status: int) -> bool:
    """Whether a call to this endpoint (None: to none that there is) with this outcome leaves a record."""
    return status in REFUSALS or (endpoint is not None and endpoint.effect is not Effect.READS)


def shown_parameters(endpoint: Endpoint | None, given: Mapping[str, Any], *, commands: bool) -> dict[str, Any]:
    """What the record says of a call's parameters: no secrets, and of content its size and SHA-256.

    Args:
        endpoint: its rules say what is what; None shows nothing.
        given: as the client gave them, not validated.
        commands: whether the command lines of exec are shown.
    """
    shown: dict[str, Any] = {}
    known = rules(endpoint.parameters) if endpoint else {}
    for name, rule in known.items():
        if name not in given or name == "node":
            continue
        shown |= _shown(rule, given, commands=commands)
    return shown


def _shown(rule: Rule, given: Mapping[str, Any], *, commands: bool) -> dict[str, Any]:
    value = given[rule.name]
    match rule.audited:
        case Audited.SHOWN:
            return {rule.name: _bounded(value)}
        case Audited.COMMAND:
            return {rule.name: _bounded(value)} if commands else {}
        case Audited.DIGEST if isinstance(value, str):
            content = _content(value, encoded=given.get("encode") in ("0", 0, False))
            return {f"{rule.name}-size": len(content), f"{rule.name}-sha256": hashlib.sha256(content).hexdigest()}
        case Audited.SIZE if isinstance(value, str):
            return {f"{rule.name}-size": len(to_bytes(value))}
        case _:
            return {}


def _content(text: str, *, encoded: bool) -> bytes:
    """The bytes that a guest's file gets."""
    content = (
        text.encode("utf-8", "surrogateescape") if "\udc80" <= max(text, default="") <= "\udcff" else to_bytes(text)
    )
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(content) if encoded else content
    return content


def _bounded(value: Any) -> Any:
    """Values as they are, but no longer than anybody reads: many records must fit into memory, whoever made them."""
    return _items(value) if isinstance(value, list) else _scalar(value)


def _items(values: list[Any]) -> list[Any]:
    shown: list[Any] = []
    left = LONGEST_LIST
    for value in values[:MOST_ITEMS]:
        shown.append(_scalar(value))
        left -= len(str(shown[-1]))
        if left < 0:
            return [*shown, "…"]
    return shown


def _scalar(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return value[:LONGEST_TEXT] + "…"
    return value if isinstance(value, str | int | float | bool) else type(value).__name__


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
