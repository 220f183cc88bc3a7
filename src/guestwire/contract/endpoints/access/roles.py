"""Roles: privileges that are given together.

Source: Proxmox VE's API of the same paths.
"""

from typing import Annotated

import msgspec

from guestwire.access import administration as admin
from guestwire.access.values import split_list
from guestwire.contract.context import AccessContext
from guestwire.contract.endpoint import Effect, Registry
from guestwire.contract.endpoints.access.common import MODIFY_SYSTEM, PrivilegeList, Roleid
from guestwire.contract.parameters import Parameters, parameter
from guestwire.stores.records import Role

endpoints = Registry()


class ListedRole(msgspec.Struct, frozen=True):
    """A role in the list; `special` is 1 for a built-in one."""

    roleid: str
    privs: str
    special: int


class OneRole(Parameters, frozen=True, kw_only=True):
    """A role."""

    roleid: Roleid


class CreateRole(OneRole, frozen=True, kw_only=True):
    """Parameters of a new role."""

    privs: PrivilegeList | None = None


class UpdateRole(CreateRole, frozen=True, kw_only=True):
    """Parameters of a change to a role."""

    append: Annotated[bool, parameter("Adds to the role's privileges instead of replacing them.", requires="privs")] = (
        False
    )


@endpoints.endpoint("GET", "/access/roles", Parameters)
async def roles(context: AccessContext, _parameters: Parameters) -> list[ListedRole]:
    """Lists all roles."""
    return [
        ListedRole(roleid, ",".join(sorted(privileges)), int(roleid not in context.access.snapshot.roles))
        for roleid, privileges in sorted(context.access.roles().items())
    ]


@endpoints.endpoint("POST", "/access/roles", CreateRole, check=MODIFY_SYSTEM, effect=Effect.WRITES)
async def create_role(context: AccessContext, parameters: CreateRole) -> None:
    """Makes a role."""
    role = Role(parameters.roleid, frozenset(split_list(parameters.privs or "")))
    with admin.failing("create role failed"):
        await context.access.update(lambda snapshot: admin.add_role(snapshot, role))


@endpoints.endpoint("GET", "/access/roles/{roleid}", OneRole)
async def role_page(context: AccessContext, parameters: OneRole) -> dict[str, int]:
    """Shows a role's privileges."""
    return dict.fromkeys(sorted(admin.existing_role(context.access.snapshot, parameters.roleid)), 1)


@endpoints.endpoint("PUT", "/access/roles/{roleid}", UpdateRole, check=MODIFY_SYSTEM, effect=Effect.WRITES)
async def update_role(context: AccessContext, parameters: UpdateRole) -> None:
    """Changes an own role."""
    privileges = split_list(parameters.privs or "")
    with admin.failing("update role failed"):
        await context.access.update(
            lambda snapshot: admin.change_role(snapshot, parameters.roleid, privileges, append=parameters.append)
        )


@endpoints.endpoint("DELETE", "/access/roles/{roleid}", OneRole, check=MODIFY_SYSTEM, effect=Effect.WRITES)
async def delete_role(context: AccessContext, parameters: OneRole) -> None:
    """Removes an own role, and the permissions that name it."""
    with admin.failing("delete role failed"):
        await context.access.update(lambda snapshot: admin.remove_role(snapshot, parameters.roleid))
