"""Users, their passwords and their fields.

Source: Proxmox VE's API of the same paths.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import UnsetType

from guestwire.access import administration as admin
from guestwire.access.checks import AllOf, AnyOf, OverRealm, OverUser, Self
from guestwire.access.tickets import new_version
from guestwire.access.values import split_list
from guestwire.contract.context import AccessContext
from guestwire.contract.endpoint import Effect, Registry
from guestwire.contract.endpoints.access.common import (
    REALM_AND_MODIFY,
    USER_AUDIT,
    Expire,
    Groups,
    NamedToken,
    OneUser,
    Password,
    TokenInfo,
    Userid,
    given_fields,
    named_token,
    token_info,
    tokens_of,
)
from guestwire.contract.parameters import Parameters, Role, parameter
from guestwire.stores.records import User

endpoints = Registry()


class UserInfo(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a user's own page has."""

    enable: int | UnsetType
    expire: int | UnsetType
    firstname: str | None = None
    lastname: str | None = None
    email: str | None = None
    comment: str | None = None
    keys: str | None = None
    groups: list[str] | None = None
    tokens: dict[str, TokenInfo] | None = None


class ListedUser(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A user in the list; `groups` and `tokens` only when asked for in full."""

    userid: str
    realm_type: str = msgspec.field(name="realm-type")
    enable: int | UnsetType
    expire: int | UnsetType
    firstname: str | None = None
    lastname: str | None = None
    email: str | None = None
    comment: str | None = None
    keys: str | None = None
    groups: str | None = None
    tokens: list[NamedToken] | None = None


def _shown(user: User) -> dict[str, Any]:
    texts = ("firstname", "lastname", "email", "comment", "keys")
    return {
        "enable": int(user.enable),
        "expire": user.expire,
        **{name: getattr(user, name) or None for name in texts},
    }


def _groups_of(context: AccessContext, userid: str) -> list[str]:
    return sorted(context.access.snapshot.groups_of.get(userid, ()))


class ListUsers(Parameters, frozen=True, kw_only=True):
    """Parameters of the list of users."""

    enabled: Annotated[bool, parameter("Only enabled users, or only disabled ones.")] | None = None
    full: Annotated[bool, parameter("With groups and tokens.")] = False


@endpoints.endpoint("GET", "/access/users", ListUsers)
async def users(context: AccessContext, parameters: ListUsers) -> list[ListedUser]:
    """Lists the users that the caller may see: all, those of some groups, or only itself."""
    visible = context.access.visible_users(context.subject, USER_AUDIT)
    return [
        _list_item(context, user, full=parameters.full)
        for userid, user in sorted(context.access.snapshot.users.items())
        if userid in visible and parameters.enabled in (None, user.enable)
    ]


def _list_item(context: AccessContext, user: User, *, full: bool) -> ListedUser:
    more: dict[str, Any] = {}
    if full:
        more["groups"] = ",".join(_groups_of(context, user.userid))
        more["tokens"] = [named_token(token) for token in tokens_of(context, user.userid)]
    return ListedUser(userid=user.userid, realm_type=user.userid.rpartition("@")[2], **_shown(user), **more)


class UserFields(Parameters, frozen=True, kw_only=True):
    """What a user can have; what is left out is left as it is."""

    userid: Userid
    enable: Annotated[bool, parameter("Allows the user to log in.")] | None = None
    expire: Expire | None = None
    firstname: Annotated[str, parameter("The first name.", Role.TEXT, max_length=1024)] | None = None
    lastname: Annotated[str, parameter("The last name.", Role.TEXT, max_length=1024)] | None = None
    email: Annotated[str, parameter("The e-mail address.", Role.TEXT, max_length=254, format="email-opt")] | None = None
    comment: Annotated[str, parameter("A comment.", Role.TEXT, max_length=2048)] | None = None
    keys: (
        Annotated[
            str,
            parameter(
                "Kept, and not used: second factors are not supported.", Role.SECRET, pattern=r"[0-9a-zA-Z!=]{0,4096}"
            ),
        ]
        | None
    ) = None
    groups: Groups | None = None


_FIELDS: Final = ("enable", "expire", "firstname", "lastname", "email", "comment", "keys")


class CreateUser(UserFields, frozen=True, kw_only=True):
    """Parameters of a new user."""

    enable: Annotated[bool, parameter("Allows the user to log in.")] = True
    password: Password | None = None


@endpoints.endpoint(
    "POST",
    "/access/users",
    CreateUser,
    check=AllOf((OverRealm("Realm.AllocateUser"), OverUser(("User.Modify",), "create"))),
    effect=Effect.WRITES,
)
async def create_user(context: AccessContext, parameters: CreateUser) -> None:
    """Makes a user."""
    with admin.failing("create user failed"):
        context.access.check_realm(parameters.userid)
    hashed = await context.access.new_password(parameters.userid, parameters.password) if parameters.password else None
    fields = given_fields(parameters, _FIELDS)
    user = User(parameters.userid, password_hash=hashed, ticket_version=new_version(), **fields)
    groups = split_list(parameters.groups or "")
    with admin.failing("create user failed"):
        await context.access.update(lambda snapshot: admin.add_user(snapshot, user, groups))


@endpoints.endpoint("GET", "/access/users/{userid}", OneUser, check=OverUser(USER_AUDIT))
async def user_page(context: AccessContext, parameters: OneUser) -> UserInfo:
    """Shows a user."""
    user = admin.existing_user(context.access.snapshot, parameters.userid)
    tokens = {token.tokenid: token_info(token) for token in tokens_of(context, user.userid)}
    return UserInfo(groups=_groups_of(context, user.userid), tokens=tokens or None, **_shown(user))


class UpdateUser(UserFields, frozen=True, kw_only=True):
    """Parameters of a change to a user."""

    append: Annotated[bool, parameter("Adds to the user's groups instead of replacing them.", requires="groups")] = (
        False
    )


@endpoints.endpoint(
    "PUT", "/access/users/{userid}", UpdateUser, check=OverUser(("User.Modify",), "update"), effect=Effect.WRITES
)
async def update_user(context: AccessContext, parameters: UpdateUser) -> None:
    """Changes a user; a disabled one is refused from the next request on."""
    context.access.check_may_touch(context.subject, parameters.userid)
    groups = None if parameters.groups is None else split_list(parameters.groups)
    fields = given_fields(parameters, _FIELDS)
    with admin.failing("update user failed"):
        await context.access.update(
            lambda snapshot: admin.change_user(snapshot, parameters.userid, fields, groups, append=parameters.append)
        )


@endpoints.endpoint("DELETE", "/access/users/{userid}", OneUser, check=REALM_AND_MODIFY, effect=Effect.WRITES)
async def delete_user(context: AccessContext, parameters: OneUser) -> None:
    """Removes a user, with tokens and permissions."""
    context.access.check_may_touch(context.subject, parameters.userid)
    with admin.failing("delete user failed"):
        await context.access.update(lambda snapshot: admin.remove_user(snapshot, parameters.userid))


class ChangePassword(Parameters, frozen=True, kw_only=True):
    """Parameters of a new password."""

    userid: Userid
    password: Password
    confirmation_password: (
        Annotated[
            str,
            parameter("The caller's own password; checked when it is given.", Role.SECRET, min_length=5, max_length=64),
        ]
        | None
    ) = None


@endpoints.endpoint(
    "PUT",
    "/access/password",
    ChangePassword,
    check=AnyOf((Self(), REALM_AND_MODIFY)),
    effect=Effect.WRITES,
    tokens=False,
    timeout=60,
)
async def change_password(context: AccessContext, parameters: ChangePassword) -> None:
    """Sets a user's password, and ends the user's tickets."""
    subject = context.subject
    context.access.check_may_touch(subject, parameters.userid)
    admin.existing_user(context.access.snapshot, parameters.userid)
    if parameters.confirmation_password is not None:
        await context.access.login(subject.user, parameters.confirmation_password, context.address)
    hashed = await context.access.new_password(parameters.userid, parameters.password)
    fields = {"password_hash": hashed, "ticket_version": new_version()}
    await context.access.update(lambda snapshot: admin.change_user(snapshot, parameters.userid, fields))
