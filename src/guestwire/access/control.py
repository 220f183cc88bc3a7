"""Access control of one server: what the gateway and the endpoints of `/access` use."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from guestwire.access import authentication, checks, engine, keys, passwords, realms, requirements, tickets
from guestwire.access.capabilities import capabilities
from guestwire.access.credentials import Credentials
from guestwire.access.realms import PVE, REALMS, Realm
from guestwire.access.requirements import GROUPS, Question
from guestwire.access.roles import Roles, roles
from guestwire.access.subject import Subject
from guestwire.access.throttle import FAILED, Throttle
from guestwire.errors import AccessRefused, Forbidden, InvalidParameters, NotAuthenticated
from guestwire.stores.records import AuditFilter, AuditRecord, Change
from guestwire.stores.snapshot import Snapshot
from guestwire.stores.store import AuditedStore
from guestwire.stores.store import update as update_store

Wanted = tuple[str, Sequence[str]]
"""A path, and privileges on it, all of which are wanted."""


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
        """The one place where access is decided; see `requirements.require`."""
        requirements.require(self._question(subject, given), check)

    def may(self, subject: Subject, path: str, any_of: Iterable[str]) -> bool:
        """Whether the subject has one of these privileges on the path."""
        return self._question(subject).refused(path, any_of) is None

    def may_modify_acl(self, subject: Subject, path: str) -> bool:
        """Whether the subject may change the ACL of the path."""
        return requirements.modify_refusal(self._question(subject), path) is None

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
        held = engine.permissions(self.snapshot, str(subject), path, self._clock())
        if "Permissions.Modify" in held:
            return
        verb = "remove" if delete else "add"
        for role in given:
            needed = roles(self.snapshot).get(role, frozenset())
            if needed - held.keys():
                why = f"Cannot {verb} role '{role}' - requires 'Permissions.Modify' or superset of privileges."
                raise InvalidParameters({"role": why})
            if propagate and not delete and not all(held[privilege] for privilege in needed):
                why = f"Cannot {verb} role '{role}' with propagation - requires 'Permissions.Modify' or propagated superset of privileges."
                raise InvalidParameters({"role": why})

    def _question(self, subject: Subject, given: Mapping[str, Any] | None = None) -> Question:
        return Question(self.snapshot, subject, given or {}, self._clock())

    # What may be seen

    def visible_users(self, subject: Subject, any_of: Sequence[str]) -> frozenset[str]:
        """The users that the subject may see: all, the members of its groups, itself when it is a user."""
        if self.may(subject, GROUPS, any_of):
            return frozenset(self.snapshot.users)
        groups = requirements.groups_held(self._question(subject), any_of)
        members = (self.snapshot.groups[groupid].members for groupid in groups)
        return frozenset({str(subject)}).union(*members)

    def visible_subject(self, subject: Subject, wanted: str | None) -> str:
        """Whose permissions are shown: the caller's own, to a user its tokens', or anybody's to an auditor.

        Raises:
            Forbidden: not these.
            AccessRefused: there is no such user or token.
        """
        if wanted is None or wanted == str(subject):
            return str(subject)
        if engine.split(wanted)[0] != str(subject):
            requirements.require(self._question(subject), checks.Privileges("/access", ("Sys.Audit",)))
        if wanted not in self.snapshot.users and wanted not in self.snapshot.tokens:
            raise AccessRefused(f"no such user ('{wanted}')")
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

    async def login(self, username: str, password: str, address: str, wanted: Wanted | None = None) -> Login:
        """Logs a user in, by its password or by a ticket that is still valid.

        Args:
            username: `NAME@REALM`.
            password: or a ticket.
            address: the client's; failed logins are counted by it.
            wanted: the login fails when the user lacks one of these privileges.

        Raises:
            NotAuthenticated: no; after three seconds.
        """
        async with self._throttle.attempt(address, username):
            if not await self._is_login(username, password) or not self._holds(username, wanted):
                raise NotAuthenticated(FAILED)
        return await self._new_login(username)

    async def _is_login(self, username: str, password: str) -> bool:
        now = self._clock()
        if tickets.user_of_ticket(keys.keys_of(self.snapshot, "ticket"), password, now) == username:
            return authentication.may_come_in(self.snapshot, username, now)
        user = self.snapshot.users.get(username)
        if user is None and username.endswith(f"@{realms.PAM}"):
            return False  # an account of the host that nobody made a user is not asked about
        is_right = await realms.is_login(username, password, user.password_hash if user else None, self._usable())
        return is_right and authentication.may_come_in(self.snapshot, username, now)

    def _holds(self, username: str, wanted: Wanted | None) -> bool:
        subject = Subject(username)
        return wanted is None or all(self.may(subject, wanted[0], (privilege,)) for privilege in wanted[1])

    async def _new_login(self, username: str) -> Login:
        await self.rotate_keys()
        now = self._clock()
        ticket_key, csrf_key = (keys.keys_of(self.snapshot, kind)[0] for kind in keys.KINDS)
        return Login(tickets.make_ticket(ticket_key, username, now), tickets.make_csrf(csrf_key, username, now))

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
