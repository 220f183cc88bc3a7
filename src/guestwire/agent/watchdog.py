"""A process in the guest that thaws its file systems when nobody else does: started before a freeze, ended after it.

It covers what nothing outside the guest can: that the host of the freeze dies. It needs a Linux with `fsfreeze`, an
agent that is root, and one that may run programs.
"""

import asyncio
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from guestwire.agent.commands import GET_OSINFO
from guestwire.agent.results import ProcessStatus
from guestwire.agent.systems import UNIX, Command
from guestwire.errors import AgentError, GuestError

if TYPE_CHECKING:  # the records of endpoints load no channel
    from guestwire.agent.guest import GuestAgent

MARGIN: Final = 1
"""Seconds that it waits longer than whoever froze the guest: a thaw by the agent is better, for it knows of it then."""

ARMED_WITHIN: Final = 10.0
"""Seconds."""

WINDOWS_ID: Final = "mswindows"
WINDOWS: Final = "Windows thaws its file systems by itself, after 10 seconds"

REASONS: Final = {126: "the guest's agent is not root", 127: "the guest has no fsfreeze"}
"""By the script's exit code."""

_armed = re.compile(rb"([0-9]{1,10} [0-9]{1,20})\n")


class Watchdog(NamedTuple):
    """`process` tells the process from all others in the guest: its id and when it was started; "" where there is none, for `problem`."""

    process: str = ""
    problem: str = ""


NO_WATCHDOG: Final = Watchdog()


def arming(seconds: float) -> Command:
    """The command that starts one for a freeze of so many seconds."""
    return UNIX.script("watchdog", str(int(seconds) + MARGIN))


def disarming(process: str) -> Command:
    """The command that ends it, or with "" the one that there is; safe when it has ended."""
    return UNIX.script("disarm", *process.split())


def watchdog_in(code: int | None, output: bytes) -> Watchdog:
    """What came of `arming`: its exit code, and what it printed."""
    found = _armed.fullmatch(output) if code == 0 else None
    if found:
        return Watchdog(found[1].decode())
    return Watchdog(problem=REASONS.get(code or 0, "the guest's shell could not start it"))


async def arm(agent: "GuestAgent", seconds: float) -> Watchdog:
    """Starts one. A guest where that can't be is frozen without."""
    try:
        async with asyncio.timeout(ARMED_WITHIN):
            try:
                status = await agent.processes.run(arming(seconds))
            except AgentError as error:
                return Watchdog(problem=WINDOWS if await _is_windows(agent) else error.description)
    except TimeoutError:
        return Watchdog(problem=f"the guest did not start it within {ARMED_WITHIN:g} seconds")
    except GuestError as error:
        return Watchdog(problem=str(error))
    return watchdog_in(status.exitcode, status.out_data or b"")


async def _is_windows(agent: "GuestAgent") -> bool:
    try:
        return (await agent.execute(GET_OSINFO)).id == WINDOWS_ID
    except GuestError:  # an old agent does not say
        return False


def disarm(agent: "GuestAgent", process: str) -> None:
    """Ends one in the background; that may fail, for it ends by itself."""
    if process:
        agent.spawn(_run(agent, disarming(process)))


async def _run(agent: "GuestAgent", command: Command) -> ProcessStatus:
    return await agent.processes.run(command)
