"""The link with one guest agent, without I/O: calls and bytes go in, actions come out, and time is passed in.

The rules
---------
1. One connection a guest, kept open: opening it anew costs 100 ms on virtio-serial. A `wire.Session` speaks over it.
2. Calls wait in a queue; up to `WINDOW` commands are ahead of their replies. A command that says nothing on success
   travels alone, for nothing that is sent behind it could be told from its own answer. So does a large one: on
   virtio-serial, replies get lost as soon as more than `MOST_AHEAD` bytes of several commands are on their way
   (measured to the byte, with pings too; one alone may be of any length).
3. The first sync on a connection may take `OPEN_TIMEOUT` (Proxmox VE waits as long for its ping); the one after a
   time-out only `RESYNC_TIMEOUT`, because the caller before has waited already: an agent that has said something since
   gets as long as at first, counted from then. It may be busy with its guest's other work.
4. After a command without a proper answer, a sync that is answered proves little: an agent may answer syncs and nothing
   else. Then the link is up only when a guest-ping of our own is answered, too. One that was answering others a moment
   ago is busy, and not in doubt.
5. A call fails at once while the agent is known not to answer (SILENT, RESTING). The link asks again by itself.
6. A command that only reads is sent a second time, once, when the agent hangs up before answering it, or answers
   something else because it was started again. A changing one never is.
7. An agent that breaks the protocol is disconnected and left alone, each time twice as long, up to `REST_AT_MOST`. It
   is forgiven when a connection was good for `BEHAVED` seconds; nothing that the guest can do by itself ends a rest.
8. While a command takes long (a freeze may take an hour), a ping follows it: an agent that was started again answers
   the ping, and has lost the command.
9. Every call ends exactly once: with a value, with an error, or because its caller went away.

The phases ---------- `TRANSITIONS` below is the whole machine; what it doesn't list is our own mistake
(`LocalProtocolError`), never the guest's.

    DOWN        no connection, and none was wanted or none could be had; a call connects
    CONNECTING  a connection was asked for; calls wait
    SYNCING     a sync is out; calls wait
    VERIFYING   the sync was answered, but rule 4 wants a ping, too; calls wait
    UP          synchronised; commands are sent
    SILENT      connected, and nothing proved the agent in time; calls fail at once, and it is asked again
    RESTING     no connection, and none wanted for a while: rule 7; calls fail at once
    CLOSED      we have ended the link
"""

import math
from collections import deque
from enum import Enum, auto
from typing import Any, Final

import msgspec

from guestwire.channels.channel import ChannelState, GuestEvent, OnLateReply
from guestwire.errors import AgentError, AgentNotRunning, CommandFailed, CommandTimeout, GuestError, ProtocolError
from guestwire.pacing import Backoff
from guestwire.wire import (
    Answered,
    Command,
    Event,
    LocalProtocolError,
    Lost,
    Reply,
    Session,
    State,
    Synchronised,
    Unanswered,
    encode_command,
)

WINDOW: Final = 4
"""Commands ahead of their replies: two to four raise the rate by 1.6 to 2, more gains nothing."""

MOST_AHEAD: Final = 4096
"""Bytes of several commands ahead of their replies: what the agent reads at once."""

LONGEST_ID: Final = 2**53

OPEN_TIMEOUT: Final = 3.0
RESYNC_TIMEOUT: Final = 0.3

RECHECK: Final = 0.5
"""Seconds between two looks at an agent that does not answer, and until the first look at one that went away."""

RECHECK_AT_MOST: Final = 5.0
"""Seconds between two connections that nobody asked for, after several that came to nothing."""

REST: Final = 0.5
REST_AT_MOST: Final = 60.0
"""Seconds that an agent is left alone for breaking the protocol: the first time, and at most."""

BEHAVED: Final = 60.0
"""Seconds that a connection must have been good for, so that earlier breaches, and connections that came to nothing, are forgotten."""

MAX_WAITING: Final = 1024
"""Calls that may wait for one guest."""

MAX_LATE: Final = 256
"""Replies that may still come for calls that have ended; the oldest are forgotten first."""

MAX_HANG_UPS: Final = 2
"""How often an agent may hang up before the link is up, one time after the other; then that is a breach, too."""

PING: Final = Command("guest-ping", repeatable=True)

