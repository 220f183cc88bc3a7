"""Passwords of realm pve: argon2id, with the least memory that OWASP's cheat sheet on password storage recommends."""

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from argon2 import PasswordHasher

AT_ONCE: Final = 1
"""Passwords that are hashed at the same time: each takes 19 MiB."""

_turn: Final = asyncio.Semaphore(AT_ONCE)


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher  # noqa: PLC0415  # a service that nobody logs in to does without it

    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@cache
def _nobody() -> str:
    """What the password of an unknown user is compared with, so that the time it takes does not tell that there is none."""
    return _hasher().hash("nobody's password")


async def hash_password(password: str) -> str:
    """The hash to keep; it names its own parameters."""
    async with _turn:
        return await asyncio.to_thread(lambda: _hasher().hash(password))


async def is_password(hashed: str | None, password: str) -> bool:
    """True if `password` is the one behind the hash; takes as long when there is none."""
    async with _turn:
        matches = await asyncio.to_thread(lambda: _matches(hashed or _nobody(), password))
    return matches and hashed is not None


def _matches(hashed: str, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415  # as above

    try:
        return _hasher().verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
