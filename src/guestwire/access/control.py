"""Access control of one server: what the gateway and the endpoints of `/access` use.

`checks.py` says what a call needs, `engine.py` what a subject has; here, in `require`, the one is asked of the other.
The parameters are looked at before they are validated, for a refusal comes before it is said what is wrong with them.

Source: what Proxmox VE's schema calls `permissions`; its order of checks.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from guestwire.access import authentication, checks, engine, keys, passwords, realms, tickets
from guestwire.access.authentication import Credentials
from guestwire.access.capabilities import capabilities
from guestwire.access.paths import normalize
from guestwire.access.realms import PVE, REALMS, Realm
from guestwire.access.roles import NO_ACCESS, Roles, roles
from guestwire.access.subject import Subject, split
from guestwire.access.throttle import FAILED, Throttle
from guestwire.access.values import canonical, split_list
from guestwire.errors import AccessRefused, Forbidden, InvalidParameters, NotAuthenticated
from guestwire.stores.records import AuditFilter, AuditRecord, Change
from guestwire.stores.snapshot import Snapshot
from guestwire.stores.store import AuditedStore
from guestwire.stores.store import update as update_store

Wanted = tuple[str, Sequence[str]]
"""A path, and privileges on it, all of which are wanted."""

GROUPS: Final = "/access/groups"

_parameter: Final = re.compile(r"\{(\w+)\}")

_MODIFY: Final = {"storage": "Datastore.Allocate", "vms": "VM.Allocate", "pool": "Pool.Allocate"}
"""Who holds this on something below may change its ACL too."""


class AccessRequest(msgspec.Struct, frozen=True):
    """A caller with the parameters of a call, and what is decided from; `now` in seconds since the epoch."""

    snapshot: Snapshot
    subject: Subject
    given: Mapping[str, Any]
    now: float

    def text(self, name: str) -> str:
        """A parameter, when it is a text or a number; else the empty text, which nothing is allowed on."""
        value = self.given.get(name)
        return canonical(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""

    def refusal(self, path: str, any_of: Iterable[str]) -> Forbidden | None:
        """The refusal, unless the subject has one of these privileges on the path."""
        return engine.check(self.snapshot, self.subject.key, path, tuple(any_of), self.now)


@dataclass(frozen=True, slots=True)
class Login:
    """A ticket, and the CSRF token that goes with it; neither is shown."""

    ticket: str
    csrf: str

    def __repr__(self) -> str:
        return "Login(…)"


class Access:
    """Decides from the store's snapshot, and changes it.

    Args:
        store: belongs to whoever made it.
        realms: which can be used here.
        throttle: for failed logins.
        clock: seconds since the epoch; another one in tests.
    """

    def __init__(
        self,
        store: AuditedStore,
        *,
        usable_realms: Sequence[Realm] = REALMS,
        throttle: Throttle | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._throttle = throttle or Throttle()
        self._clock = clock
        self._turn = asyncio.Lock()
        self.realms: Final = tuple(usable_realms)

    @property
    def snapshot(self) -> Snapshot:
        """All users and what they may do, now."""
        return self._store.snapshot

    # Who calls, and may they?

    def authenticate(self, credentials: Credentials) -> Subject:
        """See `authentication.authenticate`."""
        return authentication.authenticate(self.snapshot, credentials, self._clock())

    def check_csrf(self, subject: Subject, token: str) -> None:
        """See `authentication.check_csrf`."""
        authentication.check_csrf(self.snapshot, subject, token, self._clock())

    def require(self, subject: Subject, check: checks.Check, given: Mapping[str, Any]) -> None:
        """Returns when the subject has what is needed: the one place where access is decided.

        Raises:
            Forbidden: it has not.
            AccessRefused: the call is about a user that is not there.
        """
        if refusal := _refusal(AccessRequest(self.snapshot, subject, given, self._clock()), check):
            raise refusal

    def may(self, subject: Subject, path: str, any_of: Iterable[str]) -> bool:
        """True if the subject has one of these privileges on the path."""
        return self._request(subject).refusal(path, any_of) is None

    def may_modify_acl(self, subject: Subject, path: str) -> bool:
        """True if the subject may change the ACL of the path."""
        return modify_refusal(self._request(subject), path) is None

    def check_may_give(
        self, subject: Subject, path: str, given: Iterable[str], *, propagate: bool, delete: bool
    ) -> None:
        """Who may not change permissions as such, but has a VM, pool or storage, may give and take what it has itself.

        Args:
            subject: who gives.
            path: of the ACL entries.
            given: roles.
            propagate: they hold below the path too; what is had on the path alone is given for the path alone.
            delete: they are taken away.

        Raises:
            InvalidParameters: a role has a privilege that the subject has not; in Proxmox VE's words.
        """
        held = engine.permissions(self.snapshot, subject.key, path, self._clock())
        if "Permissions.Modify" in held:
            return
        verb = "remove" if delete else "add"
        for role in given:
            if role == NO_ACCESS:  # it has no privileges to compare, and takes all of them away
                raise InvalidParameters({"role": f"Cannot {verb} role '{role}' - requires 'Permissions.Modify'"})
            needed = roles(self.snapshot).get(role, frozenset())
            if needed - held.keys():
                why = f"Cannot {verb} role '{role}' - requires 'Permissions.Modify' or superset of privileges."
                raise InvalidParameters({"role": why})
            if propagate and not delete and not all(held[privilege] for privilege in needed):
                why = f"Cannot {verb} role '{role}' with propagation - requires 'Permissions.Modify' or propagated superset of privileges."
                raise InvalidParameters({"role": why})

    def _request(self, subject: Subject) -> AccessRequest:
        return AccessRequest(self.snapshot, subject, {}, self._clock())

    # What may be seen

    def visible_users(self, subject: Subject, any_of: Sequence[str]) -> frozenset[str]:
        """The users that the subject may see: all, the members of its groups, itself when it is a user."""
        if self.may(subject, GROUPS, any_of):
            return frozenset(self.snapshot.users)
        groups = groups_held(self._request(subject), any_of)
        members = (self.snapshot.groups[groupid].members for groupid in groups)
        return frozenset({subject.key}).union(*members)

    def visible_subject(self, subject: Subject, wanted: str | None) -> str:
        """The subject whose permissions are shown: the caller itself, one of its tokens, or any to an auditor.

        There need be no such user or token.

        Raises:
            Forbidden: not these.
        """
        if wanted is None or wanted == subject.key:
            return subject.key
        if split(wanted)[0] != subject.key:
            self.require(subject, checks.Privileges("/access", ("Sys.Audit",)), {})
        return wanted

    def permissions(self, subject: str, path: str | None) -> dict[str, dict[str, int]]:
        """Privileges by path, each with whether it propagates."""
        if path is None:
            return engine.all_permissions(self.snapshot, subject, self._clock())
        return {path: engine.permissions(self.snapshot, subject, path, self._clock())}

    def capabilities(self, userid: str) -> dict[str, dict[str, int]]:
        """What a login page wants to know; see `capabilities.py`."""
        return capabilities(self.snapshot, userid, self._clock())

    def roles(self) -> Roles:
        """All roles with their privileges."""
        return roles(self.snapshot)

    # Logins

    async def login(
        self, username: str, password: str, address: str, wanted: Wanted | None = None, *,
        has_second_factor: bool = False,
    ) -> Login:  # fmt: skip
        """Logs a user in, by its password or by a ticket that is still valid.

        Args:
            username: `NAME@REALM`.
            password: or a ticket.
            address: the client's; failed logins are counted by it.
            wanted: the login fails when the user lacks one of these privileges.
            has_second_factor: one came with the password; the login fails, for there are none.

        Raises:
            NotAuthenticated: no; after three seconds.
        """
        # A password that is changed while it is checked here ends the ticket that is made for it.
        version = authentication.version_of(self.snapshot, username)
        async with self._throttle.attempt(address, username):
            is_right = authentication.user_of_ticket(self.snapshot, password, self._clock()) == username
            if not is_right:
                is_right = await self._is_password(username, password, address) and not has_second_factor
            if not (is_right and authentication.may_come_in(self.snapshot, username, self._clock())):
                raise NotAuthenticated(FAILED)
            if not self._holds(username, wanted):
                raise NotAuthenticated(FAILED)
        return await self._new_login(username, version)

    async def _is_password(self, username: str, password: str, address: str) -> bool:
        """The same work whether there is such a user or not: the time it takes must not tell."""
        user = self.snapshot.users.get(username)
        is_pam = username.endswith(f"@{realms.PAM}")
        asked = username if user or not is_pam else f"{realms.NO_ACCOUNT}@{realms.PAM}"
        turns = self._throttle.accounts if is_pam else self._throttle.passwords
        async with turns.turn(address):
            return await realms.is_login(asked, password, user.password_hash if user else None, self._usable())

    def _holds(self, username: str, wanted: Wanted | None) -> bool:
        subject = Subject(username)
        return wanted is None or all(self.may(subject, wanted[0], (privilege,)) for privilege in wanted[1])

    async def _new_login(self, username: str, version: str) -> Login:
        await self.rotate_keys()
        now = self._clock()
        ticket_key, csrf_key = (keys.keys_of(self.snapshot, kind)[0] for kind in keys.KINDS)
        ticket = tickets.make_ticket(ticket_key, username, version, now)
        return Login(ticket, tickets.make_csrf(csrf_key, username, now))

    async def rotate_keys(self) -> None:
        """Makes new keys and throws old ones away, when it is time."""
        if keys.due_changes(self.snapshot, self._clock()):
            await self.update(lambda snapshot: keys.due_changes(snapshot, self._clock()))

    def _usable(self) -> frozenset[str]:
        return frozenset(realm.realm for realm in self.realms)

    async def audit(self, wanted: AuditFilter, *, after: int | None = None, limit: int = 1000) -> list[AuditRecord]:
        """See `AuditLog.audit`."""
        return await self._store.audit(wanted, after=after, limit=limit)

    # Changes

    async def update(self, decide: Callable[[Snapshot], Sequence[Change]]) -> None:
        """Changes the store, one change after the other; see `stores.update` for what other processes do meanwhile."""
        async with self._turn:
            await update_store(self._store, decide)

    def check_may_touch(self, subject: Subject, userid: str) -> None:
        """Only root changes root: who may change users is not meant to become the one who may do everything.

        Raises:
            Forbidden: somebody else wants to.
        """
        if userid == engine.SUPERUSER != subject.user:
            raise Forbidden(why=f"only {engine.SUPERUSER} may change {engine.SUPERUSER} and its tokens")

    def check_realm(self, userid: str) -> None:
        """Refuses a user of a realm that is not there.

        Raises:
            AccessRefused: it is not.
        """
        realm = userid.rpartition("@")[2]
        if realm not in self._usable():
            raise AccessRefused(f"domain '{realm}' does not exist")

    async def new_password(self, userid: str, password: str) -> str:
        """The hash of a new password.

        Raises:
            AccessRefused: the user's realm keeps none.
        """
        realm = userid.rpartition("@")[2]
        if realm != PVE:
            raise AccessRefused(f"realm '{realm}' keeps its passwords elsewhere: change it on the host, with passwd")
        return await passwords.hash_password(password)

    def new_secret(self) -> tuple[str, bytes]:
        """A new token's secret, and what is kept of it."""
        secret = authentication.new_secret()
        return secret, authentication.secret_hash(secret)


