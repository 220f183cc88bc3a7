"""Why an agent refuses a command: it is too old, its system has none, it is switched off, or file systems are frozen.

The agent says little of it: `has not been found` or `has been disabled`, and some of the old ones say the one for the other.
"""

import contextlib
from typing import TYPE_CHECKING, Final

from guestwire.agent.commands import FSFREEZE_STATUS, GET_OSINFO, INFO, SINCE, absent_from
from guestwire.errors import AgentError, GuestError

if TYPE_CHECKING:  # the records of endpoints load no channel
    from guestwire.agent.agent_client import AgentClient

CLASSES: Final = frozenset({"CommandNotFound", "CommandDisabled"})
WORDS: Final = ("has not been found", "has been disabled")


def is_refused(error: AgentError, command: str = "") -> bool:
    """True if it is about the command itself: the agent lacks it, or does not take it now, as while file systems are frozen."""
    says_so = command in error.description and any(words in error.description for words in WORDS)
    return error.error_class in CLASSES or says_so


async def explain_missing(agent: "AgentClient", command: str, error: AgentError) -> AgentError:
    """The agent's error with the reason in it, where it lacks the command; else the error as it is.

    Args:
        agent: that answered with the error; it is asked for what it has.
        command: for example `guest-get-load`.
        error: its answer.
    """
    if not is_refused(error, command):
        return error
    try:
        info = await agent.execute(INFO)
    except GuestError:
        return error
    listed = {one.name: one.enabled for one in info.supported_commands}
    is_listed = command in listed
    system = None
    with contextlib.suppress(GuestError):
        if is_listed and await agent.execute(FSFREEZE_STATUS) == "frozen":
            return AgentError(error.error_class, f"{command} can't be used while the agent is in frozen state")
    with contextlib.suppress(GuestError):
        system = (await agent.execute(GET_OSINFO)).id
    # Before its policy: older agents list as disabled what their system can't have.
    if not listed.get(command) and command in absent_from(system):
        why = f"no agent of this system ({system or 'unknown'}) has {command}"
    elif is_listed:
        why = f"{command} is switched off in the guest, by the policy of its agent ({info.version})"
    else:
        why = f"this agent ({info.version}) has no {command}: there is one since QEMU {SINCE[command]}"
    return AgentError(error.error_class, why)