STALLED: Final = 1.0
"""Seconds without a byte after which an answer that has begun is not expected any more."""

MAX_EXTENSIONS: Final = 12
"""How often the time of a command is extended because its answer is arriving."""

PING_AFTER: Final = 10.0
"""Seconds without a byte after which a ping follows a command that has more time than that."""

MAX_PROBES: Final = 30
"""Unanswered syncs on one connection; then a new one is opened, for a full buffer keeps them from the agent."""

STOPPING: Final = "guestwire is stopping"


class Phase(Enum):
    """See the module."""

    __hash__ = object.__hash__  # Enum's own is Python code, and each command needs several

    DOWN = auto()
    CONNECTING = auto()
    SYNCING = auto()
    VERIFYING = auto()
    UP = auto()
    SILENT = auto()
    RESTING = auto()
    CLOSED = auto()


class Input(Enum):
    """What can happen to a link, or what it decides."""

    CONNECT = auto()
    CONNECTED = auto()
    CONNECT_FAILED = auto()
    SYNC_ANSWERED = auto()
    SYNC_DOUBTED = auto()  # it was answered, but rule 4 wants more
    PING_ANSWERED = auto()
    SUSPECT = auto()  # something had no proper answer; a sync goes out
    TIME_UP = auto()  # nothing proved the agent in time
    HUNG_UP = auto()
    RECONNECT = auto()  # this connection leads nowhere, another one may
    BREACH = auto()
    CLOSE = auto()


TRANSITIONS: Final[dict[Phase, dict[Input, Phase]]] = {
    Phase.DOWN: {
        Input.CONNECT: Phase.CONNECTING,
        Input.CLOSE: Phase.CLOSED,
    },
    Phase.CONNECTING: {
        Input.CONNECTED: Phase.SYNCING,
        Input.CONNECT_FAILED: Phase.DOWN,
        Input.CLOSE: Phase.CLOSED,
    },
    Phase.SYNCING: {
        Input.SYNC_ANSWERED: Phase.UP,
        Input.SYNC_DOUBTED: Phase.VERIFYING,
        Input.TIME_UP: Phase.SILENT,
        Input.HUNG_UP: Phase.DOWN,
        Input.BREACH: Phase.RESTING,
        Input.CLOSE: Phase.CLOSED,
    },
    Phase.VERIFYING: {
        Input.SYNC_DOUBTED: Phase.VERIFYING,
        Input.PING_ANSWERED: Phase.UP,
        Input.TIME_UP: Phase.SILENT,
        Input.HUNG_UP: Phase.DOWN,
        Input.BREACH: Phase.RESTING,
        Input.CLOSE: Phase.CLOSED,
    },
    Phase.UP: {
        Input.SYNC_ANSWERED: Phase.UP,
        Input.PING_ANSWERED: Phase.UP,
        Input.SUSPECT: Phase.SYNCING,
        Input.RECONNECT: Phase.DOWN,
        Input.HUNG_UP: Phase.DOWN,
        Input.BREACH: Phase.RESTING,
        Input.CLOSE: Phase.CLOSED,
    },
    Phase.SILENT: {
        Input.SYNC_DOUBTED: Phase.SILENT,
        Input.PING_ANSWERED: Phase.UP,
        Input.RECONNECT: Phase.RESTING,
        Input.HUNG_UP: Phase.DOWN,
        Input.BREACH: Phase.RESTING,
        Input.CLOSE: Phase.CLOSED,
    },
    Phase.RESTING: {
        Input.CONNECT: Phase.CONNECTING,
        Input.CLOSE: Phase.CLOSED,
    },
    Phase.CLOSED: {
        Input.CLOSE: Phase.CLOSED,
    },
}

CONNECTED: Final = frozenset({Phase.SYNCING, Phase.VERIFYING, Phase.UP, Phase.SILENT})
"""The phases in which there is a connection."""

_REFUSING: Final = frozenset({Phase.SILENT, Phase.RESTING, Phase.CLOSED})

_KNOWN: Final = {
    Phase.DOWN: ChannelState.GONE,
    Phase.UP: ChannelState.UP,
    Phase.SILENT: ChannelState.SILENT,
    Phase.RESTING: ChannelState.SILENT,
    Phase.CLOSED: ChannelState.GONE,
}