def _refusal(request: AccessRequest, check: checks.Check) -> Forbidden | None:  # noqa: PLR0911  # one case each
    match check:
        case checks.Everybody() | checks.LoggedIn():
            return None
        case checks.Privileges():
            given = request.given
            path = _parameter.sub(lambda found: canonical(given.get(found[1], "")), check.path)
            return request.refusal(path, check.any_of)
        case checks.ModifyPermissions():
            return modify_refusal(request, request.text("path"))
        case checks.Self():
            return None if request.text("userid") == request.subject.key else Forbidden()
        case checks.OverRealm():
            realm = request.text("userid").rpartition("@")[2]
            return request.refusal(f"/access/realm/{realm}", (check.privilege,))
        case checks.OverUser():
            return _over_user(request, check)
        case checks.AnyOf():
            return _any_of(request, check)
        case checks.AllOf():
            found = (_refusal(request, part) for part in check.checks)
            return next(filter(None, found), None)


def _any_of(request: AccessRequest, check: checks.AnyOf) -> Forbidden | None:
    """As Proxmox VE: several that are needed together say what is missing; of other alternatives nothing is said."""
    for part in check.checks:
        if isinstance(part, checks.AllOf):
            return _refusal(request, part)
        with contextlib.suppress(AccessRefused):
            if _refusal(request, part) is None:
                return None
    return Forbidden()


