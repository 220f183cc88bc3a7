"""Realms: where a user's password is checked. `pve` has its own passwords, `pam` the accounts of the host."""

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from guestwire.access.passwords import is_password

PVE: Final = "pve"
PAM: Final = "pam"

PAM_SERVICES: Final = ("guestwire", "login")
"""The first that the host has in /etc/pam.d: an administrator may write rules for guestwire of its own."""

PAM_TIMEOUT: Final = 30.0

NO_ACCOUNT: Final = "guestwire-no-account"
"""A name that no host has. PAM is asked about it for an account that nobody made a user: that takes as long as for one
that is a user, and no stranger can lock the account by it."""


@dataclass(frozen=True, slots=True)
class Realm:
    """One realm, as `/access/domains` lists it."""

    realm: str
    type: str
    comment: str


REALMS: Final = (
    Realm(PAM, PAM, "Linux PAM standard authentication"),
    Realm(PVE, PVE, "guestwire authentication server"),
)


def pam_problem() -> str | None:
    """Why realm pam can't be used here; None when it can. Blocks: it looks for the library."""
    try:
        importlib.import_module("pamela")
    except (ImportError, OSError, TypeError, AttributeError) as error:
        return f"no PAM library: {error}"
    return None


async def is_login(user: str, password: str, hashed: str | None, usable: Collection[str]) -> bool:
    """True if `password` is right for `user` (`NAME@REALM`).

    Args:
        user: also one that is not known.
        password: as it was given.
        hashed: what realm pve keeps, None when there is nothing.
        usable: the realms that can be used here.
    """
    name, _, realm = user.rpartition("@")
    if realm == PAM and realm in usable:
        return await _is_pam_login(name, password)
    return await is_password(hashed if realm == PVE else None, password)


async def _is_pam_login(name: str, password: str) -> bool:
    if "\0" in password or "\0" in name:
        return False
    try:
        async with asyncio.timeout(PAM_TIMEOUT):
            return await asyncio.to_thread(_ask_pam, name, password)
    except TimeoutError:
        return False


def _ask_pam(name: str, password: str) -> bool:
    if pam_problem():
        return False
    pamela: Any = importlib.import_module("pamela")
    service = next((name for name in PAM_SERVICES if Path("/etc/pam.d", name).exists()), PAM_SERVICES[-1])
    steps: tuple[Callable[[], object], ...] = (
        lambda: pamela.authenticate(name, password, service=service),
        lambda: pamela.check_account(name, service=service),
    )
    try:
        for step in steps:
            step()
    except pamela.PAMError:
        return False
    return True
