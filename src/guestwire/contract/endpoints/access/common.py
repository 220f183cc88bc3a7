"""Names and results that several parts of `/access` share.

Source: Proxmox VE's API of the same paths.
"""

from typing import Annotated, Any, Final

import msgspec

from guestwire.access.checks import AllOf, AnyOf, OverRealm, OverUser, Privileges, Self
from guestwire.contract.context import AccessContext
from guestwire.contract.parameters import Parameters, Role, parameter
from guestwire.stores.records import Token

USER_AUDIT: Final = ("User.Modify", "Sys.Audit")
GROUP_AUDIT: Final = ("User.Modify", "Sys.Audit", "Group.Allocate")

SELF_OR_MODIFY: Final = AnyOf((Self(), OverUser(("User.Modify",))))
REALM_AND_MODIFY: Final = AllOf((OverRealm("Realm.AllocateUser"), OverUser(("User.Modify",))))
ALLOCATE_GROUPS: Final = Privileges("/access/groups", ("Group.Allocate",))
MODIFY_SYSTEM: Final = Privileges("/access", ("Sys.Modify",))

Userid = Annotated[
    str,
    parameter("The user, NAME@REALM.", Role.TEXT, max_length=64, format="pve-userid", examples=["anna@pve"]),
]
Tokenid = Annotated[
    str,
    parameter(
        "The token's name: a letter, and one or more letters, digits, '.', '-' or '_'.", Role.TEXT,
        pattern=r"[A-Za-z][A-Za-z0-9.\-_]+", examples=["backup"],
    ),
]  # fmt: skip
Groupid = Annotated[str, parameter("The group.", Role.TEXT, format="pve-groupid", examples=["operators"])]
Roleid = Annotated[str, parameter("The role.", Role.TEXT, format="pve-roleid", examples=["Look"])]
Expire = Annotated[int, parameter("Seconds since the epoch; 0: never.", ge=0)]
Comment = Annotated[str, parameter("A comment.", Role.TEXT)]
Groups = Annotated[str, parameter("Groups, separated by commas.", Role.TEXT, format="pve-groupid-list")]
PrivilegeList = Annotated[
    str,
    parameter(
        "Privileges, separated by commas.",
        Role.TEXT,
        format="pve-priv-list",
        examples=["VM.GuestAgent.Audit,VM.GuestAgent.FileRead"],
    ),
]
Password = Annotated[str, parameter("The password.", Role.SECRET, min_length=8, max_length=64)]


class OneUser(Parameters, frozen=True, kw_only=True):
    """A user in the path."""

    userid: Userid


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


def token_info(token: Token) -> TokenInfo:
    """A token without its secret."""
    return TokenInfo(privsep=int(token.privsep), expire=token.expire, comment=token.comment or None)


def named_token(token: Token) -> NamedToken:
    """A token as a list has it."""
    return NamedToken(token.tokenid, int(token.privsep), token.expire, token.comment or None)


def tokens_of(context: AccessContext, userid: str) -> list[Token]:
    """The tokens of a user, by name."""
    snapshot = context.access.snapshot
    return [snapshot.tokens[key] for key in sorted(snapshot.tokens_of.get(userid, ()))]


def given_fields(parameters: Parameters, names: tuple[str, ...]) -> dict[str, Any]:
    """The parameters among `names` that were given."""
    return {name: value for name in names if (value := getattr(parameters, name)) is not None}
