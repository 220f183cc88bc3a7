"""API tokens of users.

Source: Proxmox VE's API of the same paths.
"""

from typing import Annotated

import msgspec

from guestwire.access import administration as admin
from guestwire.access.values import split_list
from guestwire.contract.context import AccessContext
from guestwire.contract.endpoint import Effect, Registry
from guestwire.contract.endpoints.access.common import (
    SELF_OR_MODIFY,
    Comment,
    Expire,
    NamedToken,
    OneUser,
    Tokenid,
    TokenInfo,
    given_fields,
    named_token,
    token_info,
    tokens_of,
)
from guestwire.contract.parameters import Role, parameter
from guestwire.errors import AccessRefused
from guestwire.stores.records import Token

endpoints = Registry()


@endpoints.endpoint("GET", "/access/users/{userid}/token", OneUser, check=SELF_OR_MODIFY)
async def tokens(context: AccessContext, parameters: OneUser) -> list[NamedToken]:
    """Lists a user's tokens."""
    admin.existing_user(context.access.snapshot, parameters.userid)
    return [named_token(token) for token in tokens_of(context, parameters.userid)]


class OneToken(OneUser, frozen=True, kw_only=True):
    """A token in the path."""

    tokenid: Tokenid


@endpoints.endpoint("GET", "/access/users/{userid}/token/{tokenid}", OneToken, check=SELF_OR_MODIFY)
async def token_page(context: AccessContext, parameters: OneToken) -> TokenInfo:
    """Shows a token, without its secret."""
    return token_info(admin.existing_token(context.access.snapshot, parameters.userid, parameters.tokenid))


class CreateToken(OneToken, frozen=True, kw_only=True):
    """Parameters of a new token."""

    comment: Comment | None = None
    expire: Expire | None = None
    privsep: Annotated[
        bool, parameter("Limits the token to permissions of its own; otherwise it has all those of its user.")
    ] = True


class NewToken(msgspec.Struct, frozen=True):
    """A token and, once, its secret (`value`)."""

    full_tokenid: str = msgspec.field(name="full-tokenid")
    value: str
    info: TokenInfo


@endpoints.endpoint(
    "POST", "/access/users/{userid}/token/{tokenid}", CreateToken, check=SELF_OR_MODIFY, effect=Effect.WRITES
)
async def create_token(context: AccessContext, parameters: CreateToken) -> NewToken:
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
    await context.access.update(lambda snapshot: admin.add_token(snapshot, token))
    return NewToken(token.key, secret, token_info(token))


class UpdateToken(OneToken, frozen=True, kw_only=True):
    """Parameters of a change to a token."""

    regenerate: Annotated[bool, parameter("Makes a new secret; the one before is refused from then on.")] = False

    comment: Comment | None = None
    expire: Expire | None = None
    privsep: (
        Annotated[
            bool, parameter("Limits the token to permissions of its own; otherwise it has all those of its user.")
        ]
        | None
    ) = None
    delete: Annotated[str, parameter("Settings to remove.", Role.TEXT, format="pve-configid-list")] | None = None


class ChangedToken(TokenInfo, frozen=True, omit_defaults=True, kw_only=True):
    """A token as it is now; with a new secret (`value`), that is shown this once."""

    full_tokenid: str | None = msgspec.field(name="full-tokenid", default=None)
    value: str | None = None


@endpoints.endpoint(
    "PUT", "/access/users/{userid}/token/{tokenid}", UpdateToken, check=SELF_OR_MODIFY, effect=Effect.WRITES
)
async def update_token(context: AccessContext, parameters: UpdateToken) -> ChangedToken:
    """Changes a token."""
    context.access.check_may_touch(context.subject, parameters.userid)
    fields = given_fields(parameters, ("comment", "expire", "privsep"))
    for name in split_list(parameters.delete or ""):
        if name != "comment":
            raise AccessRefused(f"delete: unknown option '{name}'")
        fields["comment"] = ""
    secret = None
    if parameters.regenerate:
        secret, fields["secret_hash"] = context.access.new_secret()
    await context.access.update(
        lambda snapshot: admin.change_token(snapshot, parameters.userid, parameters.tokenid, fields)
    )
    token = admin.existing_token(context.access.snapshot, parameters.userid, parameters.tokenid)
    return ChangedToken(
        privsep=int(token.privsep), expire=token.expire, comment=token.comment or None,
        full_tokenid=token.key if secret else None, value=secret,
    )  # fmt: skip


@endpoints.endpoint(
    "DELETE", "/access/users/{userid}/token/{tokenid}", OneToken, check=SELF_OR_MODIFY, effect=Effect.WRITES
)
async def delete_token(context: AccessContext, parameters: OneToken) -> None:
    """Removes a token; it is refused from the next request on."""
    context.access.check_may_touch(context.subject, parameters.userid)
    await context.access.update(lambda snapshot: admin.remove_token(snapshot, parameters.userid, parameters.tokenid))
