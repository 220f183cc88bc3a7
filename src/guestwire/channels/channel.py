"""The seam between guestwire and a guest: whole commands go down, whole replies come up.

Above it: `agent/`, which knows what the commands mean. Below it: one implementation a carrier. `stream.py` carries
bytes over any stream socket (`unix.py` is one); others (`libvirt.py`, another node) carry the command as it is.
`guestwire.testing.channels` checks any of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from guestwire.wire import Command, Reply


class ChannelState(Enum):
    """What is known about the agent behind a channel, without asking it."""

    UP = "up"
    """It answered a sync, and has answered since."""
    SILENT = "silent"
    """It can be reached and does not answer: calls fail at once, and it is checked again in the background."""
    GONE = "gone"
    """There is nothing to reach: no socket, or nobody listens."""


class GuestEvent(Enum):
    """What another source than the channel (QMP) has seen happen to the guest."""

    PORT_OPENED = "port opened"
    PORT_CLOSED = "port closed"
    SUSPENDED = "suspended"
    WOKEN = "woken"
    RESET = "reset"
    STOPPED = "stopped"


OnLateReply = Callable[[Reply], None]
"""Called with the reply of a command that its caller had given up: there may be a file handle in it, or a process's only output."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a channel carries at most, in bytes of JSON; None: as much as an agent takes and gives."""

    command: int | None = None
    reply: int | None = None


class Channel(Protocol):
    """Carries commands to one guest agent. Any number of callers; replies never get mixed up."""

    @property
    def limits(self) -> Limits:
        """What it carries; it refuses larger commands. No command may be sent whose reply can be larger."""
        ...

    @property
    def state(self) -> ChannelState:
        """What is known about the agent now."""
        ...

    async def execute(
        self, command: Command, arguments: dict[str, Any] | None = None, *, on_late_reply: OnLateReply | None = None
    ) -> bytes:
        """Executes `command` in the guest.

        Args:
            command: what to execute; its time-out counts from now, waiting for others included.
            arguments: JSON-able, as the QGA schema names them.
            on_late_reply: called with the reply when it comes after this call has ended.

        Returns:
            The JSON text behind `return`; `null` for a command that says nothing on success.

        Raises:
            AgentNotRunning: nobody answers.
            CommandTimeout: no answer in time. A changing command may still be executed.
            CommandFailed: the answer is lost.
            AgentError: the agent's own error.
        """
        ...

    def notify(self, event: GuestEvent) -> None:
        """Tells the channel what it can't see itself."""
        ...

    async def close(self) -> None:
        """Ends the connection and every call on it.

        What the agent just answers to nobody is still handed on for a moment, and commands that release what is in it
        are executed.
        """
        ...
