"""The guest agent protocol without I/O: bytes in, events out; no sockets, no clock.

Read `session.py` first: it begins with the rules and the table of states.
"""

from guestwire.wire.frames import Command, Reply, decode_reply, encode_command, encode_sync
from guestwire.wire.session import (
    Answered,
    Event,
    LocalProtocolError,
    Lost,
    Session,
    State,
    Synchronised,
    Unanswered,
)

__all__ = [
    "Answered",
    "Command",
    "Event",
    "LocalProtocolError",
    "Lost",
    "Reply",
    "Session",
    "State",
    "Synchronised",
    "Unanswered",
    "decode_reply",
    "encode_command",
    "encode_sync",
]
