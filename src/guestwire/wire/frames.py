"""Frames of the guest agent protocol: one JSON object a line, and the byte 0xFF that clears the other side's parser.

Source: the QGA schema's guest-sync-delimited, and what real agents answer.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from guestwire.errors import ProtocolError

SENTINEL: Final = b"\xff"
"""Never part of UTF-8: the agent's parser drops what it holds, and the answer to guest-sync-delimited begins with it."""

DEFAULT_REPLY_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of one reply; the largest honest ones (memory blocks of a very large guest) stay under 1 MiB."""

MAX_DEPTH: Final = 32
"""Levels of nesting in a reply; the deepest one of the QGA schema has seven."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the guest agent, as the QGA schema has it.

    Attributes:
        name: for example `guest-ping`.
        repeatable: True for one that only reads: it may be sent again when its answer was lost. Others never are.
        answers: False for `success-response: false`: on success the agent says nothing.
        timeout: seconds until the caller is told that there is no answer; bytes of a long answer extend it.
        reply_limit: bytes of the longest reply that is accepted.
    """

    name: str
    repeatable: bool = False
    answers: bool = True
    timeout: float = 5.0
    reply_limit: int = DEFAULT_REPLY_LIMIT


class ErrorBody(msgspec.Struct, frozen=True):
    """The agent's error: its class (`GenericError`, `CommandNotFound`) and a description for people."""

    desc: str = ""
    error_class: str = msgspec.field(name="class", default="GenericError")


class Reply(msgspec.Struct, frozen=True):
    """One line of the agent. `value` is the JSON text behind `return`; exactly one of `value` and `error` is set."""

    value: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="return", default=msgspec.UNSET)
    error: ErrorBody | msgspec.UnsetType = msgspec.UNSET
    id: Any = None


_replies = msgspec.json.Decoder(Reply)
_encoder = msgspec.json.Encoder()
_strings = re.compile(rb'"(?:[^"\\]|\\.)*"')
_not_brackets = bytes(set(range(256)) - set(b"[]{}"))
_all_square = bytes.maketrans(b"{}", b"[]")


def encode_command(command_id: int, name: str, arguments: dict[str, Any]) -> bytes:
    """One line that asks for the command `name`; `arguments` go along when there are any."""
    message = {"execute": name, "id": command_id}
    if arguments:
        message["arguments"] = arguments
    return _encoder.encode(message) + b"\n"


def encode_sync(sync_id: int) -> bytes:
    """0xFF and a guest-sync-delimited: clears half a line that somebody left, and asks for a recognisable answer."""
    return SENTINEL + encode_command(sync_id, "guest-sync-delimited", {"id": sync_id})


def decode_reply(line: bytes) -> Reply:
    """Reads one line; bytes that are not UTF-8 become U+FFFD.

    Raises:
        ProtocolError: no JSON object, neither `return` nor `error`, both, or nested too deeply.
    """
    check_depth(line)
    try:
        reply = _replies.decode(line if line.isascii() else line.decode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"no reply of a guest agent: {error}") from error
    if (reply.value is msgspec.UNSET) == (reply.error is msgspec.UNSET):
        raise ProtocolError("a reply needs either 'return' or 'error'")
    return reply


def check_depth(line: bytes, limit: int = MAX_DEPTH) -> None:
    """Refuses what is nested more than `limit` levels, in time that does not depend on how it is nested.

    Raises:
        ProtocolError: it is.
    """
    if line.count(b"[") + line.count(b"{") <= limit:
        return
    brackets = _strings.sub(b"", line).translate(_all_square, delete=_not_brackets)
    for _ in range(limit):
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise ProtocolError(f"nested more than {limit} levels deep")


class LineBuffer:
    """Cuts a stream of bytes into lines and holds no more than one line's limit and the last piece received."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Adds what came from the socket."""
        self._buffer += data

    def next_line(self) -> bytes | None:
        """The next whole line without its newline, or None when there is none yet."""
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        with memoryview(self._buffer) as view:
            line = bytes(view[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        return line

    def drop_before_sentinel(self) -> int:
        """Throws away what stands before the last 0xFF (all, when there is none); returns how many bytes that were."""
        keep = self._buffer.rfind(SENTINEL)
        dropped = len(self._buffer) if keep < 0 else keep
        del self._buffer[:dropped]
        self._scanned = 0
        return dropped
