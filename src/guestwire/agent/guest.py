"""One guest's agent."""

from guestwire.agent.asker import Asker
from guestwire.agent.files import Files
from guestwire.agent.kept import KeptResults
from guestwire.agent.processes import Processes
from guestwire.channels import Channel


class GuestAgent(Asker):
    """The agent of one guest: single commands (`ask`, `forward`), `files` and `processes`.

    Args:
        channel: reaches the guest. Belongs to whoever made it.
        guest: how messages name the guest, for example `VM 100`.
        kept: where results of ended processes are kept; shared by all guests.
    """

    def __init__(self, channel: Channel, guest: str, kept: KeptResults) -> None:
        super().__init__(channel, guest)
        self.files = Files(self)
        self.processes = Processes(self, kept)
