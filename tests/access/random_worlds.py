"""Users, groups, tokens, roles, pools and ACL entries by chance: few names on few paths, so that they meet often."""

from collections.abc import Iterator
from random import Random

from slow_engine import BUILT_IN, EVERY_PRIVILEGE

from guestwire.stores import AclEntry, Group, Pool, Role, Snapshot, Token, User
from guestwire.stores.records import Stored, SubjectKind
from guestwire.stores.snapshot import of

NOW = 1_000_000.0

VMIDS = (100, 101, 102, 1000)
POOLS = ("web", "web/inner", "db")
PATHS = (
    "/", "/vms", *(f"/vms/{vmid}" for vmid in VMIDS), "/vms/100/disk", "/pool", *(f"/pool/{pool}" for pool in POOLS), "/access",
    "/access/groups", "/access/groups/g0", "/nodes/pve1", "/storage/local",
)  # fmt: skip
OWN_ROLES = ("own0", "own1", "own2")
ROLES = (*BUILT_IN, *OWN_ROLES, "NoAccess", "gone")
"""`NoAccess` comes twice as often; `gone` is a role that does not exist."""


def world(random: Random) -> Snapshot:
    """A snapshot at random."""
    users = [User(f"u{number}@pve", _often(random), _expire(random)) for number in range(random.randint(1, 3))]
    if random.random() < 0.1:
        users.append(User("root@pam", _often(random), _expire(random)))
    ids = [user.userid for user in users]
    tokens = [_token(random, userid, number) for userid in ids for number in range(random.randint(0, 2))]
    groups = [Group(f"g{number}", "", _some(random, ids)) for number in range(random.randint(0, 3))]
    roles = [Role(name, _some(random, sorted(EVERY_PRIVILEGE), 3)) for name in OWN_ROLES]
    subjects: list[tuple[SubjectKind, str]] = [
        *(("user", userid) for userid in ids),
        *(("group", group.groupid) for group in groups),
        *(("token", token.key) for token in tokens),
    ]
    acl = [_entry(random, *random.choice(subjects)) for _ in range(random.randint(0, 40))]
    records: list[Stored] = [*users, *tokens, *groups, *roles, *acl, *_pools(random)]
    return of(1, records)


def _often(random: Random) -> bool:
    return random.random() < 0.9


def _expire(random: Random) -> int:
    return random.choice((0, 0, 0, 0, 0, 0, int(NOW) - 1, int(NOW), int(NOW) + 1))


def _some(random: Random, names: list[str], most: int = 4) -> frozenset[str]:
    return frozenset(random.sample(names, random.randint(0, min(most, len(names)))))


def _token(random: Random, userid: str, number: int) -> Token:
    return Token(userid, f"t{number}", b"", random.random() < 0.7, _expire(random))


def _entry(random: Random, kind: SubjectKind, subject: str) -> AclEntry:
    return AclEntry(random.choice(PATHS), kind, subject, random.choice(ROLES), random.random() < 0.6)


def _pools(random: Random) -> Iterator[Pool]:
    left = list(VMIDS)
    random.shuffle(left)
    for poolid in POOLS:
        vms = [left.pop() for _ in range(random.randint(0, min(2, len(left))))]
        yield Pool(poolid, "", frozenset(vms))


def question(random: Random, snapshot: Snapshot) -> tuple[str, str]:
    """A subject and a path; now and then ones that are not there."""
    strangers = ["root@pam", "nobody@pve", "u0@pve!none"]
    subjects = strangers if random.random() < 0.05 else [*snapshot.users, *snapshot.tokens]
    return random.choice(subjects), random.choice(PATHS)
