"""Tickets and CSRF tokens in Proxmox VE's text format, signed with keys that rotate.

A ticket is `PVE:USERID:HEXTIME::BASE64SIGNATURE`, a CSRF token `HEXTIME:BASE64DIGEST` and bound to a user. Proxmox VE
signs tickets with RSA, so that nodes which may not issue them can check them. Those who check ours have the store and
so the key: HMAC-SHA-256 does, at a hundredth of the time, and needs no library.

A signature covers the user's ticket version, too, which the text does not show. It is another one when the user was
removed and made again, or has another password: tickets end with what they were given for.

Source: PVE::Ticket as its answers show it (recorded cases `ticket/`, `auth/ticket/`).
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
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


def new_version() -> str:
    """A ticket version that no user ever had."""
    return secrets.token_hex(8)


def make_ticket(key: bytes, user: str, version: str, now: float) -> str:
    """A ticket for `user` (`NAME@REALM`), valid for two hours from `now` (seconds since the epoch).

    Args:
        key: signs it.
        user: the userid.
        version: of the user's tickets.
        now: seconds since the epoch.
    """
    text = f"PVE:{user}:{int(now):08X}"
    return f"{text}::{_signature(key, _versioned(text, version))}"


def user_of_ticket(keys: Iterable[bytes], ticket: str, now: float, version_of: Callable[[str], str]) -> str | None:
    """The user of a valid ticket; None for any other text.

    Args:
        keys: that sign tickets.
        ticket: as it was sent.
        now: seconds since the epoch.
        version_of: gives the version of a user's tickets.
    """
    found = _ticket.fullmatch(ticket) if len(ticket) <= LONGEST else None
    if not found or not _is_fresh(found["time"], now):
        return None
    user = found["user"]
    text = _versioned(ticket.partition("::")[0], version_of(user))
    return user if _is_signed(keys, text, found["signature"]) else None


def _versioned(text: str, version: str) -> str:
    return f"{text}\0{version}"


def make_csrf(key: bytes, user: str, now: float) -> str:
    """A CSRF token for `user`."""
    time = f"{int(now):08X}"
    return f"{time}:{_signature(key, f'{time}:{user}').rstrip('=')}"


def is_csrf_of(keys: Iterable[bytes], user: str, token: str, now: float) -> bool:
    """True if `token` is a valid CSRF token of `user`."""
    found = _csrf.fullmatch(token) if len(token) <= LONGEST else None
    if not found or not _is_fresh(found["time"], now):
        return False
    return _is_signed(keys, f"{found['time']}:{user}", f"{found['digest']}=")


def _is_fresh(time: str, now: float) -> bool:
    return -CLOCK_GRACE < now - int(time, 16) < LIFETIME


def _is_signed(keys: Iterable[bytes], text: str, signature: str) -> bool:
    """True if one of the keys made the signature.

    Compared as text: one signature has many base64 texts, and only one is ours.
    """
    return any([hmac.compare_digest(_signature(key, text), signature) for key in keys])  # noqa: C419  # all, always


def _signature(key: bytes, text: str) -> str:
    return base64.b64encode(hmac.new(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()).decode()
