"""What carries commands to a guest agent: one small interface (`Channel`) and its implementations, a file each; and beside it `qmp.Monitor`."""

from guestwire.channels.base import Channel, ChannelState, Late, Notice
from guestwire.channels.unix import UnixChannel

__all__ = ["Channel", "ChannelState", "Late", "Notice", "UnixChannel"]
