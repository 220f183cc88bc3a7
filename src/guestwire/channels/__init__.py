"""What carries commands to a guest agent: one small interface (`Channel`) and its implementations, a file each."""

from guestwire.channels.base import Channel, ChannelState, Late, Notice
from guestwire.channels.qmp import Monitor
from guestwire.channels.unix import UnixChannel

__all__ = ["Channel", "ChannelState", "Late", "Monitor", "Notice", "UnixChannel"]
