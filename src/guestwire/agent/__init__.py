"""The guest agent, typed: commands as data (`commands.py`), files, and processes whose results are kept."""

from guestwire.agent.commands import Ask
from guestwire.agent.files import Contents
from guestwire.agent.guest import GuestAgent
from guestwire.agent.kept import KeptResults

__all__ = ["Ask", "Contents", "GuestAgent", "KeptResults"]
