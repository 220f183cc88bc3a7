"""The administrator's first token: made at first start, for whoever can read the state directory.

The store keeps only its hash. A token that was taken away stays away, whatever the file says: to get a new one, remove
the file.
"""

import os
import re
from pathlib import Path
from typing import Final

from guestwire.access.authentication import new_secret, secret_hash
from guestwire.access.engine import SUPERUSER
from guestwire.errors import ConfigurationError
from guestwire.stores import Change, Put, Snapshot, Store, Token, User, update

FILE: Final = "admin-token"
TOKENID: Final = "admin"

_token = re.compile(rf"{re.escape(SUPERUSER)}!([^\s!@=]+)=([^\s=]+)")


async def ensure_admin_token(state_dir: Path, store: Store) -> None:
    """Makes the token and the file when there is no file, readable by its owner alone; a new store takes up what an old file says.

    Raises:
        ConfigurationError: the file can't be read or written, or holds something else.
    """
    path = state_dir / FILE
    try:
        if not path.exists():
            secret = new_secret()
            await update(store, lambda snapshot: _with_token(snapshot, TOKENID, secret))
            _write(path, f"{SUPERUSER}!{TOKENID}={secret}\n")
        elif SUPERUSER not in store.snapshot.users:
            tokenid, secret = _read(path)
            await update(store, lambda snapshot: _with_token(snapshot, tokenid, secret))
        else:
            _read(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; guestwire keeps its administrator's token there"
        ) from error


def _with_token(snapshot: Snapshot, tokenid: str, secret: str) -> list[Change]:
    user = [] if SUPERUSER in snapshot.users else [Put(User(SUPERUSER))]
    return [*user, Put(Token(SUPERUSER, tokenid, secret_hash(secret), privsep=False))]


def _read(path: Path) -> tuple[str, str]:
    found = _token.fullmatch(path.read_text(encoding="utf-8", errors="replace").strip())
    if not found:
        raise ConfigurationError(
            f"{path}: not one line of the form {SUPERUSER}!NAME=SECRET; remove the file to get a new token"
        )
    return found[1], found[2]


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    unfinished.replace(path)