class Call(msgspec.Struct, eq=False):
    """One call, from `Link.call` to its end.

    Attributes:
        command: what is executed.
        arguments: its arguments; forgotten when the caller goes away.
        deadline: when its time is up.
        on_late_reply: see `Channel.execute`.
        id: of the command, once it was sent.
        reply: the reply, when it ended with one and somebody may want it late.
    """

    command: Command
    arguments: dict[str, Any]
    deadline: float
    on_late_reply: OnLateReply | None = None
    id: int | None = None
    reply: Reply | None = None
    has_ended: bool = False
    was_repeated: bool = False
    extensions: int = 0

    def fits(self, room: int) -> bool:
        """True if its line has so many bytes at most; what is far too long need not be encoded for that."""
        if sum(map(_weight, self.arguments.values())) > room:
            return False
        return len(encode_command(LONGEST_ID, self.command.name, self.arguments)) <= room


def _weight(value: object) -> int:
    """About how many bytes a value has in JSON, and no more than it has."""
    if isinstance(value, bytes):
        return len(value) * 4 // 3
    return sum(map(_weight, value)) if isinstance(value, list) else len(value) if isinstance(value, str) else 0


# What a runtime is to do


class Connect(msgspec.Struct, frozen=True):
    """Connect, then say `connected` or `connect_failed`."""


class Disconnect(msgspec.Struct, frozen=True):
    """End the connection, or the attempt at one, if there is one; nothing is to be said about it any more."""


class Send(msgspec.Struct, frozen=True):
    """Send these bytes."""

    data: bytes


class Resolve(msgspec.Struct, frozen=True):
    """The call has ended with this value: the JSON text behind `return`."""

    call: Call
    value: bytes


class Fail(msgspec.Struct, frozen=True):
    """The call has ended with this error."""

    call: Call
    error: GuestError


class HandLate(msgspec.Struct, frozen=True):
    """The reply to a call that had ended before: hand it to `call.on_late_reply`."""

    call: Call
    reply: Reply


class StateChanged(msgspec.Struct, frozen=True):
    """What is known about the agent is something else now; `why` is for people."""

    state: ChannelState
    why: str


Action = Connect | Disconnect | Send | Resolve | Fail | HandLate | StateChanged


