"""A `RemoteProcess` as messages: what a server and its client say to each other over a WebSocket.

Bytes go in binary messages, behind one that says whose they are; all else is texts of JSON. Each side has room for
so many bytes of what the other sends, and says when there is more: so that neither ever stops reading, and what is said
beside the bytes is heard at once.
"""

from typing import Final

import msgspec

STDIN: Final = 0

WINDOW: Final = 256 * 1024
"""Bytes of each stream that may be on their way, from the beginning."""

LARGEST: Final = 1024 * 1024
"""Bytes of a message."""


class Ended(msgspec.Struct, frozen=True):
    """How a program ended; see `Exit`."""

    code: int | None = None
    signal: int | None = None


class ToServer(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a client says: `eof` ends standard input; `room` is how many more bytes of an output may come; `leave`: see `RemoteProcess`."""

    eof: bool = False
    resize: tuple[int, int] | None = None
    signal: int | None = None
    room: dict[str, int] = {}
    leave: bool = False


class FromServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a server says: `end` is an output's number; `stdin` is false when the program reads no more."""

    pid: int | None = None
    way: str = ""
    stdin: bool = True
    room: dict[str, int] = {}
    end: int | None = None
    exit: Ended | None = None
    broken: str = ""
    fate: str = ""


class Room:
    """Counts what was taken, and says now and then how much more may come."""

    def __init__(self) -> None:
        self._taken = 0

    def take(self, size: int) -> int:
        """Bytes were taken; returns for how many more room is to be offered now, often 0."""
        self._taken += size
        if self._taken < WINDOW // 4:
            return 0
        more, self._taken = self._taken, 0
        return more


def encode(message: ToServer | FromServer) -> bytes:
    """As JSON."""
    return msgspec.json.encode(message)
