"""Who may do what: pure decisions over a `Snapshot`, by the rules of Proxmox VE 9.

1. `root@pam` may do everything; no ACL is asked.
2. Who is unknown, disabled or expired may do nothing. Nor may a token that is, or whose user is.
3. A token without privilege separation may do exactly what its user may. One with it may do what its own ACL entries
   give AND its user may. Its own entries are those that name the token: what its user and the user's groups are given
   is the user's part.
4. A path is walked from `/` down. At each step the entries of the user count, or where there is none, those of all the
   user's groups together. Above the last step only entries that propagate count. If there are any, they replace what
   was found so far.
5. If `NoAccess` is among what was found, it is all that was found.
6. A VM in a pool has also what rule 4 and 5 find on `/pool/POOLID`, and this does not propagate. But a `NoAccess` of
   the VM's path keeps the pool out, and a `NoAccess` of the pool overrules the rest.
7. An entry whose role does not exist is no entry.

A subject is a text, `name@realm` or `name@realm!token`. Times are seconds since the epoch and come from the caller.

What is asked again is remembered as long as its snapshot, for the last few thousand pairs of subject and path; only
names of privileges are, and they are the roles' own sets where one role decides. Where a privilege comes from is looked
up when it is asked.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from guestwire.access.paths import LONGEST, normalize, steps
from guestwire.access.privileges import ALL
from guestwire.access.roles import ADMINISTRATOR, NO_ACCESS, roles
from guestwire.access.subject import split
from guestwire.errors import Forbidden
from guestwire.stores import AclEntry, Snapshot, Token, User
from guestwire.stores.snapshot import AclOfSubject

SUPERUSER: Final = "root@pam"

REMEMBERED: Final = 4096
"""Pairs of subject and path a snapshot remembers."""

NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Grant:
    """Where a privilege comes from: an ACL entry that gives a role which has it; `pool` when it reaches a VM by way of a pool."""

    entry: AclEntry
    pool: str | None = None

    @property
    def propagates(self) -> bool:
        """True if it reaches what is below the path that was asked about."""
        return self.entry.propagate and self.pool is None


@dataclass(frozen=True, slots=True)
class EffectivePrivilege:
    """One privilege that a subject has.

    A token with privilege separation needs two grants: the token's own come first, its user's after.
    """

    propagates: bool
    grants: tuple[Grant, ...]


Grants = tuple[Grant, ...]

ROOT: Final[Grants] = (Grant(AclEntry("/", "user", SUPERUSER, ADMINISTRATOR)),)
"""What `root@pam` has; nobody wrote it."""


def check(snapshot: Snapshot, subject: str, path: str, any_of: Iterable[str], now: float) -> Forbidden | None:
    """None if `subject` has one of the privileges `any_of` on `path`, else the words of the refusal."""
    held = held_on(snapshot, subject, path, now)
    for privilege in any_of:
        if privilege in held:
            return None
    return Forbidden(normalize(path) or path, tuple(any_of))


def held_on(snapshot: Snapshot, subject: str, path: str, now: float) -> frozenset[str]:
    """The names of the privileges that `subject` has on `path`."""
    if len(path) > LONGEST:  # no access path; and nothing that a client may make as long as it likes is remembered
        return NOTHING
    memory = snapshot.derive(_Memory)
    found = memory.decisions.get((subject, path))
    if found is None:
        found = memory.remember((subject, path), _decide(snapshot, memory, subject, path))
    until, held = found
    return held if now <= until else NOTHING


def privileges(snapshot: Snapshot, subject: str, path: str, now: float) -> Mapping[str, EffectivePrivilege]:
    """Which privileges `subject` has on `path`, by name, and from where."""
    who = _who(snapshot, subject)
    where = normalize(path)
    if who is None or where is None or now > who.until:
        return {}
    memory = snapshot.derive(_Memory)
    root = who.userid == SUPERUSER
    grants = ROOT if root else _grants(_of_user(snapshot, memory, who.userid, where), snapshot, where)
    user = _by_privilege(memory, grants)
    if who.separated is None:
        return {name: EffectivePrivilege(_any(grants), grants) for name, grants in user.items()}
    own = _by_privilege(memory, _grants(_of_token(snapshot, memory, who.separated, where), snapshot, where))
    return {
        name: EffectivePrivilege(_any(own[name]) and _any(user[name]), own[name] + user[name])
        for name in sorted(own.keys() & user.keys())
    }


def permissions(snapshot: Snapshot, subject: str, path: str, now: float) -> dict[str, int]:
    """As `GET /access/permissions` tells it: 1 for a privilege that propagates, 0 for one that holds on this path alone."""
    return {name: int(held.propagates) for name, held in privileges(snapshot, subject, path, now).items()}


TOP: Final = ("/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms")
"""Paths that are told of even where no ACL entry is."""


def all_permissions(snapshot: Snapshot, subject: str, now: float) -> dict[str, dict[str, int]]:
    """As `GET /access/permissions` without a path tells it: `permissions` of every path with an ACL entry or a VM in a pool, where there are any."""
    paths = {*TOP, *snapshot.acl_paths, *(f"/vms/{vmid}" for vmid in snapshot.pool_of)}
    found = ((path, permissions(snapshot, subject, path, now)) for path in sorted(paths))
    return {path: held for path, held in found if held}


class _Memory:
    """What a snapshot's decisions share. `users` has at most one item for each user of the snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.roles = snapshot.derive(roles)
        self.decisions: dict[tuple[str, str], _Decision] = {}
        self.users: dict[str, _Sources] = {}

    def remember(self, question: tuple[str, str], decision: "_Decision") -> "_Decision":
        """Forgets all when there are too many: that costs less than to know which is the oldest."""
        if len(self.decisions) >= REMEMBERED:
            self.decisions.clear()
        self.decisions[question] = decision
        return decision


