"""Audit records: made so that any store can write them, and filtered, in Python and in SQL, from one table."""

import math
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from guestwire.stores.records import BEGUN, AuditFilter, AuditRecord

LARGEST: Final = 2**63 - 1

CONDITIONS: Final = {
    "since": "time >= ?",
    "until": "time < ?",
    "subject": "subject = ?",
    "user": "? IN (subject, substr(subject || '!', 1, instr(subject || '!', '!') - 1))",
    "address": "address = ?",
    "vmid": "vmid = ?",
    "endpoint": "endpoint = ?",
    "status": "status = ?",
    "request_id": "request_id = ?",
}
"""The SQL condition of each field of a filter."""

_EQUAL: Final = CONDITIONS.keys() - {"since", "until", "user"}


def conditions(wanted: AuditFilter) -> tuple[list[str], list[object]]:
    """SQL conditions and their values; none of the values is part of the text."""
    asked = {name: value for name in CONDITIONS if (value := getattr(wanted, name)) is not None}
    return [CONDITIONS[name] for name in asked], [clamp(value) for value in asked.values()]


def clamp(value: Any) -> Any:
    """A number as SQLite can compare it: no record has a larger one."""
    return min(value, LARGEST) if isinstance(value, int) else value


def matches(record: AuditRecord, wanted: AuditFilter) -> bool:
    """True if the filter lets the record through."""
    in_time = (wanted.since is None or record.time >= wanted.since) and (
        wanted.until is None or record.time < wanted.until
    )
    is_users = wanted.user is None or wanted.user in (record.subject, record.subject.partition("!")[0])
    return in_time and is_users and all(getattr(wanted, name) in (None, getattr(record, name)) for name in _EQUAL)


def ended_in(records: Iterable[AuditRecord]) -> frozenset[str]:
    """The request ids of the calls whose end is among these records."""
    return frozenset(record.request_id for record in records if record.status != BEGUN)


def storable(record: AuditRecord) -> AuditRecord:
    """`record` as any store can write it and any reader read it: no audit record is lost because of what was in the request."""
    words = {name: _text(getattr(record, name)) for name in ("request_id", "subject", "address", "endpoint", "result")}
    vmid = record.vmid if record.vmid is not None and 0 <= record.vmid <= LARGEST else None
    return msgspec.structs.replace(record, **words, vmid=vmid, parameters=_plain(record.parameters))


def _plain(value: Any) -> Any:
    """JSON of any shape, without what JSON's readers stumble over."""
    if isinstance(value, dict):
        return {_text(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) <= LARGEST):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _text(str(value))


def _text(text: str) -> str:
    """Half a surrogate pair is no Unicode; it becomes six characters that show it."""
    return text.encode("utf-8", "backslashreplace").decode()
