"""Freezing a guest's file systems, thawing them, and judging how the freeze ended.

A snapshot is good when the freeze held until its end. The number of file systems that the agent thaws is the evidence:
its status only says what the agent believes, which others in the guest, and Windows after ten seconds, may have ended.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

from guestwire.agent.watchdog import ARMED_WITHIN, NO_WATCHDOG, WINDOWS, Watchdog, arming, disarming, watchdog_in
from guestwire.client.cancellation import finish_when_cancelled
from guestwire.client.errors import (
    AgentRefused,
    AgentUnavailable,
    CallFailed,
    CertificateNotTrusted,
    ErrorContext,
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
from guestwire.client.processes import CompletedProcess
from guestwire.contract.endpoints.leases import Frozen
from guestwire.counting import counted
from guestwire.pacing import Backoff

T = TypeVar("T")

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


class FreezeCalls(Protocol):
    """The endpoints of a guest that are about freezes; see `client.endpoints`."""

    @property
    def context(self) -> ErrorContext:
        """For messages."""
        ...

    async def fsfreeze_freeze(self) -> int: ...  # noqa: D102  # as there
    async def fsfreeze_status(self) -> str: ...  # noqa: D102
    async def fsfreeze_thaw(self) -> int: ...  # noqa: D102


class FreezableGuest(FreezeCalls, Protocol):
    """A guest, as far as freezes with a lease need it; `watchdog` is what `Guest` has under that name."""

    watchdog: str

    @property
    def run(self) -> Callable[..., Awaitable[CompletedProcess]]: ...  # noqa: D102  # see `Guest`
    async def is_windows(self) -> bool: ...  # noqa: D102  # see `Guest`
    async def fsfreeze_with_lease(  # noqa: D102
        self, *, guestwire_lease: int | None = None, while_connected: bool = False, mountpoints: list[str] | None = None
    ) -> Frozen: ...
    def alone(self) -> contextlib.AbstractAsyncContextManager["FreezableGuest | None"]: ...  # noqa: D102


async def freeze(calls: FreezeCalls) -> int:
    """Freezes the guest's file systems; returns how many. When that fails or is cancelled, they are thawed again.

    Raises:
        StillFrozen: it failed, and they could not be thawed.
        CallFailed: they could not be frozen; see `client.errors`.
    """
    return await _or_thaw(calls, calls.fsfreeze_freeze())


async def freeze_for(
    guest: "FreezableGuest",
    lease: int | None,
    mountpoints: Sequence[str] | None = None,
    *,
    through: "FreezableGuest | None" = None,
) -> Frozen:
    """Freezes the guest's file systems for a time; when that fails or is cancelled, they are thawed again.

    guestwire's server thaws them then. A process in the guest does, too, where the guest can have one, a second later:
    whatever becomes of the server, or where there is none.

    Args:
        guest: whose file systems.
        lease: seconds; None: until they are thawed.
        mountpoints: of those alone that are to be frozen; None: all.
        through: the same guest over a connection of its own: the server thaws them when that ends, too.

    Raises:
        StillFrozen: it failed, and they could not be thawed.
        CallFailed: they could not be frozen; see `client.errors`.
    """
    watchdog = NO_WATCHDOG

    async def frozen() -> Frozen:
        nonlocal watchdog
        points = None if mountpoints is None else list(mountpoints)
        try:
            return await (through or guest).fsfreeze_with_lease(
                guestwire_lease=lease, while_connected=through is not None, mountpoints=points
            )
        except NoSuchEndpoint:
            if points is not None:
                raise
        # Proxmox VE knows no leases: what the server would do in the guest is done from here.
        began = time.time()
        if lease is not None:
            watchdog = await _arm(guest, lease)
        count = await guest.fsfreeze_freeze()
        guest.watchdog = watchdog.process
        return Frozen(count, None if lease is None else began + lease, bool(watchdog.process), watchdog.problem or None)

    try:
        return await _or_thaw(guest, frozen())
    except StillFrozen:  # the watchdog is all that may end it
        raise
    except BaseException:
        # Not before it is thawed: after an error it may be frozen, and this process may be killed.
        await finish_when_cancelled(_disarm(guest, watchdog))
        raise


async def _or_thaw(calls: FreezeCalls, work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except BaseException as error:
        was_refused = isinstance(error, NOTHING_DONE) or (isinstance(error, AgentRefused) and error.is_disabled)
        if not was_refused:
            await finish_when_cancelled(thaw(calls))
        raise


async def _arm(guest: "FreezableGuest", lease: int) -> Watchdog:
    try:
        if await guest.is_windows():
            return Watchdog(problem=WINDOWS)
        ended = await guest.run(arming(lease), timeout=ARMED_WITHIN)
    except CallFailed as error:
        return Watchdog(problem=error.message)
    return watchdog_in(ended.code, ended.stdout)


async def _disarm(guest: "FreezableGuest", watchdog: Watchdog) -> None:
    if watchdog.process:
        with contextlib.suppress(CallFailed):  # it ends by itself
            await guest.run(disarming(watchdog.process), timeout=ARMED_WITHIN)


async def thaw(calls: FreezeCalls, expected: int | None = None, reason: str = "") -> int:
    """Thaws the guest's file systems; returns how many were frozen until then.

    Args:
        calls: the guest's endpoints.
        expected: how many are frozen; None leaves it unjudged whether the freeze held.
        reason: why it may not have held, as far as that is known.

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
    why = f" ({doubt or reason})" if doubt or reason else ""
    raise FreezeLost(
        calls.context,
        f"of {counted(expected, 'frozen file system')} {counted(count, 'was', 'were')} still frozen at the end{why}",
    )


