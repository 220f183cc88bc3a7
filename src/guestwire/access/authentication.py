"""Who sends a request, by its ticket or its API token.

Source: the recorded cases `auth/`: a ticket in the cookie wins over one in the Authorization header, which wins over a
token there.
"""

import hashlib
import hmac
import re
import secrets
import uuid
from typing import Final
from urllib.parse import unquote

import msgspec

from guestwire.access import keys, tickets
from guestwire.access.subject import Subject
from guestwire.errors import NotAuthenticated
from guestwire.stores.snapshot import Snapshot

NO_TICKET: Final = "No ticket"
FAILED: Final = "Authentication failed!"
BAD_CSRF: Final = "Permission denied - invalid csrf token"

TICKET: Final = "PVEAuthCookie"
TOKEN: Final = "PVEAPIToken"  # noqa: S105  # a header's word
LONGEST: Final = 8190

_ticket: Final = re.compile(rf"(?:^|\s){TICKET}[= ]([^;]*)")
_token: Final = re.compile(rf"(?:^|\s){TOKEN}[= ]([^;]*)")


class Credentials(msgspec.Struct, frozen=True):
    """At most one of the two is set; neither is shown."""

    ticket: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"


def parse_credentials(cookie: str, authorization: str) -> Credentials:
    """Finds them in the values of a request's Cookie and Authorization headers ("" for a header that is not there)."""
    if ticket := _value(_ticket, cookie) or _value(_ticket, authorization):
        return Credentials(ticket=ticket)
    return Credentials(token=_value(_token, authorization))


def _value(pattern: re.Pattern[str], header: str) -> str:
    found = pattern.search(header[:LONGEST]) if header else None
    return unquote(found[1], errors="surrogateescape") if found else ""


def authenticate(snapshot: Snapshot, credentials: Credentials, now: float) -> Subject:
    """Who this is; `now` in seconds since the epoch.

    Raises:
        NotAuthenticated: nobody; or nobody who may come in.
    """
    if credentials.ticket:
        key = userid = user_of_ticket(snapshot, credentials.ticket, now)
    elif credentials.token:
        key, userid = _token_owner(snapshot, credentials.token, now)
    else:
        raise NotAuthenticated(NO_TICKET)
    if not key or not userid or not may_come_in(snapshot, userid, now):
        raise NotAuthenticated(FAILED)
    return Subject(key)


def user_of_ticket(snapshot: Snapshot, ticket: str, now: float) -> str | None:
    """The user of a valid ticket; None for any other text."""
    return tickets.user_of_ticket(
        keys.keys_of(snapshot, "ticket"), ticket, now, lambda user: version_of(snapshot, user)
    )


def version_of(snapshot: Snapshot, userid: str) -> str:
    """The version of a user's tickets; a user who is not there has none."""
    user = snapshot.users.get(userid)
    return user.ticket_version if user else ""


def check_csrf(snapshot: Snapshot, subject: Subject, token: str, now: float) -> None:
    """True if a request with a ticket that changes something was meant by its user.

    Raises:
        NotAuthenticated: the CSRF token is not one of this user.
    """
    if not tickets.is_csrf_of(keys.keys_of(snapshot, "csrf"), subject.user, token, now):
        raise NotAuthenticated(BAD_CSRF)


def may_come_in(snapshot: Snapshot, userid: str, now: float) -> bool:
    """True if the user is there, enabled and not expired."""
    user = snapshot.users.get(userid)
    return user is not None and user.enable and not (user.expire and user.expire < now)


def _token_owner(snapshot: Snapshot, text: str, now: float) -> tuple[str, str]:
    """The token's key and its user; nobody's when it is none, or expired."""
    key, _, secret = text.partition("=")
    token = snapshot.tokens.get(key)
    known = token.secret_hash if token else b""
    if not hmac.compare_digest(secret_hash(secret), known) or token is None or (token.expire and token.expire < now):
        return "", ""
    return key, token.userid


def new_secret() -> str:
    """A token's secret: a random UUID."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def secret_hash(secret: str) -> bytes:
    """What is kept of a token's secret.

    A plain SHA-256 is enough: secrets are random numbers of 122 bits, which nobody can try out; a slow hash would
    protect passwords that people choose, and cost every request what it costs the attacker.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
