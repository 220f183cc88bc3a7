"""Who may do what: tickets, users, tokens, groups, roles, ACLs, realms.

Source: Proxmox VE's API under `/access`.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, UnsetType

from guestwire.access import administration as admin
from guestwire.access.checks import AllOf, AnyOf, Everybody, ModifyPermissions, OverRealm, OverUser, Privileges, Self
from guestwire.contract.context import Context
from guestwire.contract.endpoint import Effect, Registry
from guestwire.contract.parameters import Parameters, split_list
from guestwire.errors import AccessRefused
from guestwire.stores.records import Group, Role, SubjectKind, Token, User

endpoints = Registry()

USER_AUDIT: Final = ("User.Modify", "Sys.Audit")
GROUP_AUDIT: Final = ("User.Modify", "Sys.Audit", "Group.Allocate")

SELF_OR_MODIFY: Final = AnyOf((Self(), OverUser(("User.Modify",))))
REALM_AND_MODIFY: Final = AllOf((OverRealm("Realm.AllocateUser"), OverUser(("User.Modify",))))
ALLOCATE_GROUPS: Final = Privileges("/access/groups", ("Group.Allocate",))
MODIFY_SYSTEM: Final = Privileges("/access", ("Sys.Modify",))

Userid = Annotated[str, Meta(description="The user, NAME@REALM.", max_length=64, extra={"format": "pve-userid"})]
Tokenid = Annotated[str, Meta(description="The token's name.", extra={"pattern": r"[A-Za-z][A-Za-z0-9.\-_]+"})]
Groupid = Annotated[str, Meta(description="The group.", extra={"format": "pve-groupid"})]
Roleid = Annotated[str, Meta(description="The role.", extra={"format": "pve-roleid"})]
Expire = Annotated[int, Meta(description="Seconds since the epoch; 0: never.", ge=0)]
Comment = Annotated[str, Meta(description="A comment.")]
Groups = Annotated[str, Meta(description="Groups, with commas between.", extra={"format": "pve-groupid-list"})]
PrivilegeList = Annotated[str, Meta(description="Privileges, with commas between.", extra={"format": "pve-priv-list"})]
Password = Annotated[str, Meta(description="The password.", min_length=8, max_length=64, extra={"secret": True})]


class Subdirectory(msgspec.Struct, frozen=True):
    """One name below a path."""

    subdir: str


@endpoints.endpoint("GET", "/access", Parameters)
async def index(_context: Context, _parameters: Parameters) -> list[Subdirectory]:
    """Names what is below."""
    return [Subdirectory(name) for name in endpoints.children("/access")]


# Tickets


class GetTicket(Parameters, frozen=True):
    """None."""


@endpoints.endpoint("GET", "/access/ticket", GetTicket, check=Everybody())
async def ticket_page(_context: Context, _parameters: GetTicket) -> None:
    """Answers nothing; it is there for clients that look."""


class CreateTicket(Parameters, frozen=True, kw_only=True):
    """Parameters of a login."""

    username: Annotated[str, Meta(description="The user, with or without its realm.", max_length=64)]
    password: Annotated[str, Meta(description="The password, or a valid ticket.", extra={"secret": True})]
    realm: (
        Annotated[
            str,
            Meta(
                description="The realm, when the name does not have it.",
                max_length=32,
                extra={"format": "pve-realm"},
            ),
        ]
        | None
    ) = None
    path: (
        Annotated[str, Meta(description="Also wants privs on this path.", max_length=64, extra={"requires": "privs"})]
        | None
    ) = None
    privs: (
        Annotated[
            str,
            Meta(
                description="Privileges, all of which are wanted.",
                max_length=64,
                extra={"format": "pve-priv-list", "requires": "path"},
            ),
        ]
        | None
    ) = None
    new_format: Annotated[bool, Meta(description="As clients of Proxmox VE send it; means nothing here.")] = True
    otp: Annotated[str, Meta(description="Second factors are not supported.", extra={"secret": True})] | None = None
    tfa_challenge: (
        Annotated[str, Meta(description="Second factors are not supported.", extra={"secret": True})] | None
    ) = None


class Ticket(msgspec.Struct, frozen=True, omit_defaults=True):
    """A login: the ticket and the token that goes with it, unless only privileges were asked for."""

    username: str
    cap: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    ticket: str | None = None
    csrf: str | None = msgspec.field(name="CSRFPreventionToken", default=None)


@endpoints.endpoint("POST", "/access/ticket", CreateTicket, check=Everybody(), tokens=False, timeout=60)
async def create_ticket(context: Context, parameters: CreateTicket) -> Ticket:
    """Logs in: a ticket for two hours. A valid ticket in place of the password renews it."""
    username = f"{parameters.username}@{parameters.realm}" if parameters.realm else parameters.username
    wanted = (parameters.path, tuple(split_list(parameters.privs or ""))) if parameters.path else None
    login = await context.access.login(username, parameters.password, context.address, wanted)
    cap = context.access.capabilities(username)
    if wanted:
        return Ticket(username=username, cap=cap)
    return Ticket(username=username, cap=cap, ticket=login.ticket, csrf=login.csrf)


# Realms


class Domain(msgspec.Struct, frozen=True, omit_defaults=True):
    """A realm; `default` is 1 for the one that a login page should offer first."""

    realm: str
    type: str
    comment: str
    default: int | None = None


@endpoints.endpoint("GET", "/access/domains", Parameters, check=Everybody())
async def domains(context: Context, _parameters: Parameters) -> list[Domain]:
    """Lists the realms that can be used here."""
    return [Domain(realm.realm, realm.type, realm.comment) for realm in context.access.realms]


# Users


class TokenInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token without its secret."""

    privsep: int
    expire: int
    comment: str | None = None


class NamedToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token in a list."""

    tokenid: str
    privsep: int
    expire: int
    comment: str | None = None


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


def _token_info(token: Token) -> TokenInfo:
    return TokenInfo(privsep=int(token.privsep), expire=token.expire, comment=token.comment or None)


def _named(token: Token) -> NamedToken:
    return NamedToken(token.tokenid, int(token.privsep), token.expire, token.comment or None)


def _tokens_of(context: Context, userid: str) -> list[Token]:
    view = context.access.view
    return [view.tokens[key] for key in sorted(view.tokens_of.get(userid, ()))]


def _groups_of(context: Context, userid: str) -> list[str]:
    return sorted(context.access.view.groups_of.get(userid, ()))


class ListUsers(Parameters, frozen=True, kw_only=True):
    """Parameters of the list of users."""

    enabled: Annotated[bool, Meta(description="Only enabled users, or only disabled ones.")] | None = None
    full: Annotated[bool, Meta(description="With groups and tokens.")] = False


@endpoints.endpoint("GET", "/access/users", ListUsers)
async def users(context: Context, parameters: ListUsers) -> list[ListedUser]:
    """Lists the users that the caller may see: all, those of some groups, or only itself."""
    visible = context.access.visible_users(context.subject, USER_AUDIT)
    return [
        _listed(context, user, full=parameters.full)
        for userid, user in sorted(context.access.view.users.items())
        if userid in visible and parameters.enabled in (None, user.enable)
    ]


def _listed(context: Context, user: User, *, full: bool) -> ListedUser:
    more: dict[str, Any] = {}
    if full:
        more["groups"] = ",".join(_groups_of(context, user.userid))
        more["tokens"] = [_named(token) for token in _tokens_of(context, user.userid)]
    return ListedUser(userid=user.userid, realm_type=user.userid.rpartition("@")[2], **_shown(user), **more)


class UserFields(Parameters, frozen=True, kw_only=True):
    """What a user can have; what is left out is left as it is."""

    userid: Userid
    enable: Annotated[bool, Meta(description="May log in.")] | None = None
    expire: Expire | None = None
    firstname: Annotated[str, Meta(max_length=1024)] | None = None
    lastname: Annotated[str, Meta(max_length=1024)] | None = None
    email: Annotated[str, Meta(max_length=254, extra={"format": "email-opt"})] | None = None
    comment: Annotated[str, Meta(description="A comment.", max_length=2048)] | None = None
    keys: (
        Annotated[
            str,
            Meta(
                description="Kept, and not used: second factors are not supported.",
                extra={"pattern": r"[0-9a-zA-Z!=]{0,4096}", "secret": True},
            ),
        ]
        | None
    ) = None
    groups: Groups | None = None


_FIELDS: Final = ("enable", "expire", "firstname", "lastname", "email", "comment", "keys")


def _given(parameters: Parameters, names: tuple[str, ...]) -> dict[str, Any]:
    """The parameters among `names` that were given."""
    return {name: value for name in names if (value := getattr(parameters, name)) is not None}


class CreateUser(UserFields, frozen=True, kw_only=True):
    """Parameters of a new user."""

    enable: Annotated[bool, Meta(description="May log in.")] = True
    password: Password | None = None


@endpoints.endpoint(
    "POST",
    "/access/users",
    CreateUser,
    check=AllOf((OverRealm("Realm.AllocateUser"), OverUser(("User.Modify",), "create"))),
    effect=Effect.WRITES,
)
async def create_user(context: Context, parameters: CreateUser) -> None:
    """Makes a user."""
    context.access.check_realm(parameters.userid)
    hashed = await context.access.new_password(parameters.userid, parameters.password) if parameters.password else None
    user = User(parameters.userid, password_hash=hashed, **_given(parameters, _FIELDS))
    groups = split_list(parameters.groups or "")
    await context.access.update(lambda view: admin.add_user(view, user, groups))


class OneUser(Parameters, frozen=True, kw_only=True):
    """A user in the path."""

    userid: Userid


@endpoints.endpoint("GET", "/access/users/{userid}", OneUser, check=OverUser(USER_AUDIT))
async def user_page(context: Context, parameters: OneUser) -> UserInfo:
    """Shows a user."""
    user = admin.existing_user(context.access.view, parameters.userid)
    tokens = {token.tokenid: _token_info(token) for token in _tokens_of(context, user.userid)}
    return UserInfo(groups=_groups_of(context, user.userid), tokens=tokens or None, **_shown(user))


class UpdateUser(UserFields, frozen=True, kw_only=True):
    """Parameters of a change to a user."""

    append: Annotated[bool, Meta(description="Adds the groups.", extra={"requires": "groups"})] = False


@endpoints.endpoint(
    "PUT", "/access/users/{userid}", UpdateUser, check=OverUser(("User.Modify",), "update"), effect=Effect.WRITES
)
async def update_user(context: Context, parameters: UpdateUser) -> None:
    """Changes a user; a disabled one is refused from the next request on."""
    context.access.check_may_touch(context.subject, parameters.userid)
    groups = None if parameters.groups is None else split_list(parameters.groups)
    fields = _given(parameters, _FIELDS)
    await context.access.update(
        lambda view: admin.change_user(view, parameters.userid, fields, groups, append=parameters.append)
    )


@endpoints.endpoint("DELETE", "/access/users/{userid}", OneUser, check=REALM_AND_MODIFY, effect=Effect.WRITES)
async def delete_user(context: Context, parameters: OneUser) -> None:
    """Removes a user, with tokens and permissions."""
    context.access.check_may_touch(context.subject, parameters.userid)
    await context.access.update(lambda view: admin.remove_user(view, parameters.userid))


class ChangePassword(Parameters, frozen=True, kw_only=True):
    """Parameters of a new password."""

    userid: Userid
    password: Password
    confirmation_password: (
        Annotated[
            str,
            Meta(
                description="The caller's own password; checked when it is given.",
                min_length=5,
                max_length=64,
                extra={"secret": True},
            ),
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
async def change_password(context: Context, parameters: ChangePassword) -> None:
    """Sets a user's password."""
    subject = context.subject
    context.access.check_may_touch(subject, parameters.userid)
    admin.existing_user(context.access.view, parameters.userid)
    if parameters.confirmation_password is not None:
        await context.access.login(subject.user, parameters.confirmation_password, context.address)
    hashed = await context.access.new_password(parameters.userid, parameters.password)
    await context.access.update(lambda view: admin.change_user(view, parameters.userid, {"password_hash": hashed}))


