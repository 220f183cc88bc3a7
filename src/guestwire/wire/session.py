r"""One conversation with a guest agent, without I/O.

The rules
---------
1. The agent answers strictly in order. What we sent and what has no answer yet stands in a queue; the oldest entry is the *head*.
2. A conversation begins with a sync: what the agent sends before the sync's answer was meant for somebody else (an earlier
   client, a command given up before a reconnect) and is dropped, until a 0xFF and our number show that both sides agree.
3. A reply belongs to the head. It carries the head's id, or none where the agent is one that does not echo ids.
4. A line that is no reply, or has an id that is not the head's, is *stray*. A sync as head swallows it (our 0xFF itself makes the agent
   complain once). A command as head does not: then nobody knows whose the next reply is, everything in the queue is lost, and
   only a sync brings the conversation back.
5. The answer to a sync settles what stands before it: an ordinary command there is lost; one that says nothing on success (guest-shutdown
   and its kind) has succeeded.
6. A command that nobody waits for any more stays in the queue, so that its late reply is recognised. Ids are never used twice.
7. A line longer than the head allows ends the conversation; before a sync's answer it is dropped instead, up to a budget.
8. A guest decides what is received, and nothing else: whatever it sends means events or a `ProtocolError`.

The states
----------
`TRANSITIONS` below is the whole machine; what it doesn't list is our own mistake (`LocalProtocolError`), never the guest's.
"""

from collections import deque
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from itertools import takewhile
from typing import Any, Final

import msgspec

from guestwire.errors import ProtocolError
from guestwire.wire.frames import (
    NOT_FLAT,
    SENTINEL,
    STRUCTURE_LIMIT,
    Command,
    Line,
    LineBuffer,
    Reply,
    decode_reply,
    encode_command,
    encode_sync,
)

SYNC_REPLY_LIMIT: Final = 64 * 1024
"""Bytes of a line that may stand before a sync's answer and still be looked at."""

DISCARD_BUDGET: Final = 64 * 1024 * 1024
"""Bytes that are dropped between two syncs: the rest of the longest reply that an agent can owe to an earlier client."""

DISCARDED_LINE_COST: Final = 256 * 1024
"""Bytes that a dropped line counts at least when it was looked at, for that costs more time than its bytes say."""

SKIPPED_LINE_COST: Final = 4 * 1024
"""The same for a line that was not: an agent that wakes up after hours owes answers to hundreds of syncs of earlier connections."""

MARK_LENGTH: Final = 4
"""Digits that the ids that are looked for must have in common, or each line is looked at."""

SYNC_ANSWER_LIMIT: Final = 1024
"""Bytes of the answer to a sync; a real one has about 60."""


class State(Enum):
    """Where the conversation stands."""

    __hash__ = object.__hash__  # Enum's own is Python code, and each command needs several

    UNSYNCED = auto()
    SYNCING = auto()
    READY = auto()
    CLOSED = auto()


class Input(Enum):
    """What can happen to it."""

    __hash__ = object.__hash__

    SYNC_SENT = auto()
    SYNC_ANSWERED = auto()
    COMMAND_SENT = auto()
    REPLY = auto()
    STRAY = auto()
    END = auto()


TRANSITIONS: Final[dict[State, dict[Input, State]]] = {
    State.UNSYNCED: {
        Input.SYNC_SENT: State.SYNCING,
        Input.SYNC_ANSWERED: State.READY,  # the answer to one of several syncs, sent before a stray line came
        Input.STRAY: State.UNSYNCED,
        Input.END: State.CLOSED,
    },
    State.SYNCING: {
        Input.SYNC_SENT: State.SYNCING,
        Input.SYNC_ANSWERED: State.READY,
        Input.REPLY: State.SYNCING,
        Input.STRAY: State.SYNCING,
        Input.END: State.CLOSED,
    },
    State.READY: {
        Input.SYNC_SENT: State.SYNCING,
        Input.SYNC_ANSWERED: State.READY,
        Input.COMMAND_SENT: State.READY,
        Input.REPLY: State.READY,
        Input.STRAY: State.UNSYNCED,
        Input.END: State.CLOSED,
    },
    State.CLOSED: {
        Input.END: State.CLOSED,
    },
}


class LocalProtocolError(RuntimeError):
    """Our own code used a session or a link in a way that its table does not allow."""


class Answered(msgspec.Struct, frozen=True):
    """The reply to command `id`; also when nobody waits for it any more."""

    id: int
    reply: Reply


