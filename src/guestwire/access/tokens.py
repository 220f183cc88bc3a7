"""API tokens: `USER@REALM!NAME=SECRET` in the Authorization header, as Proxmox VE has them."""

import hashlib
import hmac
import os
import re
import secrets
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guestwire.errors import ConfigurationError, NotAuthenticated

NO_TICKET: Final = "No ticket"
FAILED: Final = "Authentication failed!"

FILE: Final = "admin-token"
ADMIN: Final = "root@pam!admin"

_header = re.compile(r"PVEAPIToken[= ](.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who calls: a user, by way of a token."""

    user: str
    token: str

    def __str__(self) -> str:
        return f"{self.user}!{self.token}"


class Tokens:
    """The tokens that are known; only hashes of their secrets are kept.

    A plain SHA-256 is enough: the secrets are random UUIDs of 122 bits, which nobody can try out.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Subject, bytes]] = {}

    def add(self, token: str) -> None:
        """Adds `USER@REALM!NAME=SECRET`."""
        name, _, secret = token.partition("=")
        user, _, token_name = name.partition("!")
        self._known[name] = (Subject(user, token_name), _hash(secret))

    def authenticate(self, header: str | None) -> Subject:
        """Whose Authorization header this is.

        Raises:
            NotAuthenticated: nobody's.
        """
        given = _header.fullmatch(header or "")
        if not given:
            raise NotAuthenticated(NO_TICKET)
        name, _, secret = given[1].partition("=")
        subject, expected = self._known.get(name, (None, b""))
        if not hmac.compare_digest(_hash(secret), expected) or subject is None:
            raise NotAuthenticated(FAILED)
        return subject


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def admin_token(state_dir: Path) -> str:
    """The token with all rights in `state_dir/admin-token`; made, readable by its owner alone, when it is not there yet.

    Raises:
        ConfigurationError: the file can't be read or written, or holds something else.
    """
    path = state_dir / FILE
    try:
        return _read(path) if path.exists() else _create(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; guestwire keeps its administrator's token there"
        ) from error


_token = re.compile(r"[^\s!@=]+@[^\s!@=]+![^\s!@=]+=[^\s=]+")


def _read(path: Path) -> str:
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    if not _token.fullmatch(token):
        raise ConfigurationError(
            f"{path}: not one line of the form USER@REALM!NAME=SECRET; remove the file to get a new token"
        )
    return token


def _create(path: Path) -> str:
    token = f"{ADMIN}={uuid.UUID(bytes=secrets.token_bytes(16), version=4)}"
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    unfinished.replace(path)
    return token
