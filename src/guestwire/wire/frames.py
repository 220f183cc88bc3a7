"""Frames of the guest agent protocol: one JSON object a line, and the byte 0xFF that clears the other side's parser.

Source: the QGA schema's guest-sync-delimited, and what real agents answer.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from guestwire.errors import ProtocolError

SENTINEL: Final = b"\xff"
"""Never part of UTF-8: the agent's parser drops what it holds, and the answer to guest-sync-delimited begins with it."""

DEFAULT_REPLY_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of one reply; the largest honest ones (memory blocks of a very large guest) stay under 1 MiB."""

STRUCTURE_LIMIT: Final = 2 * 1024 * 1024
"""Bytes from which on a reply must be base64 and next to nothing else."""

MAX_DEPTH: Final = 32
"""Levels of nesting in a reply; the deepest one of the QGA schema has seven."""

MAX_VALUES: Final = 128 * 1024
"""Brackets and commas in a reply.

A value in memory is up to 30 times as long as its JSON; memory blocks of 1 MiB have about 70,000.
"""

BROKEN_TEXT_LIMIT: Final = 512 * 1024
"""Bytes of a reply that is not UTF-8: replacing what is wrong is slow, and three times as long."""

FLAT_FROM: Final = 16 * 1024
"""Bytes from which on a reply is probably base64, and looked at as such first."""

NOT_FLAT: Final = f"a reply of more than {STRUCTURE_LIMIT} bytes that is not base64"

Line = bytes | bytearray
"""One line of the agent without its newline."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the guest agent, as the QGA schema has it.

    Attributes:
        name: for example `guest-ping`.
        repeatable: True for one that only reads: it may be sent again when its answer was lost. Others never are.
        answers: False for `success-response: false`, a *no-reply* command: on success the agent says nothing.
        timeout: seconds until the caller is told that there is no answer; bytes of a long answer extend it.
        reply_limit: bytes of the longest reply that is accepted.
        releases: True for one that gives back what the agent holds for us, as a handle: a channel that is closing still
            sends it.
    """

    name: str
    repeatable: bool = False
    answers: bool = True
    timeout: float = 5.0
    reply_limit: int = DEFAULT_REPLY_LIMIT
    releases: bool = False


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
_all_but_brackets = bytes(set(range(256)) - set(b'[]{}"'))
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


def decode_reply(line: Line) -> Reply:
    """Reads one line; bytes that are not UTF-8 become U+FFFD.

    Work and memory are a small multiple of the line, whatever is in it: what would cost more is refused before it is
    decoded. Brackets and commas count inside of texts, too; no honest reply has that many anywhere.

    Raises:
        ProtocolError: no JSON object, neither `return` nor `error`, both, nested too deeply or of too many values.
    """
    brackets = 0
    if len(line) < FLAT_FROM or not is_flat(line):
        if len(line) > STRUCTURE_LIMIT:
            raise ProtocolError(NOT_FLAT)
        brackets = line.count(b"[") + line.count(b"{")
        if brackets + line.count(b",") > MAX_VALUES:
            raise ProtocolError(f"a reply of more than {MAX_VALUES} values")
    try:
        reply = _replies.decode(line if line.isascii() else _text(line))
    except msgspec.DecodeError as error:
        raise ProtocolError(f"no reply of a guest agent: {error}") from error
    except RecursionError:
        raise ProtocolError(f"nested more than {MAX_DEPTH} levels deep") from None
    if brackets > MAX_DEPTH:
        check_depth(line)
    if (reply.value is msgspec.UNSET) == (reply.error is msgspec.UNSET):
        raise ProtocolError("a reply needs either 'return' or 'error'")
    return reply


def check_depth(line: Line, limit: int = MAX_DEPTH) -> None:
    """Refuses valid JSON that is nested more than `limit` levels; each level is one pass over at most `MAX_VALUES` brackets.

    Raises:
        ProtocolError: it is.
    """
    brackets = outline(line)
    for _ in range(limit):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise ProtocolError(f"nested more than {limit} levels deep")


def outline(line: Line) -> bytes:
    """The brackets of valid JSON that stand outside of texts, in order and all made square: all that its depth depends on.

    A few passes in C, each linear. Escaped characters go first (the pairs of backslashes before the escaped quotes),
    then all but brackets and quotes, then quotes side by side, which changes nothing for what is left: between an odd
    quote and an even one is text.
    """
    if b"\\" in line:
        line = line.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(line.translate(_all_square, _all_but_brackets).replace(b'""', b"").split(b'"')[::2])


def is_flat(data: bytes | bytearray) -> bool:
    """True if there are few brackets and commas; looking for the next one is 20 times as fast as counting all."""
    for mark in (b"[", b"{", b","):
        at = -1
        for _ in range(MAX_DEPTH):
            at = data.find(mark, at + 1)
            if at < 0:
                break
        else:
            return False
    return True


def _text(line: Line) -> str:
    if len(line) > STRUCTURE_LIMIT:
        raise ProtocolError(NOT_FLAT)
    try:
        return line.decode()
    except UnicodeDecodeError:
        if len(line) > BROKEN_TEXT_LIMIT:
            raise ProtocolError(f"a reply of more than {BROKEN_TEXT_LIMIT} bytes that is not UTF-8") from None
        return line.decode("utf-8", "replace")


class LineBuffer:
    """Cuts a stream of bytes into lines and holds no more than one line's limit and the last piece received."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> None:
        """Adds what came from the socket; it is copied."""
        self._buffer += data

    def next_line(self) -> Line | None:
        """The next whole line without its newline, or None when there is none yet."""
        buffer = self._buffer
        end = buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(buffer)
            return None
        self._scanned = 0
        if end == len(buffer) - 1:
            # Nothing follows, as behind nearly every reply: the buffer itself is the line, and 48 MiB are not copied.
            self._buffer = bytearray()
            del buffer[end]
            return buffer
        line = buffer[:end]
        del buffer[: end + 1]
        return line

    def holds_flat_end(self, size: int) -> bool:
        """True if the last `size` bytes are flat; see `is_flat`."""
        return is_flat(self._buffer[-size:])

    def skip_lines(self, mark: bytes | None) -> tuple[int, int]:
        """Throws away whole lines up to the first with `mark` in it (all, when there is none); returns how many bytes and lines."""
        found = self._buffer.find(mark) if mark is not None else -1
        end = self._buffer.rfind(b"\n", 0, found if found >= 0 else len(self._buffer)) + 1
        lines = self._buffer.count(b"\n", 0, end)
        del self._buffer[:end]
        self._scanned = 0
        return end, lines

    def drop_before_sentinel(self) -> int:
        """Throws away what stands before the last 0xFF (all, when there is none); returns how many bytes that were."""
        keep = self._buffer.rfind(SENTINEL)
        dropped = len(self._buffer) if keep < 0 else keep
        del self._buffer[:dropped]
        self._scanned = 0
        return dropped
