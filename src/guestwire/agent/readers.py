"""Reading from a guest what its agent has, and doing without what it has not."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from guestwire.agent.commands import TypedCommand
from guestwire.agent.guest import GuestAgent
from guestwire.errors import AgentError, UnexpectedAnswer

NOT_FOUND: Final = "CommandNotFound"
"""The class of an agent's error for a command that it does not have, or has switched off."""

OF_FREEZES: Final = "frozen state"

Read = Callable[[TypedCommand[Any]], Awaitable[Any]]
"""Asks the guest one command; None where its agent does not have it, has it switched off, or answers with something else."""


def reader_of(agent: GuestAgent, lacks: set[str]) -> Read:
    """Asks this agent; the names of commands that it turns out to lack are added to `lacks`, and not asked again.

    An agent whose file systems are frozen has nothing to say at all: its error is passed on.
    """

    async def read(command: TypedCommand[Any]) -> Any:
        name = command.command.name
        if name in lacks:
            return None
        try:
            return await agent.execute(command)
        except AgentError as error:
            if OF_FREEZES in error.description:
                raise
            if error.error_class == NOT_FOUND or "has been disabled" in error.description:
                lacks.add(name)
            return None
        except UnexpectedAnswer:  # the agent is up, and its other answers may be right
            return None

    return read