# Tokens


@endpoints.endpoint("GET", "/access/users/{userid}/token", OneUser, check=SELF_OR_MODIFY)
async def tokens(context: Context, parameters: OneUser) -> list[NamedToken]:
    """Lists a user's tokens."""
    admin.existing_user(context.access.view, parameters.userid)
    return [_named(token) for token in _tokens_of(context, parameters.userid)]


class OneToken(OneUser, frozen=True, kw_only=True):
    """A token in the path."""

    tokenid: Tokenid


@endpoints.endpoint("GET", "/access/users/{userid}/token/{tokenid}", OneToken, check=SELF_OR_MODIFY)
async def token_page(context: Context, parameters: OneToken) -> TokenInfo:
    """Shows a token, without its secret."""
    return _token_info(admin.existing_token(context.access.view, parameters.userid, parameters.tokenid))


class CreateToken(OneToken, frozen=True, kw_only=True):
    """Parameters of a new token."""

    comment: Comment | None = None
    expire: Expire | None = None
    privsep: Annotated[bool, Meta(description="It has at most what its own permissions give it.")] = True


class NewToken(msgspec.Struct, frozen=True):
    """A token and, once, its secret (`value`)."""

    full_tokenid: str = msgspec.field(name="full-tokenid")
    value: str
    info: TokenInfo


