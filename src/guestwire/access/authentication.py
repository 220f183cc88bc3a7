"""Who sends a request, by its ticket or its API token."""

import hashlib
import hmac
import secrets
import uuid
from typing import Final

from guestwire.access import keys, tickets
from guestwire.access.credentials import Credentials
from guestwire.access.subject import Subject
from guestwire.errors import NotAuthenticated
from guestwire.stores.snapshot import Snapshot

NO_TICKET: Final = "No ticket"
FAILED: Final = "Authentication failed!"
BAD_CSRF: Final = "Permission denied - invalid csrf token"


def authenticate(snapshot: Snapshot, credentials: Credentials, now: float) -> Subject:
    """Who this is; `now` in seconds since the epoch.

    Raises:
        NotAuthenticated: nobody; or nobody who may come in.
    """
    if credentials.ticket:
        key = userid = tickets.user_of_ticket(keys.keys_of(snapshot, "ticket"), credentials.ticket, now)
    elif credentials.token:
        key, userid = _token_owner(snapshot, credentials.token, now)
    else:
        raise NotAuthenticated(NO_TICKET)
    if not key or not userid or not may_come_in(snapshot, userid, now):
        raise NotAuthenticated(FAILED)
    return Subject(key)


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