async def end_freeze(calls: FreezeCalls) -> int:
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


async def end_watchdog(guest: "FreezableGuest") -> None:
    """Ends the watchdog of a freeze that another process began, or else it ends the next freeze; that may fail, for it ends by itself."""
    with contextlib.suppress(CallFailed):
        if not await guest.is_windows():
            await guest.run(disarming(""), timeout=ARMED_WITHIN)


async def _status(calls: FreezeCalls, default: str) -> str:
    """What the agent says of it; `default` where that command is switched off."""
    try:
        return await calls.fsfreeze_status()
    except AgentRefused as error:
        if not error.is_disabled:
            raise
        return default


@contextlib.asynccontextmanager
async def freezing(
    guest: "FreezableGuest", lease: int | None = None, mountpoints: Sequence[str] | None = None
) -> AsyncIterator[int]:
    """See `Guest.freeze`."""
    if lease is None and mountpoints is None:
        count = await freeze(guest)
        async with _thawing(guest, count):
            yield count
        return
    async with freezing_for([guest], lease, mountpoints) as (frozen,):
        yield frozen.frozen


@contextlib.asynccontextmanager
async def freezing_for(
    guests: Sequence["FreezableGuest"], lease: int | None, mountpoints: Sequence[str] | None = None
) -> AsyncIterator[list[Frozen]]:
    """Freezes guests for `lease` seconds at most (None: without an end), all or none, and thaws them at the end; gives what was frozen, in their order.

    All are judged at the end; of several errors one is raised, and the others are notes of it.

    Raises:
        CallFailed: as `Guest.freeze`.
    """
    async with contextlib.AsyncExitStack() as stack:
        frozen = []
        # One after the other: when one fails, those before it are thawed, and nothing of the others was done.
        for guest in guests:
            through = await stack.enter_async_context(guest.alone())  # it is for this alone
            one = await freeze_for(guest, lease, mountpoints, through=through)
            await stack.enter_async_context(_thawing(guest, one.frozen, lease))
            frozen.append(one)
        yield frozen


@contextlib.asynccontextmanager
async def _thawing(guest: "FreezableGuest", count: int, lease: int | None = None) -> AsyncIterator[None]:
    """Thaws at the end, and at that of the lease, where the server does not, or can't be reached; judges how the freeze ended."""
    began, over = time.monotonic(), None
    if lease is not None:
        over = asyncio.create_task(_thaw_after(guest, lease), name="lease of a freeze")

    async def end() -> None:
        is_over = lease is not None and time.monotonic() - began >= lease
        reason = f"its lease of {counted(lease, 'second')} was over before" if lease and is_over else ""
        watchdog, guest.watchdog = guest.watchdog, ""
        try:
            await thaw(guest, count, reason)
        except StillFrozen:  # as above
            raise
        except FreezeNotHeld:
            await _disarm(guest, Watchdog(watchdog))
            raise
        await _disarm(guest, Watchdog(watchdog))

    try:
        try:
            yield
        finally:
            if over:
                over.cancel()
                await asyncio.gather(over, return_exceptions=True)
    except BaseException as error:
        try:
            await finish_when_cancelled(end())
        except StillFrozen:
            raise
        except FreezeNotHeld as lost:
            error.add_note(str(lost))
        raise
    await finish_when_cancelled(end())


async def _thaw_after(guest: "FreezableGuest", lease: int) -> None:
    await asyncio.sleep(lease)
    with contextlib.suppress(CallFailed):  # it is tried once more at the end, and judged
        await thaw(guest)