@endpoints.endpoint(
    "POST", "/access/users/{userid}/token/{tokenid}", CreateToken, check=SELF_OR_MODIFY, effect=Effect.WRITES
)
async def create_token(context: Context, parameters: CreateToken) -> NewToken:
    """Makes a token; its secret is shown this once."""
    context.access.check_may_touch(context.subject, parameters.userid)
    secret, hashed = context.access.new_secret()
    token = Token(
        parameters.userid,
        parameters.tokenid,
        hashed,
        privsep=parameters.privsep,
        expire=parameters.expire or 0,
        comment=parameters.comment or "",
    )
    await context.access.update(lambda view: admin.add_token(view, token))
    return NewToken(token.key, secret, _token_info(token))


class UpdateToken(OneToken, frozen=True, kw_only=True):
    """Parameters of a change to a token."""

    comment: Comment | None = None
    expire: Expire | None = None
    privsep: Annotated[bool, Meta(description="It has at most what its own permissions give it.")] | None = None
    delete: Annotated[str, Meta(description="Settings to remove.", extra={"format": "pve-configid-list"})] | None = None


_UNSET: Final = {"comment": "", "expire": 0, "privsep": True}


@endpoints.endpoint(
    "PUT", "/access/users/{userid}/token/{tokenid}", UpdateToken, check=SELF_OR_MODIFY, effect=Effect.WRITES
)
async def update_token(context: Context, parameters: UpdateToken) -> TokenInfo:
    """Changes a token."""
    context.access.check_may_touch(context.subject, parameters.userid)
    removed = {name: _UNSET[name] for name in split_list(parameters.delete or "") if name in _UNSET}
    fields = removed | _given(parameters, ("comment", "expire", "privsep"))
    await context.access.update(lambda view: admin.change_token(view, parameters.userid, parameters.tokenid, fields))
    return _token_info(admin.existing_token(context.access.view, parameters.userid, parameters.tokenid))