_Decision = tuple[float, frozenset[str]]
"""Until when (the subject expires), and what."""

_nobody: Final[_Decision] = (math.inf, NOTHING)


@dataclass(frozen=True, slots=True)
class _Who:
    """A subject that may act: `separated` is the key of a token with privilege separation; `until`: seconds since the epoch."""

    userid: str
    separated: str | None
    until: float


def _who(snapshot: Snapshot, subject: str) -> _Who | None:
    """None: unknown or disabled."""
    userid, name = split(subject)
    user = snapshot.users.get(userid)
    if (user is None and userid != SUPERUSER) or (user is not None and not user.enable):
        return None
    if name is None:
        return _Who(userid, None, _until(user))
    token = snapshot.tokens.get(subject)
    if token is None:
        return None
    return _Who(userid, subject if token.privsep else None, min(_until(user), _until(token)))


def _until(record: User | Token | None) -> float:
    return record.expire if record and record.expire else math.inf


def _decide(snapshot: Snapshot, memory: _Memory, subject: str, path: str) -> _Decision:
    who, where = _who(snapshot, subject), normalize(path)
    if who is None or where is None:
        return _nobody
    held = ALL if who.userid == SUPERUSER else _names(memory, _of_user(snapshot, memory, who.userid, where))
    if who.separated is not None and held:
        held &= _names(memory, _of_token(snapshot, memory, who.separated, where))
    return who.until, held


Entries = tuple[AclEntry, ...]
Found = tuple[Entries, Entries]
"""The entries that decide: of the path itself, and of the pool."""

_nothing_found: Final[Found] = ((), ())


@dataclass(frozen=True, slots=True)
class _Sources:
    """The ACL entries of a subject by path, and those of each of its groups that has any."""

    own: AclOfSubject
    groups: tuple[AclOfSubject, ...]


def _of_user(snapshot: Snapshot, memory: _Memory, userid: str, path: str) -> Found:
    sources = memory.users.get(userid)
    if sources is None:
        groups = (snapshot.acl_of.get(("group", groupid)) for groupid in sorted(snapshot.groups_of.get(userid, ())))
        own = snapshot.acl_of.get(("user", userid), _no_entries)
        sources = memory.users[userid] = _Sources(own, tuple(entries for entries in groups if entries))
    return _found(snapshot, memory, sources, path)


def _of_token(snapshot: Snapshot, memory: _Memory, token: str, path: str) -> Found:
    return _found(snapshot, memory, _Sources(snapshot.acl_of.get(("token", token), _no_entries), ()), path)


_no_entries: Final[AclOfSubject] = {}


def _found(snapshot: Snapshot, memory: _Memory, sources: _Sources, path: str) -> Found:
    """Rules 4 to 7."""
    if not sources.own and not sources.groups:
        return _nothing_found
    own = _walk(snapshot, memory, sources, path)
    pool = _pool(snapshot, path)
    if pool is None or _forbids(own):
        return own, ()
    shared = _walk(snapshot, memory, sources, f"/pool/{pool}")
    return (() if _forbids(shared) else own), shared


def _walk(snapshot: Snapshot, memory: _Memory, sources: _Sources, path: str) -> Entries:
    """Rules 4, 5 and 7."""
    found: Entries = ()
    for step in steps(path):
        if step in snapshot.acl_paths:
            found = _at(memory, sources, step, last=step == path) or found
    for entry in found:
        if entry.roleid == NO_ACCESS:
            return (entry,)
    return found


def _at(memory: _Memory, sources: _Sources, step: str, *, last: bool) -> Entries:
    """The entries that count at one step."""
    own = sources.own.get(step)
    if own and (counting := _counting(memory, own, last=last)):
        return counting
    entries = [entry for group in sources.groups if step in group for entry in group[step]]
    return _counting(memory, entries, last=last) if entries else ()


def _counting(memory: _Memory, entries: Iterable[AclEntry], *, last: bool) -> Entries:
    return tuple(entry for entry in entries if (last or entry.propagate) and entry.roleid in memory.roles)


def _pool(snapshot: Snapshot, path: str) -> str | None:
    """The pool of the VM that the path means."""
    vmid = path[5:]
    if not path.startswith("/vms/") or not vmid.isdigit() or vmid[0] == "0":
        return None
    return snapshot.pool_of.get(int(vmid))


def _forbids(entries: Entries) -> bool:
    return bool(entries) and entries[0].roleid == NO_ACCESS


def _names(memory: _Memory, found: Found) -> frozenset[str]:
    sets = {entry.roleid: memory.roles[entry.roleid] for entries in found for entry in entries}
    if len(sets) == 1:
        return next(iter(sets.values()))
    return NOTHING.union(*sets.values())


def _grants(found: Found, snapshot: Snapshot, path: str) -> Grants:
    pool = _pool(snapshot, path)
    return (*(Grant(entry) for entry in found[0]), *(Grant(entry, pool) for entry in found[1]))


def _by_privilege(memory: _Memory, grants: Grants) -> dict[str, Grants]:
    found: dict[str, list[Grant]] = {}
    for grant in grants:
        for name in memory.roles[grant.entry.roleid]:
            found.setdefault(name, []).append(grant)
    return {name: tuple(found[name]) for name in sorted(found)}


def _any(grants: Grants) -> bool:
    return any(grant.propagates for grant in grants)
