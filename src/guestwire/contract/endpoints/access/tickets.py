"""Logins: tickets, and the realms that they come from.

Source: Proxmox VE's API of the same paths.
"""

from typing import Annotated

import msgspec

from guestwire.access.checks import Everybody
from guestwire.contract.context import AccessContext
from guestwire.contract.endpoint import Registry
from guestwire.contract.parameters import Parameters, Role, parameter, split_list

endpoints = Registry()


class GetTicket(Parameters, frozen=True):
    """None."""


@endpoints.endpoint("GET", "/access/ticket", GetTicket, check=Everybody())
async def ticket_page(_context: object, _parameters: GetTicket) -> None:
    """Answers nothing; it is there for clients that look."""


class CreateTicket(Parameters, frozen=True, kw_only=True):
    """Parameters of a login."""

    username: Annotated[str, parameter("The user, with or without its realm.", Role.TEXT, max_length=64)]
    password: Annotated[str, parameter("The password, or a valid ticket.", Role.SECRET)]
    realm: (
        Annotated[
            str,
            parameter("The realm, when the name does not have it.", Role.TEXT, max_length=32, format="pve-realm"),
        ]
        | None
    ) = None
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
    otp: Annotated[str, parameter("Second factors are not supported.", Role.SECRET)] | None = None
    tfa_challenge: Annotated[str, parameter("Second factors are not supported.", Role.SECRET)] | None = None


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
    login = await context.access.login(username, parameters.password, context.address, wanted)
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