@endpoints.endpoint(
    "DELETE", "/access/users/{userid}/token/{tokenid}", OneToken, check=SELF_OR_MODIFY, effect=Effect.WRITES
)
async def delete_token(context: Context, parameters: OneToken) -> None:
    """Removes a token; it is refused from the next request on."""
    context.access.check_may_touch(context.subject, parameters.userid)
    await context.access.update(lambda view: admin.remove_token(view, parameters.userid, parameters.tokenid))


# Groups


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
async def groups(context: Context, _parameters: Parameters) -> list[ListedGroup]:
    """Lists the groups that the caller may see."""
    return [
        ListedGroup(groupid, ",".join(sorted(group.members)), group.comment or None)
        for groupid, group in sorted(context.access.view.groups.items())
        if context.access.may(context.subject, f"/access/groups/{groupid}", GROUP_AUDIT)
    ]


@endpoints.endpoint("POST", "/access/groups", GroupFields, check=ALLOCATE_GROUPS, effect=Effect.WRITES)
async def create_group(context: Context, parameters: GroupFields) -> None:
    """Makes a group."""
    group = Group(parameters.groupid, parameters.comment or "")
    await context.access.update(lambda view: admin.add_group(view, group))


@endpoints.endpoint(
    "GET", "/access/groups/{groupid}", OneGroup, check=Privileges("/access/groups", ("Sys.Audit", "Group.Allocate"))
)
async def group_page(context: Context, parameters: OneGroup) -> GroupInfo:
    """Shows a group with its members."""
    group = admin.existing_group(context.access.view, parameters.groupid)
    return GroupInfo(sorted(group.members), group.comment or None)


@endpoints.endpoint("PUT", "/access/groups/{groupid}", GroupFields, check=ALLOCATE_GROUPS, effect=Effect.WRITES)
async def update_group(context: Context, parameters: GroupFields) -> None:
    """Changes a group's comment."""
    fields = _given(parameters, ("comment",))
    await context.access.update(lambda view: admin.change_group(view, parameters.groupid, fields))


@endpoints.endpoint("DELETE", "/access/groups/{groupid}", OneGroup, check=ALLOCATE_GROUPS, effect=Effect.WRITES)
async def delete_group(context: Context, parameters: OneGroup) -> None:
    """Removes a group, not its members."""
    await context.access.update(lambda view: admin.remove_group(view, parameters.groupid))


# Roles


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

    append: Annotated[bool, Meta(description="Adds the privileges.", extra={"requires": "privs"})] = False


@endpoints.endpoint("GET", "/access/roles", Parameters)
async def roles(context: Context, _parameters: Parameters) -> list[ListedRole]:
    """Lists all roles."""
    return [
        ListedRole(roleid, ",".join(sorted(privileges)), int(roleid not in context.access.view.roles))
        for roleid, privileges in sorted(context.access.roles().items())
    ]


@endpoints.endpoint("POST", "/access/roles", CreateRole, check=MODIFY_SYSTEM, effect=Effect.WRITES)
async def create_role(context: Context, parameters: CreateRole) -> None:
    """Makes a role."""
    role = Role(parameters.roleid, frozenset(split_list(parameters.privs or "")))
    await context.access.update(lambda view: admin.add_role(view, role))


@endpoints.endpoint("GET", "/access/roles/{roleid}", OneRole)
async def role_page(context: Context, parameters: OneRole) -> dict[str, int]:
    """Shows a role's privileges."""
    return dict.fromkeys(sorted(admin.existing_role(context.access.view, parameters.roleid)), 1)


@endpoints.endpoint("PUT", "/access/roles/{roleid}", UpdateRole, check=MODIFY_SYSTEM, effect=Effect.WRITES)
async def update_role(context: Context, parameters: UpdateRole) -> None:
    """Changes an own role."""
    privileges = split_list(parameters.privs or "")
    await context.access.update(
        lambda view: admin.change_role(view, parameters.roleid, privileges, append=parameters.append)
    )


