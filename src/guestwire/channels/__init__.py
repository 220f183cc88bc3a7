"""Channels carry commands to a guest agent: one small interface (`Channel`) and its implementations, a file each; and beside it `qmp.Monitor`."""

from guestwire.channels.budget import ReadBudget
from guestwire.channels.channel import Channel, ChannelState, GuestEvent, Limits, OnLateReply
from guestwire.channels.opening import open_channel
from guestwire.channels.stream import StreamChannel
from guestwire.channels.unix import UnixChannel, is_served

__all__ = [
    "Channel",
    "ChannelState",
    "GuestEvent",
    "Limits",
    "OnLateReply",
    "ReadBudget",
    "StreamChannel",
    "UnixChannel",
    "is_served",
    "open_channel",
]