class Unanswered(msgspec.Struct, frozen=True):
    """Command `id`, of the kind that says nothing on success, is behind us."""

    id: int


class Lost(msgspec.Struct, frozen=True):
    """The reply to command `id` will never be recognised; `why` is for people."""

    id: int
    why: str


class Synchronised(msgspec.Struct, frozen=True):
    """Both sides agree again: commands may be sent."""


Event = Answered | Unanswered | Lost | Synchronised


class _Sent(msgspec.Struct, frozen=True):
    """An entry of the queue; `command` is None for a sync."""

    id: int
    command: Command | None


class Session:
    """One conversation: the methods return bytes to send, `receive` turns bytes into events.

    Attributes:
        state: where it stands.
        next_id: the id of the next command or sync.
        echoes_ids: whether the agent gave the id back with its last answer to a sync.
        in_flight: how many commands (syncs not counted) have no answer yet.

    Args:
        first_id: ids are counted from here. Choose it at random and carry `next_id` over to the next session on
            the same channel, so that a reply meant for an earlier conversation is never taken for one of ours.
        orphans: ids of earlier sessions whose reply still matters when it comes late (a file handle to close).
    """

    def __init__(self, first_id: int, orphans: AbstractSet[int] = frozenset()) -> None:
        self.state = State.UNSYNCED
        self.next_id = first_id
        self.echoes_ids = False
        self.in_flight = 0
        self._orphans = orphans
        self._queue: deque[_Sent] = deque()
        self._lines = LineBuffer()
        self._discarded = 0

    @property
    def head(self) -> int | None:
        """The id of the oldest entry that has no answer."""
        return self._queue[0].id if self._queue else None

    @property
    def buffered(self) -> int:
        """Bytes of a line that has arrived in part."""
        return len(self._lines)

    @property
    def expects(self) -> bool:
        """True while a command or a sync is to be answered."""
        return any(sent.command is None or sent.command.answers for sent in self._queue)

    def sync(self) -> bytes:
        """Bytes that ask for synchronisation."""
        self._move(Input.SYNC_SENT)
        return encode_sync(self._enqueue(None))

    def send(self, command: Command, arguments: dict[str, Any]) -> tuple[int, bytes]:
        """The new command's id, and the bytes that ask for it."""
        self._move(Input.COMMAND_SENT)
        command_id = self._enqueue(command)
        return command_id, encode_command(command_id, command.name, arguments)

    def receive(self, data: bytes | memoryview) -> Iterator[Event]:
        """Yields what `data` means, in order; it is copied.

        Raises:
            ProtocolError: a line over the limit, or too much before a sync's answer. The session is closed then; call
                `end` for what is lost with it.
        """
        self._lines.feed(data)
        while self._lines and self.state is not State.CLOSED:
            if not self._queue or self._queue[0].command is None:
                self._skip_noise()
            if (line := self._lines.next_line()) is None:
                break
            yield from self._line(line)
        if self._lines:
            self._check_limit(len(data))

    def end(self, why: str, *, by_agent: bool) -> Iterator[Event]:
        """The connection is gone: yields the fate of everything in the queue.

        Args:
            why: for people.
            by_agent: the other side hung up. A command that says nothing on success has succeeded then.
        """
        self._move(Input.END)
        self._lines = LineBuffer()
        yield from self._settle(len(self._queue), why, silence_is_success=by_agent)

    def _move(self, what: Input) -> None:
        try:
            self.state = TRANSITIONS[self.state][what]
        except KeyError:
            raise LocalProtocolError(f"{what.name} in state {self.state.name}") from None

    def _enqueue(self, command: Command | None) -> int:
        sent = _Sent(self.next_id, command)
        self.next_id += 1
        self.in_flight += command is not None
        self._queue.append(sent)
        return sent.id

    def _skip_noise(self) -> None:
        """Drops lines that can't be wanted without a look at each: without one of the ids that are looked for, it is nobody's."""
        wanted = [sent.id for sent in self._queue if sent.command is None] + list(self._orphans)
        mark = None
        if wanted:
            # All ids between two numbers of the same length begin with what these two begin with.
            low, high = str(min(wanted)), str(max(wanted))
            shared = takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False))
            mark = "".join(digit for digit, _ in shared).encode()
            if len(low) != len(high) or len(mark) < min(MARK_LENGTH, len(low)):
                return
        size, lines = self._lines.skip_lines(mark)
        if lines:
            self._discard(size + lines * SKIPPED_LINE_COST)
            if not self._queue:
                self._move(Input.STRAY)

    def _check_limit(self, received: int) -> None:
        command = self._queue[0].command if self._queue else None
        limit = command.reply_limit if command else SYNC_REPLY_LIMIT
        if len(self._lines) <= limit:
            if len(self._lines) > STRUCTURE_LIMIT and not self._lines.holds_flat_end(received):
                self._fail(NOT_FLAT)  # `decode_reply` would say so, too, but 40 MiB later
            return
        if command or self.state is not State.SYNCING:
            self._fail(f"a reply longer than {limit} bytes")
        self._discard(self._lines.drop_before_sentinel())

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > DISCARD_BUDGET:
            self._fail(f"more than {DISCARD_BUDGET} bytes before the answer to a sync")

    def _fail(self, why: str) -> None:
        self.state = State.CLOSED
        raise ProtocolError(why)

    def _line(self, line: Line) -> Iterator[Event]:
        head = self._queue[0] if self._queue else None
        if head and head.command and len(line) > head.command.reply_limit:
            self._fail(f"a reply longer than {head.command.reply_limit} bytes")
        if SENTINEL in line and (sync := self._sync_answered(line)) is not None:
            yield from self._synchronised(sync)
        elif head is None or head.command is None or not line.strip():
            yield from self._drop(head, line)
        else:
            yield from self._reply(head, head.command, line)

    def _sync_answered(self, line: Line) -> int | None:
        """The position in the queue of the sync that `line` answers."""
        start = line.rfind(SENTINEL) + 1
        if len(line) - start > SYNC_ANSWER_LIMIT:
            return None
        try:
            reply = decode_reply(line[start:])
        except ProtocolError:
            return None
        value = bytes(reply.value) if reply.value is not msgspec.UNSET else b""
        for position, sent in enumerate(self._queue):
            if sent.command is None and value == b"%d" % sent.id:
                self.echoes_ids = reply.id == sent.id
                return position
        return None

    def _synchronised(self, position: int) -> Iterator[Event]:
        yield from self._settle(position, "the agent dropped it", silence_is_success=True)
        self._queue.popleft()
        self._discarded = 0
        self._move(Input.SYNC_ANSWERED)
        yield Synchronised()

    def _drop(self, head: _Sent | None, line: Line) -> Iterator[Event]:
        self._discard(max(len(line), DISCARDED_LINE_COST))
        if len(line) <= SYNC_REPLY_LIMIT and (late := self._orphan(line)):
            yield late
        elif head is None:
            self._move(Input.STRAY)

    def _orphan(self, line: Line) -> Answered | None:
        if not self._orphans:
            return None
        try:
            reply = decode_reply(line.rpartition(SENTINEL)[2])
        except ProtocolError:
            return None
        return Answered(reply.id, reply) if isinstance(reply.id, int) and reply.id in self._orphans else None

    def _reply(self, head: _Sent, command: Command, line: Line) -> Iterator[Event]:
        try:
            reply = decode_reply(line)
        except ProtocolError as error:
            yield from self._out_of_step(str(error))
            return
        if reply.id == head.id or (reply.id is None and not self.echoes_ids):
            self._queue.popleft()
            self.in_flight -= 1
            self._move(Input.REPLY)
            yield Answered(head.id, reply)
        elif not command.answers and self._is_next(reply):
            yield from self._settle(1, "", silence_is_success=True)
            yield from self._line(line)
        else:
            yield from self._out_of_step(_stray(reply, head.id))

    def _is_next(self, reply: Reply) -> bool:
        return len(self._queue) > 1 and self._queue[1].command is not None and reply.id == self._queue[1].id

    def _out_of_step(self, why: str) -> Iterator[Event]:
        """Everything up to the next sync in the queue, or all of it, is lost."""
        before_sync = next((n for n, sent in enumerate(self._queue) if sent.command is None), len(self._queue))
        yield from self._settle(before_sync, why, silence_is_success=False)
        self._move(Input.STRAY)

    def _settle(self, count: int, why: str, *, silence_is_success: bool) -> Iterator[Event]:
        for _ in range(count):
            sent = self._queue.popleft()
            if sent.command:
                self.in_flight -= 1
                succeeded = silence_is_success and not sent.command.answers
                yield Unanswered(sent.id) if succeeded else Lost(sent.id, why)


def _stray(reply: Reply, expected: int) -> str:
    if reply.id is None and reply.error is not msgspec.UNSET:
        return reply.error.desc[:200]
    return f"got wrong command id '{str(reply.id)[:40]}' (expected {expected})"
