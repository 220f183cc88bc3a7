"""Where users, tokens, roles, ACL entries, pools, keys and audit records are kept: one small interface, and what stands behind it."""

from guestwire.stores.copies import backup, restore
from guestwire.stores.memory import MemoryStore
from guestwire.stores.records import (
    BEGUN,
    AclEntry,
    AuditFilter,
    AuditRecord,
    Change,
    Frozen,
    Group,
    Pool,
    Put,
    Remove,
    Role,
    SigningKey,
    StoredTask,
    Token,
    User,
    VmId,
)
from guestwire.stores.snapshot import Snapshot
from guestwire.stores.sqlite import SqliteStore
from guestwire.stores.store import AuditLog, KeptStore, Store, update

__all__ = [
    "BEGUN",
    "AclEntry",
    "AuditFilter",
    "AuditLog",
    "AuditRecord",
    "Change",
    "Frozen",
    "Group",
    "KeptStore",
    "MemoryStore",
    "Pool",
    "Put",
    "Remove",
    "Role",
    "SigningKey",
    "Snapshot",
    "SqliteStore",
    "Store",
    "StoredTask",
    "Token",
    "User",
    "VmId",
    "backup",
    "restore",
    "update",
]
