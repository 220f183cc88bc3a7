"""What is stored, as frozen records named and keyed as Proxmox VE has them. Their text forms never show a secret."""

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Since the epoch; 0 means never."""
Vmid = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
SubjectKind = Literal["user", "group", "token"]
KeyKind = Literal["ticket", "csrf"]
AclKey = tuple[str, str, str, str]
"""Path, kind, subject, roleid."""


class Record(msgspec.Struct, frozen=True):
    """Base of all. `key` names a record among those of its type."""

    secret: ClassVar[frozenset[str]] = frozenset()
    """Fields that no text form shows."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, "…" if name in self.secret else getattr(self, name)) for name in self.__struct_fields__]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"


class User(Record, frozen=True):
    """A user, `name@realm`.

    `password_hash` is for realm pve alone, in the hash's own text format; None: no password. Tickets are signed together
    with `ticket_version`: another one ends them all.
    """

    secret = frozenset({"keys", "password_hash", "ticket_version"})

    userid: Name
    enable: bool = True
    expire: Seconds = 0
    firstname: str = ""
    lastname: str = ""
    email: str = ""
    comment: str = ""
    keys: str = ""
    password_hash: str | None = None
    ticket_version: str = ""

    @property
    def key(self) -> str:
        """The userid."""
        return self.userid


class Group(Record, frozen=True):
    """Users who are meant together; `members` are userids."""

    groupid: Name
    comment: str = ""
    members: frozenset[Name] = frozenset()

    @property
    def key(self) -> str:
        """The groupid."""
        return self.groupid


class Token(Record, frozen=True):
    """An API token of a user. With `privsep` it has at most what its own ACL entries give it."""

    secret = frozenset({"secret_hash"})

    userid: Name
    tokenid: Name
    secret_hash: bytes
    privsep: bool = True
    expire: Seconds = 0
    comment: str = ""

    @property
    def key(self) -> str:
        """`USERID!TOKENID`, as ACL entries and headers name it."""
        return f"{self.userid}!{self.tokenid}"


class Role(Record, frozen=True):
    """A role somebody made. Built-in roles are not stored."""

    roleid: Name
    privileges: frozenset[Name] = frozenset()

    @property
    def key(self) -> str:
        """The roleid."""
        return self.roleid


class AclEntry(Record, frozen=True):
    """Gives a subject (userid, groupid or `USERID!TOKENID`) a role on a path, and below it when it propagates."""

    path: Name
    kind: SubjectKind
    subject: Name
    roleid: Name
    propagate: bool = True

    @property
    def key(self) -> AclKey:
        """All but `propagate`."""
        return self.path, self.kind, self.subject, self.roleid


class Pool(Record, frozen=True):
    """VMs that are meant together by the path `/pool/POOLID`. A VM is in one pool at most."""

    poolid: Name
    comment: str = ""
    vms: frozenset[Vmid] = frozenset()

    @property
    def key(self) -> str:
        """The poolid."""
        return self.poolid


class Frozen(Record, frozen=True):
    """A guest whose file systems were frozen.

    Attributes:
        since: in seconds since the epoch.
        count: of file systems; None: not known.
        until: when the freeze ends by itself, in seconds since the epoch; None: never.
        connected: it ends with its caller's connection.
        watchdog: the process in the guest that thaws it when nothing else does, as `agent.watchdog` has it; "": none.
    """

    vmid: Vmid
    subject: str
    since: float
    count: int | None = None
    until: float | None = None
    connected: bool = False
    watchdog: str = ""

    @property
    def key(self) -> int:
        """The vmid."""
        return self.vmid


class StoredTask(Record, frozen=True):
    """Work that goes on after its call; `status` is "" while it goes on, `endtime` in seconds since the epoch, `log` lines."""

    upid: str
    status: str = ""
    endtime: int = 0
    log: str = ""

    @property
    def key(self) -> str:
        """The upid."""
        return self.upid


class VmIdentity(Record, frozen=True):
    """The id of a VM that has none where it is defined; `key` tells it from all others."""

    key: str
    vmid: Vmid


class SigningKey(Record, frozen=True):
    """A key that signs tickets or CSRF tokens.

    `created` in seconds since the epoch; `private`: PEM text or secret bytes.
    """

    secret = frozenset({"private"})

    id: Name
    kind: KeyKind
    created: float
    private: bytes

    @property
    def key(self) -> str:
        """The id."""
        return self.id


BEGUN: Final = 102
"""The status of a record that was written before the effect of its call: there is none of its end yet, or never will be."""


class AuditRecord(Record, frozen=True):
    """One call that changed something, or was refused.

    Attributes:
        time: seconds since the epoch.
        request_id: as the log has it.
        subject: userid or `USERID!TOKENID`; empty: nobody was known.
        address: the client's.
        vmid: None when the call was about none.
        endpoint: method and path template.
        parameters: JSON-able, without secrets and content.
        status: of the HTTP answer, or `BEGUN`.
        result: one line.
        duration_ms: milliseconds.
        number: given by the store, rising by time of writing; 0 before that.
    """

    time: float
    request_id: str
    subject: str
    address: str
    vmid: int | None
    endpoint: str
    parameters: dict[str, Any]
    status: int
    result: str
    duration_ms: float
    number: int = 0


class AuditFilter(Record, frozen=True):
    """Which audit records; None means any. `since` is included, `until` is not; both in seconds since the epoch.

    `subject` is exactly this user or token; `user` is this user and all its tokens, removed ones too.
    """

    since: float | None = None
    until: float | None = None
    subject: str | None = None
    user: str | None = None
    address: str | None = None
    vmid: int | None = None
    endpoint: str | None = None
    status: int | None = None
    request_id: str | None = None


Stored = User | Group | Token | Role | AclEntry | Pool | SigningKey | Frozen | StoredTask | VmIdentity
Key = str | int | AclKey

TYPES: tuple[type[Stored], ...] = (User, Group, Token, Role, AclEntry, Pool, SigningKey, Frozen, StoredTask, VmIdentity)
"""Every type of record that a snapshot holds; one that refers to another stands after it."""


class Put(msgspec.Struct, frozen=True):
    """A change: this record, new or in place of the one with its key."""

    record: Stored


class Remove(msgspec.Struct, frozen=True):
    """A change: the record of this type with this key is gone, and what hangs on it."""

    type: type[Stored]
    key: Key


Change = Put | Remove