@endpoints.endpoint("DELETE", "/access/roles/{roleid}", OneRole, check=MODIFY_SYSTEM, effect=Effect.WRITES)
async def delete_role(context: Context, parameters: OneRole) -> None:
    """Removes an own role, and the permissions that name it."""
    await context.access.update(lambda view: admin.remove_role(view, parameters.roleid))


# ACLs and permissions


class ListedAcl(msgspec.Struct, frozen=True):
    """One entry: `type` is user, group or token, `ugid` which one."""

    path: str
    type: str
    ugid: str
    roleid: str
    propagate: int


@endpoints.endpoint("GET", "/access/acl", Parameters)
async def acl(context: Context, _parameters: Parameters) -> list[ListedAcl]:
    """Lists the ACL entries that the caller may see."""
    access, subject = context.access, context.subject
    sees_all = access.may(subject, "/access", ("Sys.Audit", "Permissions.Modify"))
    return [
        ListedAcl(entry.path, entry.kind, entry.subject, entry.roleid, int(entry.propagate))
        for _, entry in sorted(access.view.acl.items())
        if sees_all or access.may_modify_acl(subject, entry.path)
    ]


class UpdateAcl(Parameters, frozen=True, kw_only=True):
    """Parameters of a change to the ACL."""

    path: Annotated[str, Meta(description="The access path.")]
    roles: Annotated[str, Meta(description="Roles, with commas between.", extra={"format": "pve-roleid-list"})]
    users: (
        Annotated[str, Meta(description="Users, with commas between.", extra={"format": "pve-userid-list"})] | None
    ) = None
    groups: Groups | None = None
    tokens: (
        Annotated[str, Meta(description="Tokens, with commas between.", extra={"format": "pve-tokenid-list"})] | None
    ) = None
    propagate: Annotated[bool, Meta(description="Holds below the path too.")] = True
    delete: Annotated[bool, Meta(description="Takes the roles away.")] = False


@endpoints.endpoint("PUT", "/access/acl", UpdateAcl, check=ModifyPermissions(), effect=Effect.WRITES)
async def update_acl(context: Context, parameters: UpdateAcl) -> None:
    """Gives users, groups or tokens roles on a path, or takes them away."""
    subjects = _subjects(parameters)
    roles = split_list(parameters.roles)
    context.access.check_may_give(
        context.subject, parameters.path, roles, propagate=parameters.propagate, delete=parameters.delete
    )
    if parameters.delete:
        await context.access.update(lambda view: admin.remove_acl(view, parameters.path, subjects, roles))
    else:
        await context.access.update(
            lambda view: admin.add_acl(view, parameters.path, subjects, roles, propagate=parameters.propagate)
        )


def _subjects(parameters: UpdateAcl) -> list[tuple[SubjectKind, str]]:
    given: tuple[tuple[SubjectKind, str | None], ...] = (
        ("user", parameters.users),
        ("group", parameters.groups),
        ("token", parameters.tokens),
    )
    subjects = [(kind, name) for kind, names in given for name in split_list(names or "")]
    if not subjects:
        raise AccessRefused("ACL update failed: give users, groups or tokens")
    return subjects


class GetPermissions(Parameters, frozen=True, kw_only=True):
    """Parameters of a look at permissions."""

    userid: (
        Annotated[
            str,
            Meta(
                description="A user or USERID!TOKENID; default: the caller.",
                extra={"pattern": r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+(?:![A-Za-z][A-Za-z0-9.\-_]+)?"},
            ),
        ]
        | None
    ) = None
    path: Annotated[str, Meta(description="Only this path.")] | None = None


@endpoints.endpoint("GET", "/access/permissions", GetPermissions)
async def permissions(context: Context, parameters: GetPermissions) -> dict[str, dict[str, int]]:
    """Shows privileges by path; 1 means that one propagates."""
    subject = context.access.visible_subject(context.subject, parameters.userid)
    return context.access.permissions(subject, parameters.path)
