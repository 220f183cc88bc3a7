"""One guest's agent."""

import asyncio

from guestwire.agent.agent_client import AgentClient
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.files import Files
from guestwire.agent.processes import Processes
from guestwire.channels.channel import Channel


class GuestAgent(AgentClient):
    """The agent of one guest: single commands (`execute`, `execute_raw`), `files` and `processes`.

    Args:
        channel: reaches the guest. Belongs to its maker.
        guest: how messages name the guest, for example `VM 100`.
        exit_statuses: keeps the results of ended processes; shared by all guests.
    """

    def __init__(self, channel: Channel, guest: str, exit_statuses: ExitStatusCache) -> None:
        super().__init__(channel, guest)
        self.freeze_turn = asyncio.Lock()
        """Held by whoever freezes the guest for a time."""
        self.files = Files(self)
        self.processes = Processes(self, exit_statuses)
