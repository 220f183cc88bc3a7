"""Whether a subject has what a call needs: `checks.py` says what, `engine.py` what the subject has.

The parameters are looked at before they are validated, for a refusal comes before it is said what is wrong with them.

Source: what Proxmox VE's schema calls `permissions`; its order of checks.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from guestwire.access import checks, engine
from guestwire.access.paths import normalize
from guestwire.access.subject import Subject
from guestwire.errors import AccessRefused, Forbidden
from guestwire.stores.snapshot import Snapshot

GROUPS: Final = "/access/groups"

_parameter: Final = re.compile(r"\{(\w+)\}")

_MODIFY: Final = {"storage": "Datastore.Allocate", "vms": "VM.Allocate", "pool": "Pool.Allocate"}
"""Who holds this on something below may change its ACL too."""


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks for what, and what it is decided from; `now` in seconds since the epoch."""

    snapshot: Snapshot
    subject: Subject
    given: Mapping[str, Any]
    now: float

    def text(self, name: str) -> str:
        """A parameter, when it is a text; else the empty one, which nothing is allowed on."""
        value = self.given.get(name)
        return value if isinstance(value, str) else ""

    def refused(self, path: str, any_of: Iterable[str]) -> Forbidden | None:
        """The refusal, unless the subject has one of these privileges on the path."""
        return engine.check(self.snapshot, str(self.subject), path, tuple(any_of), self.now)


def require(question: Question, check: checks.Check) -> None:
    """Returns when the subject has what is needed.

    Raises:
        Forbidden: it has not.
        AccessRefused: the call is about a user that is not there.
    """
    if refusal := _refusal(question, check):
        raise refusal


def _refusal(question: Question, check: checks.Check) -> Forbidden | None:  # noqa: PLR0911  # one case each
    match check:
        case checks.Everybody() | checks.LoggedIn():
            return None
        case checks.Privileges():
            return question.refused(_filled(check.path, question.given), check.any_of)
        case checks.ModifyPermissions():
            return modify_refusal(question, question.text("path"))
        case checks.Self():
            return None if question.text("userid") == str(question.subject) else Forbidden()
        case checks.OverRealm():
            realm = question.text("userid").rpartition("@")[2]
            return question.refused(f"/access/realm/{realm}", (check.privilege,))
        case checks.OverUser():
            return _over_user(question, check)
        case checks.AnyOf():
            return _any_of(question, check)
        case checks.AllOf():
            found = (_refusal(question, part) for part in check.checks)
            return next(filter(None, found), None)


def _filled(template: str, given: Mapping[str, Any]) -> str:
    return _parameter.sub(lambda found: written(given.get(found[1], "")), template)


def written(value: object) -> str:
    """A value as the contract will take it, when it takes it: what is decided about must be what is done (JSON's 1e3 names the pool 1000)."""
    return format(value, ".15g") if isinstance(value, float) else str(value)


def _any_of(question: Question, check: checks.AnyOf) -> Forbidden | None:
    allowed = any(_refusal(question, part) is None for part in check.checks)
    return None if allowed else Forbidden()


def modify_refusal(question: Question, path: str) -> Forbidden | None:
    """The refusal, unless the subject may change the ACL of the path."""
    where = normalize(path) or "/access"
    area, _, below = where.lstrip("/").partition("/")
    more = (_MODIFY[area],) if below and area in _MODIFY else ()
    return question.refused(where, ("Permissions.Modify", *more))


def _over_user(question: Question, check: checks.OverUser) -> Forbidden | None:
    userid = question.text("userid")
    if check.groups != "create" and userid not in question.snapshot.users:
        raise AccessRefused(f"no such user ('{userid}')")
    refusal = question.refused(GROUPS, check.any_of)
    if refusal is None:
        return None
    if check.groups and (missing := _named_groups(question, check)):
        return missing
    if check.groups == "create":
        return None
    held = groups_held(question, check.any_of)
    return None if held & question.snapshot.groups_of.get(userid, frozenset()) else Forbidden()


def _named_groups(question: Question, check: checks.OverUser) -> Forbidden | None:
    """The refusal for the groups that the parameter names; a new user has to be in one."""
    named = question.text("groups").replace(",", " ").replace(";", " ").split()
    if not named and (check.groups == "create" or "groups" in question.given):
        return Forbidden(GROUPS, check.any_of)
    refusals = (question.refused(f"{GROUPS}/{group}", check.any_of) for group in named)
    return next(filter(None, refusals), None)


def groups_held(question: Question, any_of: Iterable[str]) -> frozenset[str]:
    """The groups on which the subject has one of these privileges."""
    privileges = tuple(any_of)
    return frozenset(
        groupid for groupid in question.snapshot.groups if question.refused(f"{GROUPS}/{groupid}", privileges) is None
    )
