"""Roles: the built-in ones, made from the levels of `privileges.py`, and those somebody made, which are in the snapshot."""

from collections.abc import Iterator, Mapping
from typing import Final

from guestwire.access.privileges import ALL, CATEGORIES
from guestwire.errors import BuiltInRole
from guestwire.stores import Snapshot

ADMINISTRATOR: Final = "Administrator"
NO_ACCESS: Final = "NoAccess"

Roles = Mapping[str, frozenset[str]]


def _made_from_levels() -> Iterator[tuple[str, frozenset[str]]]:
    auditor, admin = frozenset[str](), frozenset[str]()
    for category, levels in CATEGORIES.items():
        all_three = levels.admin | levels.user | levels.audit
        yield f"PVE{category}Admin", all_three
        if levels.user:
            yield f"PVE{category}User", levels.user | levels.audit
        auditor |= levels.audit
        admin |= all_three
    yield "PVEAuditor", auditor
    # Who may change what devices a mapping means can reach the host's hardware: Proxmox VE leaves it out here.
    yield "PVEAdmin", admin - {"Mapping.Modify"}


BUILT_IN: Final[Roles] = {
    ADMINISTRATOR: ALL,
    NO_ACCESS: frozenset(),
    **dict(_made_from_levels()),
    "PVETemplateUser": frozenset({"VM.Clone", "VM.Audit"}),
}
"""Privileges by roleid."""


def roles(snapshot: Snapshot) -> Roles:
    """All roles; a stored one never stands in for a built-in one, and has no privilege that there isn't."""
    own = {role.roleid: role.privileges & ALL for role in snapshot.roles.values()}
    return {**own, **BUILT_IN}


def refuse_built_in(roleid: str, what: str) -> None:
    """Before a role is changed; `what` is "modified" or "deleted".

    Raises:
        BuiltInRole: this one can't be.
    """
    if roleid in BUILT_IN:
        raise BuiltInRole(roleid, what)
