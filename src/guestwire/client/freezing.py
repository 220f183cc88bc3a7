"""Freezing a guest's file systems, thawing them, and judging how the freeze ended.

A snapshot is good when the freeze held until its end. The number of file systems that the agent thaws is the evidence:
its status only says what the agent believes, which others in the guest, and Windows after ten seconds, may have ended.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from guestwire.client.cancellation import finish_when_cancelled
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import (
    AgentRefused,
    AgentUnavailable,
    CallFailed,
    CertificateNotTrusted,
    FreezeLost,
    FreezeNotHeld,
    FreezeUncertain,
    GuestStopped,
    LoginFailed,
    NoSuchEndpoint,
    NoSuchGuest,
    PrivilegeMissing,
    StillFrozen,
    WrongParameters,
)
from guestwire.counting import counted
from guestwire.pacing import Backoff

ATTEMPTS: Final = 5
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0

THAWS_WITHIN: Final = 60.0
"""Seconds that one attempt to thaw may take."""

NOTHING_DONE: Final = (
    AgentUnavailable, GuestStopped, LoginFailed, NoSuchEndpoint, NoSuchGuest, CertificateNotTrusted, PrivilegeMissing, WrongParameters,
)  # fmt: skip
"""Errors of a call that was not carried out."""

WINDOWS_GAVE_UP: Final = "limited up to 10 seconds"
"""In what the agent says to a thaw that comes too late: Windows holds writes back for no longer."""


async def freeze(calls: Endpoints) -> int:
    """Freezes the guest's file systems; returns how many. When that fails or is cancelled, they are thawed again.

    Raises:
        StillFrozen: it failed, and they could not be thawed.
        CallFailed: they could not be frozen; see `client.errors`.
    """
    try:
        return await calls.fsfreeze_freeze()
    except BaseException as error:
        was_refused = isinstance(error, NOTHING_DONE) or (isinstance(error, AgentRefused) and error.is_disabled)
        if not was_refused:
            await finish_when_cancelled(thaw(calls))
        raise


async def thaw(calls: Endpoints, expected: int | None = None) -> int:
    """Thaws the guest's file systems; returns how many were frozen until then.

    Args:
        calls: the guest's endpoints.
        expected: how many are frozen; None leaves it unjudged whether the freeze held.

    Raises:
        StillFrozen: they could not be thawed.
        FreezeLost: they are thawed, but not all were frozen until now.
        FreezeUncertain: they are thawed, and nothing says whether they were frozen until now.
    """
    backoff, count, doubt = Backoff(FIRST_PAUSE, LONGEST_PAUSE), 0, ""
    for _ in range(ATTEMPTS):
        try:
            async with asyncio.timeout(THAWS_WITHIN):
                try:
                    count += await calls.fsfreeze_thaw()
                except AgentRefused as error:
                    # It may have thawed all the same, as when a script of the guest's own fails after it.
                    doubt = doubt or error.description
                if await _status(calls, "" if doubt else "thawed") == "thawed":
                    break
        except TimeoutError:
            doubt = f"no answer within {THAWS_WITHIN:g} seconds"
        except CallFailed as error:
            doubt = error.message
        await asyncio.sleep(backoff.next())
    else:
        raise StillFrozen(calls.context, f"the file systems may still be frozen: {doubt or 'the agent says so'}")
    if expected is None or count >= expected:
        return count
    if doubt and WINDOWS_GAVE_UP not in doubt:
        raise FreezeUncertain(calls.context, f"whether the freeze held to its end is not known: {doubt}")
    why = f" ({doubt})" if doubt else ""
    raise FreezeLost(
        calls.context,
        f"of {counted(expected, 'frozen file system')} {counted(count, 'was', 'were')} still frozen at the end{why}",
    )


async def end_freeze(calls: Endpoints) -> int:
    """Thaws what an earlier call froze; returns how many; 0 where nothing was.

    Raises:
        FreezeNotHeld: as `thaw`; none was frozen any more though the agent had frozen some.
    """
    was_frozen = False
    with contextlib.suppress(CallFailed):  # thawing is tried in any case
        was_frozen = await _status(calls, "") == "frozen"
    count = await thaw(calls)
    if was_frozen and not count:
        raise FreezeLost(calls.context, "its agent had frozen file systems, and none was frozen any more")
    return count


async def _status(calls: Endpoints, default: str) -> str:
    """What the agent says of it; `default` where that command is switched off."""
    try:
        return await calls.fsfreeze_status()
    except AgentRefused as error:
        if not error.is_disabled:
            raise
        return default


@contextlib.asynccontextmanager
async def freezing(calls: Endpoints) -> AsyncIterator[int]:
    """See `Guest.freeze`."""
    count = await freeze(calls)
    try:
        yield count
    except BaseException as error:
        try:
            await finish_when_cancelled(thaw(calls, count))
        except StillFrozen:
            raise
        except FreezeNotHeld as lost:
            error.add_note(str(lost))
        raise
    await finish_when_cancelled(thaw(calls, count))
