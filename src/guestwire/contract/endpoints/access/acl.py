"""Access control lists, and the permissions that follow from them.

Source: Proxmox VE's API of the same paths.
"""

from typing import Annotated

import msgspec

from guestwire.access import administration as admin
from guestwire.access.checks import ModifyPermissions
from guestwire.access.values import split_list
from guestwire.contract.context import AccessContext
from guestwire.contract.endpoint import Effect, Registry
from guestwire.contract.endpoints.access.common import Groups
from guestwire.contract.parameters import Parameters, Role, parameter
from guestwire.errors import InvalidParameters
from guestwire.stores.records import SubjectKind

endpoints = Registry()


class ListedAcl(msgspec.Struct, frozen=True):
    """One entry: `type` is user, group or token, `ugid` which one."""

    path: str
    type: str
    ugid: str
    roleid: str
    propagate: int


@endpoints.endpoint("GET", "/access/acl", Parameters)
async def acl(context: AccessContext, _parameters: Parameters) -> list[ListedAcl]:
    """Lists the ACL entries that the caller may see."""
    access, subject = context.access, context.subject
    sees_all = access.may(subject, "/access", ("Sys.Audit",))
    return [
        ListedAcl(entry.path, entry.kind, entry.subject, entry.roleid, int(entry.propagate))
        for _, entry in sorted(access.snapshot.acl.items())
        if sees_all or access.may_modify_acl(subject, entry.path)
    ]


class UpdateAcl(Parameters, frozen=True, kw_only=True):
    """Parameters of a change to the ACL."""

    path: Annotated[str, parameter("The access path.", Role.TEXT)]
    roles: Annotated[str, parameter("Roles, with commas between.", Role.TEXT, format="pve-roleid-list")]
    users: Annotated[str, parameter("Users, with commas between.", Role.TEXT, format="pve-userid-list")] | None = None
    groups: Groups | None = None
    tokens: Annotated[str, parameter("Tokens, with commas between.", Role.TEXT, format="pve-tokenid-list")] | None = (
        None
    )
    propagate: Annotated[bool, parameter("Holds below the path too.")] = True
    delete: Annotated[bool, parameter("Takes the roles away.")] = False


@endpoints.endpoint("PUT", "/access/acl", UpdateAcl, check=ModifyPermissions(), effect=Effect.WRITES)
async def update_acl(context: AccessContext, parameters: UpdateAcl) -> None:
    """Gives users, groups or tokens roles on a path, or takes them away."""
    given: tuple[tuple[SubjectKind, str | None], ...] = (
        ("user", parameters.users),
        ("group", parameters.groups),
        ("token", parameters.tokens),
    )
    if not any(names for _, names in given):
        why = "either 'users', 'groups' or 'tokens' is required."
        raise InvalidParameters(dict.fromkeys(("users", "groups", "tokens"), why))
    subjects = [(kind, name) for kind, names in given for name in split_list(names or "")]
    roles = split_list(parameters.roles)
    context.access.check_may_give(
        context.subject, parameters.path, roles, propagate=parameters.propagate, delete=parameters.delete
    )
    with admin.failing("ACL update failed"):
        if parameters.delete:
            await context.access.update(lambda snapshot: admin.remove_acl(snapshot, parameters.path, subjects, roles))
        else:
            await context.access.update(
                lambda snapshot: admin.add_acl(
                    snapshot, parameters.path, subjects, roles, propagate=parameters.propagate
                )
            )


class GetPermissions(Parameters, frozen=True, kw_only=True):
    """Parameters of a look at permissions."""

    userid: (
        Annotated[
            str,
            parameter(
                "A user or USERID!TOKENID; default: the caller.",
                Role.TEXT,
                pattern=r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+(?:![A-Za-z][A-Za-z0-9.\-_]+)?",
            ),
        ]
        | None
    ) = None
    path: Annotated[str, parameter("Only this path.", Role.TEXT)] | None = None


@endpoints.endpoint("GET", "/access/permissions", GetPermissions)
async def permissions(context: AccessContext, parameters: GetPermissions) -> dict[str, dict[str, int]]:
    """Shows privileges by path; 1 means that one propagates."""
    subject = context.access.visible_subject(context.subject, parameters.userid)
    return context.access.permissions(subject, parameters.path)
