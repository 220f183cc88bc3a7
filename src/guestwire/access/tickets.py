"""Tickets and CSRF tokens in Proxmox VE's text format, signed with keys that rotate.

A ticket is `PVE:USERID:HEXTIME::BASE64SIGNATURE`, a CSRF token `HEXTIME:BASE64DIGEST` and bound to a user. Proxmox VE signs tickets with
RSA, so that nodes which may not issue them can check them. Whoever checks ours has the store and so the key: HMAC-SHA-256 does, at a
hundredth of the time, and needs no library.

Source: PVE::Ticket as its answers show it (recorded cases `ticket/`, `auth/ticket/`).
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final

LIFETIME: Final = 2 * 3600
"""Seconds."""

CLOCK_GRACE: Final = 300
"""Seconds that a ticket may come from the future: another node's clock may run ahead."""

LONGEST: Final = 1024

_ticket: Final = re.compile(
    r"PVE:(?P<user>[^\s:/]{1,64}):(?P<time>[0-9A-F]{8})::(?P<signature>[A-Za-z0-9+/=]+)", re.ASCII
)
_csrf: Final = re.compile(r"(?P<time>[0-9A-F]{8}):(?P<digest>[A-Za-z0-9+/]+)", re.ASCII)


def make_ticket(key: bytes, user: str, now: float) -> str:
    """A ticket for `user` (`NAME@REALM`), valid for two hours from `now` (seconds since the epoch)."""
    text = f"PVE:{user}:{int(now):08X}"
    return f"{text}::{_encoded(_digest(key, text))}"


def user_of_ticket(keys: Iterable[bytes], ticket: str, now: float) -> str | None:
    """Whose valid ticket this is; None for one that is not, for whatever reason."""
    found = _ticket.fullmatch(ticket) if len(ticket) <= LONGEST else None
    if not found or not _is_fresh(found["time"], now):
        return None
    signature = _decoded(found["signature"])
    text = ticket.partition("::")[0]
    signed = [hmac.compare_digest(_digest(key, text), signature) for key in keys]
    return found["user"] if any(signed) else None


def make_csrf(key: bytes, user: str, now: float) -> str:
    """A CSRF token for `user`."""
    time = f"{int(now):08X}"
    return f"{time}:{_encoded(_digest(key, f'{time}:{user}')).rstrip('=')}"


def is_csrf_of(keys: Iterable[bytes], user: str, token: str, now: float) -> bool:
    """Whether `token` is a valid CSRF token of `user`."""
    found = _csrf.fullmatch(token) if len(token) <= LONGEST else None
    if not found or not _is_fresh(found["time"], now):
        return False
    digest = _decoded(found["digest"])
    return any(hmac.compare_digest(_digest(key, f"{found['time']}:{user}"), digest) for key in keys)


def _is_fresh(time: str, now: float) -> bool:
    return -CLOCK_GRACE < now - int(time, 16) < LIFETIME


def _digest(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    """The bytes behind base64 with or without padding; none behind anything else."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except binascii.Error:
        return b""