class Link:
    """See the module. After each method, a runtime does what `take_actions` returns, and calls `tick` at `wake_at`.

    `now` is the time in seconds, on any clock that never goes back.

    Args:
        guest: how messages name the guest, for example `VM 100`.
        first_id: ids of commands are counted from here; see `Session`.
        now: the first look at the agent is due at once.

    Attributes:
        phase: see the module.
        state: what is known about the agent; while that is being found out, what was known before.
        wake_at: when `tick` is due; infinity for never.
        reading_paused: set by the runtime while it reads nothing, so that a reply is not taken for stalled.
    """

    def __init__(self, guest: str, first_id: int, now: float) -> None:
        self.phase = Phase.DOWN
        self.state = ChannelState.GONE
        self.wake_at = now
        self.reading_paused = False
        self._guest = guest
        self._why = "never connected"
        self._actions: list[Action] = []
        # Calls: in the queue; sent, by id; ended with a reply that still matters, by id. And the bytes of what is in
        # flight, by id.
        self._waiting: deque[Call] = deque()
        self._sent: dict[int, Call] = {}
        self._late: dict[int, Call] = {}
        self._ahead: dict[int, int] = {}
        # The connection, or the one before.
        self._session = Session(first_id)
        self._last_byte = now
        self._up_since: float | None = None
        self._ping_id: int | None = None
        self._probes = 0
        # When the phase ends by itself or wants a look.
        self._look_at = now
        # When a look at a command that takes long is due.
        self._ping_at = math.inf
        # When the time is up of what was sent for a caller who has gone.
        self._given_up_at = math.inf
        # It is about to be closed.
        self._takes_no_calls = False
        # What is remembered from connection to connection.
        self._is_doubtful = False
        self._hang_ups = 0
        self._was_useful = False
        self._pauses = Backoff(RECHECK, RECHECK_AT_MOST)
        self._rests = Backoff(REST, REST_AT_MOST)

    @property
    def buffered(self) -> int:
        """Bytes of a reply that has arrived in part."""
        return self._session.buffered

    @property
    def in_flight(self) -> int:
        """Calls that were sent and have no answer yet."""
        return len(self._sent)

    @property
    def owes(self) -> bool:
        """True while an agent that answers has not answered all that was sent, a sync or for a caller who has gone."""
        return self.phase in CONNECTED - {Phase.SILENT} and (self._session.expects or bool(self._waiting))

    def take_actions(self) -> list[Action]:
        """What is to be done now, in order; each is returned once."""
        actions, self._actions = self._actions, []
        return actions

    # What callers want

    def call(
        self, now: float, command: Command, arguments: dict[str, Any], on_late_reply: OnLateReply | None = None
    ) -> Call:
        """A new call; a `Resolve` or `Fail` ends it.

        Raises:
            AgentNotRunning: the agent is known not to answer.
            CommandFailed: too many calls are waiting.
        """
        if self._takes_no_calls and not command.releases:
            raise AgentNotRunning(self._guest, STOPPING)
        if self.phase in _REFUSING:
            raise AgentNotRunning(self._guest, self._why)
        if len(self._waiting) >= MAX_WAITING:
            raise CommandFailed(self._guest, command.name, f"{MAX_WAITING} calls are waiting for this guest already")
        call = Call(command, arguments, now + command.timeout, on_late_reply)
        self._waiting.append(call)
        if command.timeout > PING_AFTER:
            self._ping_at = min(self._ping_at, now + PING_AFTER)
        self.wake_at = min(self.wake_at, call.deadline, self._ping_at)
        if self.phase is Phase.UP:
            self._flush()
        elif self.phase is Phase.DOWN:
            self._connect(now, OPEN_TIMEOUT)
        return call

    def abandon(self, call: Call) -> None:
        """The caller has gone away.

        When the command is on its way, its reply is only recognised, and handed on late if it matters.
        """
        if call.has_ended:
            return
        call.has_ended = True
        if call.id is None:
            self._waiting.remove(call)
            return
        del self._sent[call.id]
        self._given_up_at = max(call.deadline, self._given_up_at if self._given_up_at < math.inf else 0.0)
        self.wake_at = min(self.wake_at, self._given_up_at)
        if call.on_late_reply:
            call.arguments = {}
            self._late[call.id] = call
            while len(self._late) > MAX_LATE:
                del self._late[next(iter(self._late))]

    def notify(self, now: float, event: GuestEvent) -> None:
        """See `Channel.notify`."""
        if event in (GuestEvent.SUSPENDED, GuestEvent.STOPPED):
            for call in [call for call in self._sent.values() if not call.command.answers]:
                self._finish_without_reply(now, call)
        elif event in (GuestEvent.PORT_CLOSED, GuestEvent.RESET):
            # The agent that had these commands is no more. Their ids stay in the session, which drops what still comes.
            sent, self._sent = self._sent, {}
            for call in sent.values():
                self._settle(call, event.value, may_repeat=False, succeeded=not call.command.answers)
            self._suspect(now)
        elif self.phase in (Phase.DOWN, Phase.SILENT):
            self._look(now, unsent=0)

    def refuse_calls(self) -> None:
        """Nothing is sent any more but what releases something; what was sent may still be answered, until `close`."""
        self._takes_no_calls = True
        releases = deque(call for call in self._waiting if call.command.releases)
        self._waiting = deque(call for call in self._waiting if not call.command.releases)
        self._refuse_waiting(STOPPING)
        self._waiting = releases

    def close(self) -> None:
        """Ends everything; no call can be made any more."""
        self._end_connection(Input.CLOSE, STOPPING, by_agent=False)
        self._refuse_waiting(STOPPING)
        self._late.clear()
        self._look_at = self.wake_at = math.inf

    # What happens to the connection

    def connected(self, now: float) -> None:
        """There is a connection; the first sync is sent on it."""
        self._move(Input.CONNECTED)
        self._session = Session(self._session.next_id, frozenset(self._late))
        self._ahead.clear()
        self._ping_id = self._up_since = None
        self._probes = 0
        self._last_byte = now
        self._actions.append(Send(self._session.sync()))

    def connect_failed(self, now: float, why: str) -> None:
        """There is no connection to be had."""
        self._why = why
        self._move(Input.CONNECT_FAILED)
        self._pause(now)
        self._refuse_waiting(why)

    def hung_up(self, now: float, why: str) -> None:
        """The other side has ended the connection."""
        self._hang_ups += self.phase is not Phase.UP
        if self._hang_ups >= MAX_HANG_UPS:
            self._hang_ups = 0
            self.breach(now, "it hangs up instead of answering a sync", by_agent=True)
            return
        self._forgive(now)
        self._end_connection(Input.HUNG_UP, why, by_agent=True)
        self._pause(now)
        if self._waiting:
            self._connect(now, OPEN_TIMEOUT)

    def received(self, now: float, data: bytes | memoryview) -> None:
        """Bytes have come; they are copied."""
        if self.phase not in CONNECTED:
            raise LocalProtocolError(f"bytes in phase {self.phase.name}")
        session = self._session
        was_asked = session.in_flight > 0
        self._last_byte = now
        try:
            for event in session.receive(data):
                self._on_event(now, event)
        except ProtocolError as error:
            self.breach(now, str(error))
            return
        if self.phase is not Phase.UP:
            return
        if session.state is State.UNSYNCED:
            # An agent that had something to answer may be out of step, and gets a sync; one that had nothing gets a
            # rest.
            if was_asked:
                self._suspect(now, doubt=True)
            else:
                self.breach(now, "the agent speaks unasked")
        elif self._waiting:
            self._flush()

    def breach(self, now: float, why: str, *, by_agent: bool = False) -> None:
        """The guest does what it must not: rule 7. A runtime may see that, too.

        Args:
            now: the time.
            why: for people.
            by_agent: it has hung up.
        """
        self._forgive(now)
        self._end_connection(Input.BREACH, why, by_agent=by_agent)
        self._look_again(now + self._rests.next())
        self._refuse_waiting(why)

    def tick(self, now: float, *, unsent: int = 0) -> None:
        """The time is `wake_at`, or later.

        Args:
            now: the time.
            unsent: bytes of earlier `Send`s that the connection has not taken yet: the agent does not read.
        """
        if now >= self._look_at:
            self._look(now, unsent)
        for call in [call for call in (*self._sent.values(), *self._waiting) if call.deadline <= now]:
            if not call.has_ended:
                self._time_is_up(now, call)
        if now >= self._given_up_at:
            self._given_up_at = math.inf
            self._renew_if_stuck(now)
        if now >= self._ping_at:
            self._ping_behind(now)
        deadlines = (call.deadline for call in (*self._sent.values(), *self._waiting))
        self.wake_at = min(deadlines, default=math.inf)
        self.wake_at = min(self.wake_at, self._look_at, self._ping_at, self._given_up_at)

    # Phases

    def _move(self, what: Input) -> None:
        try:
            self.phase = TRANSITIONS[self.phase][what]
        except KeyError:
            raise LocalProtocolError(f"{what.name} in phase {self.phase.name}") from None
        state = _KNOWN.get(self.phase, self.state)
        # An agent that hangs up instead of answering is no more gone than before: the next connection will tell.
        hangs_up_again = what is Input.HUNG_UP and self.state is ChannelState.SILENT
        if state is not self.state and not hangs_up_again:
            self.state = state
            self._actions.append(StateChanged(state, self._why))

    def _look_again(self, when: float) -> None:
        self._look_at = when
        self.wake_at = min(self.wake_at, when)

    def _look(self, now: float, unsent: int) -> None:
        """The phase's own time has come."""
        if self.phase in (Phase.DOWN, Phase.RESTING):
            self._connect(now, OPEN_TIMEOUT)
        elif self.phase is Phase.CONNECTING:
            self._actions.append(Disconnect())
            self.connect_failed(now, "no connection in time")
        elif self.phase is Phase.SILENT:
            self._probe(now, unsent)
        else:
            self._why = "no answer to a sync"
            self._move(Input.TIME_UP)
            self._look_again(now + RECHECK)
            self._refuse_waiting(self._why)

    def _connect(self, now: float, timeout: float) -> None:
        self._move(Input.CONNECT)
        self._look_again(now + timeout)
        self._actions.append(Connect())

    def _pause(self, now: float) -> None:
        """Without a caller, connections that come to nothing follow each other more and more slowly.

        One that brought an answer was good for something, and the pauses begin again with the first.
        """
        if self._was_useful:
            self._pauses.reset()
        self._was_useful = False
        self._look_again(now + self._pauses.next())

    def _forgive(self, now: float) -> None:
        if self._up_since is not None and now - self._up_since >= BEHAVED:
            self._rests.reset()
            self._pauses.reset()

    def _suspect(self, now: float, *, doubt: bool = False, within: float = RESYNC_TIMEOUT) -> None:
        """Is the agent there, and does it know where it stands? In every phase but UP that is being found out already."""
        if self.phase is not Phase.UP:
            return
        self._is_doubtful |= doubt
        self._move(Input.SUSPECT)
        self._look_again(now + within)
        self._actions.append(Send(self._session.sync()))

    def _probe(self, now: float, unsent: int) -> None:
        """Asks a silent agent once more; not one that reads nothing, nor too often while it may be busy for a caller."""
        self._look_again(now + RECHECK)
        if self._probes < MAX_PROBES and not unsent:
            self._probes += 1
            self._actions.append(Send(self._session.sync()))
        elif not self._sent:
            self._end_connection(Input.RECONNECT, "no answer to a sync", by_agent=False)

    def _ping_behind(self, now: float) -> None:
        """Rule 8. An agent that answers without ids could not be told apart, nor a command that travels alone (rule 2)."""
        takes_long = [call for call in (*self._sent.values(), *self._waiting) if call.command.timeout > PING_AFTER]
        self._ping_at = now + PING_AFTER if takes_long else math.inf
        is_quiet = now - self._last_byte >= PING_AFTER and not self.reading_paused
        may_follow = self._ping_id is None and self._session.echoes_ids and self._may_send(Call(PING, {}, now))
        if self.phase is Phase.UP and self._sent and is_quiet and may_follow:
            self._ping_id, data = self._session.send(PING, {})
            self._ahead[self._ping_id] = len(data)
            self._actions.append(Send(data))

    def _go_up(self, now: float, what: Input) -> None:
        self._move(what)
        self._is_doubtful = False
        self._hang_ups = 0
        self._probes = 0
        self._look_at = math.inf
        if self._up_since is None:
            self._up_since = now

    def _end_connection(self, what: Input, why: str, *, by_agent: bool) -> None:
        """Every command on the connection gets its fate. What is wanted late may still come over the next one."""
        self._why = why
        self._move(what)
        self._actions.append(Disconnect())
        for event in self._session.end(why, by_agent=by_agent):
            if not isinstance(event, Synchronised) and (call := self._sent.pop(event.id, None)):
                self._settle(call, why, may_repeat=by_agent, succeeded=isinstance(event, Unanswered))

    # What the session says

    def _on_event(self, now: float, event: Event) -> None:
        if isinstance(event, Synchronised):
            self._on_synchronised(now)
            return
        self._ahead.pop(event.id, None)
        if event.id == self._ping_id:
            self._ping_id = None
            # An error of the agent's own is an answer, too: its administrator may have disabled ping.
            if isinstance(event, Answered) and self._session.state is State.READY:
                self._go_up(now, Input.PING_ANSWERED)
        elif isinstance(event, Answered):
            self._was_useful = True
            if call := self._sent.pop(event.id, None):
                self._finish(call, event.reply)
            elif call := self._late.pop(event.id, None):
                self._actions.append(HandLate(call, event.reply))
        elif call := self._sent.pop(event.id, None):
            why = event.why if isinstance(event, Lost) else ""
            self._settle(call, why, may_repeat=isinstance(event, Lost), succeeded=isinstance(event, Unanswered))
        else:
            self._late.pop(event.id, None)

    def _on_synchronised(self, now: float) -> None:
        if not self._is_doubtful and self.phase is not Phase.SILENT:
            self._go_up(now, Input.SYNC_ANSWERED)
            return
        self._move(Input.SYNC_DOUBTED)
        self._ping_id, data = self._session.send(PING, {})
        self._actions.append(Send(data))

    # Calls

    def _flush(self) -> None:
        """Sends what may be sent."""
        lines: list[bytes] = []
        while self._waiting and self._may_send(self._waiting[0]):
            call = self._waiting.popleft()
            call.id, line = self._session.send(call.command, call.arguments)
            self._sent[call.id] = call
            self._ahead[call.id] = len(line)
            lines.append(line)
        if lines:
            self._actions.append(Send(b"".join(lines)))

    def _may_send(self, call: Call) -> bool:
        """Rule 2."""
        if self._session.state is not State.READY:
            return False
        in_flight = self._session.in_flight
        if not in_flight:
            return True
        if in_flight >= WINDOW or not call.command.answers:
            return False
        if any(not sent.command.answers for sent in self._sent.values()):
            return False
        return call.fits(MOST_AHEAD - sum(self._ahead.values()))

    def _time_is_up(self, now: float, call: Call) -> None:
        if call.id is None:
            self._fail(call, CommandTimeout(self._guest, call.command.name))
            self._waiting.remove(call)
            self._renew_if_stuck(now)
        elif self._is_arriving(now, call):
            call.extensions += 1
            call.deadline = now + call.command.timeout
        elif not call.command.answers:
            self._finish_without_reply(now, call)
        else:
            self.abandon(call)
            self._actions.append(Fail(call, CommandTimeout(self._guest, call.command.name)))
            if self.phase is not Phase.UP or self._is_busy(now, call):
                return
            if self._sent or self._late or self._session.buffered:
                # The connection still carries something for a caller, and is not given up.
                self._suspect(now, doubt=True, within=self._patience(now))
            else:
                self._renew(now)

    def _renew_if_stuck(self, now: float) -> None:
        """Where all that is on its way has no caller any more, whose time would be up, and does not end."""
        is_owed = self._session.in_flight and not self._session.buffered
        if self.phase is not Phase.UP or not is_owed or self._sent or self._late:
            return
        if now - self._last_byte < STALLED:  # it works through what is before
            self._given_up_at = self._last_byte + STALLED
        else:
            self._renew(now)

    def _renew(self, now: float) -> None:
        """Makes a new connection: on this one, an answer is missing."""
        self._is_doubtful = True
        self._end_connection(Input.RECONNECT, "no answer in time", by_agent=False)
        self._connect(now, self._patience(now))

    def _patience(self, now: float) -> float:
        """Seconds that a sync after a time-out may take: rule 3."""
        return max(RESYNC_TIMEOUT, self._last_byte + OPEN_TIMEOUT - now)

    def _is_arriving(self, now: float, call: Call) -> bool:
        """True if part of its answer is there, and more of it came just now, or would have if we read."""
        session = self._session
        flows = self.reading_paused or self._said_something(now, call)
        return session.head == call.id and session.buffered > 0 and flows and call.extensions < MAX_EXTENSIONS

    def _is_busy(self, now: float, call: Call) -> bool:
        """True if the agent was still answering the calls before this one, and has had no time for it."""
        return self._said_something(now, call) and not self._session.buffered

    def _said_something(self, now: float, call: Call) -> bool:
        return now - self._last_byte < min(STALLED, call.command.timeout / 2)

    def _finish_without_reply(self, now: float, call: Call) -> None:
        """A no-reply command has done its work, as far as can be known."""
        self.abandon(call)
        self._actions.append(Resolve(call, b"null"))
        self._suspect(now)

    def _finish(self, call: Call, reply: Reply) -> None:
        if call.on_late_reply:
            call.reply = reply
        if reply.error is not msgspec.UNSET:
            self._fail(call, AgentError(reply.error.error_class, reply.error.desc))
        elif reply.value is not msgspec.UNSET:
            call.has_ended = True
            self._actions.append(Resolve(call, bytes(reply.value)))

    def _settle(self, call: Call, why: str, *, may_repeat: bool, succeeded: bool) -> None:
        """The fate of a command that was sent and will have no reply."""
        if succeeded:
            call.has_ended = True
            self._actions.append(Resolve(call, b"null"))
        elif may_repeat and call.command.repeatable and not call.was_repeated:
            call.was_repeated, call.id = True, None
            self._waiting.appendleft(call)
        else:
            self._fail(call, CommandFailed(self._guest, call.command.name, why))

    def _refuse_waiting(self, why: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            self._fail(call, AgentNotRunning(self._guest, why))

    def _fail(self, call: Call, error: GuestError) -> None:
        call.has_ended = True
        self._actions.append(Fail(call, error))
