"""The users behind the recorded cases, each with a token of the same secret."""

from pathlib import Path

from guestwire.access.authentication import secret_hash
from guestwire.access.passwords import hash_password
from guestwire.app.state import STORE
from guestwire.stores import AclEntry, Change, Put, Role, SqliteStore, Token, User

SECRET = "7e1f5b7a-2a55-4a5e-9d59-0d6f1f0c3d11"
PASSWORD = "labpass123"
LONG_AGO = 1_000_000_000

ONE_PRIVILEGE = {
    "audit": "VM.GuestAgent.Audit",
    "fread": "VM.GuestAgent.FileRead",
    "fwrite": "VM.GuestAgent.FileWrite",
    "fsmgmt": "VM.GuestAgent.FileSystemMgmt",
    "unrestricted": "VM.GuestAgent.Unrestricted",
    "power": "VM.PowerMgmt",
}
NAMES = (*ONE_PRIVILEGE, "none", "admin", "disabled")

TOKENS = {**{name: f"{name}@pve!tok" for name in NAMES}, "privsep": "admin@pve!sep"}
"""By the role that a case names."""


async def settle(state_dir: Path) -> None:
    """Puts them into a new store."""
    hashed = await hash_password(PASSWORD)
    store = await SqliteStore.open(state_dir / STORE)
    try:
        await store.change(0, [*_users(hashed), *_tokens(), *_permissions()])
    finally:
        await store.close()


def _users(hashed: str) -> list[Change]:
    return [Put(User(f"{name}@pve", enable=name != "disabled", password_hash=hashed)) for name in NAMES]


def _tokens() -> list[Change]:
    kept = secret_hash(SECRET)
    own = [Put(Token(f"{name}@pve", "tok", kept, privsep=False)) for name in NAMES]
    old = Token("admin@pve", "old", kept, privsep=False, expire=LONG_AGO)
    return [*own, Put(Token("admin@pve", "sep", kept)), Put(old)]


def _permissions() -> list[Change]:
    changes: list[Change] = [Put(AclEntry("/", "user", "admin@pve", "Administrator"))]
    for name, privilege in ONE_PRIVILEGE.items():
        changes.append(Put(Role(f"Only-{name}", frozenset({privilege}))))
        changes.append(Put(AclEntry("/vms", "user", f"{name}@pve", f"Only-{name}")))
    return changes
