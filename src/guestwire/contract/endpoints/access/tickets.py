"""Logins: tickets, the realms that they come from, and the second factors that there are none of.

Source: Proxmox VE's API of the same paths.
"""

from typing import Annotated

import msgspec

from guestwire.access.checks import Everybody, Privileges
from guestwire.access.values import split_list
from guestwire.contract.context import AccessContext
from guestwire.contract.endpoint import Registry
from guestwire.contract.parameters import Parameters, Role, parameter
from guestwire.contract.results import Subdirectory
from guestwire.errors import AccessRefused

endpoints = Registry()

Realm = Annotated[
    str, parameter("The realm, when the name does not have it.", Role.TEXT, max_length=32, format="pve-realm")
]


class GetTicket(Parameters, frozen=True):
    """None."""


@endpoints.endpoint("GET", "/access/ticket", GetTicket, check=Everybody())
async def ticket_page(_context: object, _parameters: GetTicket) -> None:
    """Answers nothing; it is there for clients that look."""


class CreateTicket(Parameters, frozen=True, kw_only=True):
    """Parameters of a login."""

    username: Annotated[str, parameter("The user, with or without its realm.", Role.TEXT, max_length=64)]
    password: Annotated[str, parameter("The password, or a valid ticket.", Role.SECRET)]
    realm: Realm | None = None
    path: (
        Annotated[str, parameter("Also wants privs on this path.", Role.TEXT, max_length=64, requires="privs")] | None
    ) = None
    privs: (
        Annotated[
            str,
            parameter(
                "Privileges, all of which are wanted.",
                Role.TEXT,
                max_length=64,
                format="pve-priv-list",
                requires="path",
            ),
        ]
        | None
    ) = None
    new_format: Annotated[bool, parameter("As clients of Proxmox VE send it; means nothing here.")] = True
    otp: Annotated[str, parameter("A login with a second factor fails: there are none.", Role.SECRET)] | None = None
    tfa_challenge: Annotated[str, parameter("As `otp`.", Role.SECRET)] | None = None


class Ticket(msgspec.Struct, frozen=True, omit_defaults=True):
    """A login: the ticket and the token that goes with it, unless only privileges were asked for."""

    username: str
    cap: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    ticket: str | None = None
    csrf: str | None = msgspec.field(name="CSRFPreventionToken", default=None)


@endpoints.endpoint("POST", "/access/ticket", CreateTicket, check=Everybody(), tokens=False, timeout=60)
async def create_ticket(context: AccessContext, parameters: CreateTicket) -> Ticket:
    """Logs in: a ticket for two hours. A valid ticket in place of the password renews it."""
    username = f"{parameters.username}@{parameters.realm}" if parameters.realm else parameters.username
    wanted = (parameters.path, tuple(split_list(parameters.privs or ""))) if parameters.path else None
    login = await context.access.login(
        username, parameters.password, context.address, wanted,
        has_second_factor=bool(parameters.otp or parameters.tfa_challenge),
    )  # fmt: skip
    cap = context.access.capabilities(username)
    if wanted:
        return Ticket(username=username, cap=cap)
    return Ticket(username=username, cap=cap, ticket=login.ticket, csrf=login.csrf)


class Domain(msgspec.Struct, frozen=True, omit_defaults=True):
    """A realm; `default` is 1 for the one that a login page should offer first."""

    realm: str
    type: str
    comment: str
    default: int | None = None


@endpoints.endpoint("GET", "/access/domains", Parameters, check=Everybody())
async def domains(context: AccessContext, _parameters: Parameters) -> list[Domain]:
    """Lists the realms that can be used here."""
    return [Domain(realm.realm, realm.type, realm.comment) for realm in context.access.realms]


class OneRealm(Parameters, frozen=True, kw_only=True):
    """A realm in the path."""

    realm: Annotated[str, parameter("The realm.", Role.TEXT, max_length=32, format="pve-realm")]


class RealmInfo(msgspec.Struct, frozen=True):
    """A realm's own page."""

    type: str
    comment: str


@endpoints.endpoint(
    "GET",
    "/access/domains/{realm}",
    OneRealm,
    check=Privileges("/access/realm", ("Realm.Allocate", "Sys.Audit")),
)
async def realm_page(context: AccessContext, parameters: OneRealm) -> RealmInfo:
    """Shows a realm."""
    for realm in context.access.realms:
        if realm.realm == parameters.realm:
            return RealmInfo(realm.type, realm.comment)
    raise AccessRefused(f"domain '{parameters.realm}' does not exist")


@endpoints.endpoint("GET", "/access/openid", Parameters)
async def openid(_context: object, _parameters: Parameters) -> list[Subdirectory]:
    """Names what Proxmox VE has for OpenID Connect; there is no such realm here, and so none of it."""
    return [Subdirectory("auth-url"), Subdirectory("login")]


class SecondFactors(msgspec.Struct, frozen=True):
    """The second factors of a user."""

    userid: str
    entries: list[str]


@endpoints.endpoint("GET", "/access/tfa", Parameters)
async def second_factors(_context: object, _parameters: Parameters) -> list[SecondFactors]:
    """Lists users with second factors: there are none."""
    return []
