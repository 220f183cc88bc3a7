"""Users for tests: put into a store before the server's first start, each with a token of the same secret."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from guestwire.access.authentication import secret_hash
from guestwire.app.state import STORE
from guestwire.stores import AclEntry, Change, Put, SqliteStore, Token, User

SECRET = "7e1f5b7a-2a55-4a5e-9d59-0d6f1f0c3d11"
TOKEN = "tok"


def person(userid: str, *roles: tuple[str, str]) -> list[Change]:
    """A user with a token without privilege separation, and `(path, role)` of its own."""
    return [
        Put(User(userid)),
        Put(Token(userid, TOKEN, secret_hash(SECRET), privsep=False)),
        *(Put(AclEntry(path, "user", userid, role)) for path, role in roles),
    ]


def settling(*changes: list[Change]) -> Callable[[Path], Awaitable[None]]:
    """For `Serving.of`: makes these changes to a new store."""

    async def settle(state_dir: Path) -> None:
        store = await SqliteStore.open(state_dir / STORE)
        try:
            await store.change(0, [change for part in changes for change in part])
        finally:
            await store.close()

    return settle


def authorization(userid: str, token: str = TOKEN) -> str:
    """The header of a person's token."""
    return f"Authorization: PVEAPIToken={userid}!{token}={SECRET}"