def modify_refusal(request: AccessRequest, path: str) -> Forbidden | None:
    """The refusal, unless the subject may change the ACL of the path."""
    where = normalize(path) or "/access"
    area, _, below = where.lstrip("/").partition("/")
    more = (_MODIFY[area],) if below and area in _MODIFY else ()
    return request.refusal(where, ("Permissions.Modify", *more))


def _over_user(request: AccessRequest, check: checks.OverUser) -> Forbidden | None:
    userid = request.text("userid")
    # Root may do everything: what it does fails by itself, and in other words.
    if check.groups != "create" and userid not in request.snapshot.users and request.subject.key != engine.SUPERUSER:
        raise AccessRefused(f"no such user ('{userid}')")
    refusal = request.refusal(GROUPS, check.any_of)
    if refusal is None:
        return None
    if check.groups and (missing := _named_groups(request, check)):
        return missing
    if check.groups == "create":
        return None
    held = groups_held(request, check.any_of)
    return None if held & request.snapshot.groups_of.get(userid, frozenset()) else Forbidden()


def _named_groups(request: AccessRequest, check: checks.OverUser) -> Forbidden | None:
    """The refusal for the groups that the parameter names; it has to name one, of a user that is there, too."""
    named = split_list(request.text("groups"))
    if not named:
        return Forbidden(GROUPS, check.any_of)
    refusals = (request.refusal(f"{GROUPS}/{group}", check.any_of) for group in named)
    return next(filter(None, refusals), None)


def groups_held(request: AccessRequest, any_of: Iterable[str]) -> frozenset[str]:
    """The groups on which the subject has one of these privileges."""
    privileges = tuple(any_of)
    return frozenset(
        groupid for groupid in request.snapshot.groups if request.refusal(f"{GROUPS}/{groupid}", privileges) is None
    )
