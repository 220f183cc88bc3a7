"""Keys that sign tickets: a new one every day; the one before stays as long as what it signed may live."""

import secrets
from typing import Final

from guestwire.access.tickets import CLOCK_GRACE, LIFETIME
from guestwire.stores.records import Change, KeyKind, Put, Remove, SigningKey
from guestwire.stores.snapshot import Snapshot

ROTATE_AFTER: Final = 24 * 3600.0
KEEP_FOR: Final = ROTATE_AFTER + LIFETIME + CLOCK_GRACE

KINDS: Final[tuple[KeyKind, ...]] = ("ticket", "csrf")


def due_changes(snapshot: Snapshot, now: float) -> list[Change]:
    """What has to be changed in the keys at `now` (seconds since the epoch): nothing, most of the time."""
    changes: list[Change] = []
    for kind in KINDS:
        known = (key.created for key in snapshot.keys.values() if key.kind == kind and key.created <= now + CLOCK_GRACE)
        newest = max(known, default=0.0)  # one from the future is none: a clock that jumped must not stop the rotation
        if now - newest >= ROTATE_AFTER:
            key = SigningKey(f"{kind}-{secrets.token_hex(8)}", kind, now, secrets.token_bytes(32))
            changes.append(Put(key))
    changes += [
        Remove(SigningKey, key.id) for key in snapshot.keys.values() if not -CLOCK_GRACE <= now - key.created < KEEP_FOR
    ]
    return changes


def keys_of(snapshot: Snapshot, kind: KeyKind) -> list[bytes]:
    """The keys of a kind, the newest first."""
    found = sorted((key for key in snapshot.keys.values() if key.kind == kind), key=lambda key: -key.created)
    return [key.private for key in found]
