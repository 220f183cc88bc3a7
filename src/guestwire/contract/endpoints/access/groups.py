"""Groups of users.

Source: Proxmox VE's API of the same paths.
"""

import msgspec

from guestwire.access import administration as admin
from guestwire.access.checks import Privileges
from guestwire.contract.context import AccessContext
from guestwire.contract.endpoint import Effect, Registry
from guestwire.contract.endpoints.access.common import ALLOCATE_GROUPS, GROUP_AUDIT, Comment, Groupid, given_fields
from guestwire.contract.parameters import Parameters
from guestwire.stores.records import Group

endpoints = Registry()


class ListedGroup(msgspec.Struct, frozen=True, omit_defaults=True):
    """A group in the list; `users` has commas between."""

    groupid: str
    users: str
    comment: str | None = None


class GroupInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A group."""

    members: list[str]
    comment: str | None = None


class OneGroup(Parameters, frozen=True, kw_only=True):
    """A group."""

    groupid: Groupid


class GroupFields(OneGroup, frozen=True, kw_only=True):
    """A group and its comment."""

    comment: Comment | None = None


@endpoints.endpoint("GET", "/access/groups", Parameters)
async def groups(context: AccessContext, _parameters: Parameters) -> list[ListedGroup]:
    """Lists the groups that the caller may see."""
    return [
        ListedGroup(groupid, ",".join(sorted(group.members)), group.comment or None)
        for groupid, group in sorted(context.access.snapshot.groups.items())
        if context.access.may(context.subject, f"/access/groups/{groupid}", GROUP_AUDIT)
    ]


@endpoints.endpoint("POST", "/access/groups", GroupFields, check=ALLOCATE_GROUPS, effect=Effect.WRITES)
async def create_group(context: AccessContext, parameters: GroupFields) -> None:
    """Makes a group."""
    group = Group(parameters.groupid, parameters.comment or "")
    with admin.failing("create group failed"):
        await context.access.update(lambda snapshot: admin.add_group(snapshot, group))


@endpoints.endpoint(
    "GET", "/access/groups/{groupid}", OneGroup, check=Privileges("/access/groups", ("Sys.Audit", "Group.Allocate"))
)
async def group_page(context: AccessContext, parameters: OneGroup) -> GroupInfo:
    """Shows a group with its members."""
    group = admin.existing_group(context.access.snapshot, parameters.groupid)
    return GroupInfo(sorted(group.members), group.comment or None)


@endpoints.endpoint("PUT", "/access/groups/{groupid}", GroupFields, check=ALLOCATE_GROUPS, effect=Effect.WRITES)
async def update_group(context: AccessContext, parameters: GroupFields) -> None:
    """Changes a group's comment."""
    fields = given_fields(parameters, ("comment",))
    with admin.failing("update group failed"):
        await context.access.update(lambda snapshot: admin.change_group(snapshot, parameters.groupid, fields))


@endpoints.endpoint("DELETE", "/access/groups/{groupid}", OneGroup, check=ALLOCATE_GROUPS, effect=Effect.WRITES)
async def delete_group(context: AccessContext, parameters: OneGroup) -> None:
    """Removes a group, not its members."""
    with admin.failing("delete group failed"):
        await context.access.update(lambda snapshot: admin.remove_group(snapshot, parameters.groupid))
