"""A channel over a UNIX socket: QEMU's virtio-serial chardev, or a guest agent that listens itself.

Theory of operation
-------------------
One connection a VM, kept open: opening it anew costs 100 ms on virtio-serial. A `wire.Session` speaks over it. Callers queue
in `_waiting`; up to `WINDOW` commands are ahead of their replies (`_sent`). A command that says nothing on success travels
alone, for nothing that is sent behind it could be told from its own answer. So does a large one: on virtio-serial, replies get lost as
soon as more than `MOST_AHEAD` bytes of several commands are on their way (measured to the byte, with pings too; one command alone may be of any length).

Phases, and what a call meets in each:

    GONE      no connection           the call connects (on a UNIX socket that succeeds or fails at once)
    OPENING   a sync is out           the call waits until the sync is answered or its time is up
    UP        synchronised            the command is sent
    SILENT    the sync's time was up  the call fails at once; any answer to a sync leads back to UP

    GONE --connected--> OPENING --answered--> UP --time-out, out of step--> OPENING --time up--> SILENT --answered--> UP
    any phase --hung up--> GONE

After a command without a proper answer, a sync that is answered proves little: an agent may answer syncs and nothing else. Then UP is
reached only when a guest-ping of our own is answered, too.

The first sync on a connection may take `OPEN_TIMEOUT` (Proxmox VE waits as long for its ping); the one after a time-out only
`RESYNC_TIMEOUT`, because the caller before has waited already. An agent that breaks the protocol is disconnected and left alone for
`RECHECK`. `_watch` looks after a channel that is not UP.

A command that only reads is sent a second time, once, when the agent hangs up before answering it. A changing one never is.
"""

import asyncio
import contextlib
import logging
import random
import socket
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from guestwire.channels.base import ChannelState, Late, Notice
from guestwire.errors import AgentError, AgentNotRunning, CommandFailed, CommandTimeout, GuestError, ProtocolError
from guestwire.wire import (
    Answered,
    Command,
    Event,
    Lost,
    Reply,
    Session,
    State,
    Synchronised,
    Unanswered,
    encode_command,
)

log = logging.getLogger("guestwire.channels")

WINDOW: Final = 4
"""Commands ahead of their replies: two to four raise the rate by 1.6 to 2, more gains nothing."""

MOST_AHEAD: Final = 4096
"""Bytes of several commands ahead of their replies: what the agent reads at once."""

LONGEST_ID: Final = 2**53

OPEN_TIMEOUT: Final = 3.0
RESYNC_TIMEOUT: Final = 0.3
RECHECK: Final = 0.5
"""Seconds between two looks at an agent that does not answer, and the rest given to one that broke off or broke the protocol."""

RECHECK_GONE_AT_MOST: Final = 5.0

MAX_WAITING: Final = 1024
"""Calls that may wait for one guest."""

MAX_LATE: Final = 256
"""Replies that may still come for calls that have ended; the oldest are forgotten first."""

MAX_HANG_UPS: Final = 2
"""How often an agent may hang up instead of answering a sync, one time after the other, before calls fail."""

PING: Final = Command("guest-ping", repeatable=True)

STALLED: Final = 1.0
"""Seconds without a byte after which an answer that has begun is not expected any more."""

MAX_EXTENSIONS: Final = 12
"""How often the time of a command is extended because its answer is arriving."""

MAX_PROBES: Final = 30
"""Unanswered syncs on one connection; then a new one is opened, for a full buffer keeps them from the agent."""


class Phase(Enum):
    """See the module's theory of operation."""

    GONE = auto()
    OPENING = auto()
    UP = auto()
    SILENT = auto()


_KNOWN: Final = {Phase.GONE: ChannelState.GONE, Phase.UP: ChannelState.UP, Phase.SILENT: ChannelState.SILENT}


@dataclass(eq=False, slots=True)
class _Call:
    """One caller of `execute`."""

    command: Command
    arguments: dict[str, Any]
    late: Late | None
    future: asyncio.Future[bytes]
    timer: asyncio.TimerHandle | None = None
    id: int | None = None
    again: bool = False
    extensions: int = 0
    reply: Reply | None = None

    @property
    def weight(self) -> int:
        """About how many bytes it is long."""
        return sum(map(_weight, self.arguments.values()))

    def fits(self, room: int) -> bool:
        """Whether its line has so many bytes at most; what is far too long need not be encoded for that."""
        if self.weight > room:
            return False
        return len(encode_command(LONGEST_ID, self.command.name, self.arguments)) <= room


def _weight(value: object) -> int:
    if isinstance(value, bytes):
        return len(value) * 4 // 3
    return sum(map(_weight, value)) if isinstance(value, list) else len(value) if isinstance(value, str) else 0


class _Connection(asyncio.Protocol):
    """Hands on what its transport says, as long as it is the channel's connection."""

    def __init__(self, channel: "UnixChannel") -> None:
        self._channel = channel
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # a stream socket gives no other

    def data_received(self, data: bytes) -> None:
        self._channel._received(self, data)  # noqa: SLF001  # its other half

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel._hung_up(self, str(exc) if exc else "client closed connection")  # noqa: SLF001  # its other half


class UnixChannel:
    """See the module. Must be made where an event loop runs, and closed.

    Args:
        path: the socket.
        guest: how messages name the guest, for example `VM 100`.
    """

    def __init__(self, path: Path, guest: str) -> None:
        self._path = path
        self._guest = guest
        self._phase = Phase.GONE
        self._last_known = ChannelState.GONE
        self._loop = asyncio.get_running_loop()
        self._connection: _Connection | None = None
        self._session = Session(random.randrange(2**32, 2**52))  # noqa: S311  # tells conversations apart, hides nothing
        self._waiting: deque[_Call] = deque()
        self._sent: dict[int, _Call] = {}
        self._ahead: dict[int, int] = {}
        self._late: dict[int, Late] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self._rest_until = 0.0
        self._agent_hung_up = False
        self._probes = 0
        self._hang_ups = 0
        self._last_byte = 0.0
        self._doubtful = False
        self._why = "never connected"
        self._wake = asyncio.Event()
        self._closed = False
        self._attaching: asyncio.Task[None] | None = None
        self._watcher = self._loop.create_task(self._watch(), name=f"watch {guest}")

    @property
    def state(self) -> ChannelState:
        """What is known about the agent; while that is being found out, what was known before."""
        return self._last_known

    async def execute(
        self, command: Command, arguments: dict[str, Any] | None = None, *, late: Late | None = None
    ) -> bytes:
        """See `Channel.execute`."""
        self._refuse_early(command)
        call = _Call(command, arguments or {}, late, self._loop.create_future())
        self._waiting.append(call)
        if self._phase is Phase.UP:
            self._pump()
        elif self._phase is Phase.GONE:
            self._open()
        call.timer = self._loop.call_later(command.timeout, self._time_is_up, call)
        try:
            return await call.future
        except asyncio.CancelledError:
            self._give_up(call)
            if call.reply and call.late:  # it came at the very moment
                call.late(call.reply)
            raise
        finally:
            call.timer.cancel()

    def notice(self, notice: Notice) -> None:
        """See `Channel.notice`."""
        if notice in (Notice.SUSPENDED, Notice.STOPPED):
            self._finish_mute_calls()
        elif notice in (Notice.PORT_CLOSED, Notice.RESET):
            self._lose_sent(notice.value)
        else:
            self._wake.set()

    async def close(self) -> None:
        """See `Channel.close`."""
        self._closed = True
        tasks = [task for task in (self._watcher, self._attaching) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._disconnect("guestwire is stopping")
        self._refuse_waiting(Phase.GONE, "guestwire is stopping")

    # Callers

    def _refuse_early(self, command: Command) -> None:
        if self._closed or self._phase is Phase.SILENT:
            raise AgentNotRunning(self._guest, self._why)
        if len(self._waiting) >= MAX_WAITING:
            raise CommandFailed(self._guest, command.name, f"{MAX_WAITING} calls are waiting for this guest already")

    def _time_is_up(self, call: _Call) -> None:
        if call.id is not None and self._is_arriving(call):
            call.extensions += 1
            call.timer = self._loop.call_later(call.command.timeout, self._time_is_up, call)
        elif call.id is not None and not call.command.answers:
            self._give_up(call)
            _succeed(call, b"null")
            self._resync()
        else:
            self._give_up(call)
            _fail(call, CommandTimeout(self._guest, call.command.name))
            self._doubt(call)

    def _is_arriving(self, call: _Call) -> bool:
        """Whether part of its answer is there, and more of it came just now."""
        session = self._session
        flows = self._loop.time() - self._last_byte < min(STALLED, call.command.timeout / 2)
        return session.head == call.id and session.receiving and flows and call.extensions < MAX_EXTENSIONS

    def _give_up(self, call: _Call) -> None:
        """Nobody waits for `call` any more; when it is on its way, its reply is only recognised."""
        if call.id is None:
            with contextlib.suppress(ValueError):
                self._waiting.remove(call)
        elif self._sent.pop(call.id, None) and call.late:
            self._late[call.id] = call.late
            while len(self._late) > MAX_LATE:
                del self._late[next(iter(self._late))]

    def _doubt(self, call: _Call) -> None:
        """A time-out: is anybody there? A connection that still carries something for somebody is not given up."""
        if call.id is None or self._phase is not Phase.UP:
            return
        self._doubtful = True
        if self._sent or self._late or self._session.receiving:
            self._resync()
        else:
            self._disconnect("no answer in time")
            self._open(RESYNC_TIMEOUT)

    def _pump(self) -> None:
        """Sends what may be sent."""
        ahead: list[bytes] = []
        while self._waiting and self._may_send(self._waiting[0]):
            call = self._waiting.popleft()
            call.id, data = self._session.send(call.command, call.arguments)
            self._sent[call.id] = call
            self._ahead[call.id] = len(data)
            ahead.append(data)
        if ahead:
            self._write(b"".join(ahead))

    def _may_send(self, call: _Call) -> bool:
        in_flight = self._session.in_flight
        if self._phase is not Phase.UP or self._session.state is not State.READY or in_flight >= WINDOW:
            return False
        if in_flight and not call.fits(MOST_AHEAD - sum(self._ahead.values())):
            return False
        alone = not call.command.answers or any(not sent.command.answers for sent in self._sent.values())
        return not in_flight or not alone

    # The agent

    def _received(self, connection: _Connection, data: bytes) -> None:
        if connection is not self._connection:
            return
        unasked = not self._session.in_flight
        self._last_byte = self._loop.time()
        try:
            for event in self._session.receive(data):
                self._happened(event)
        except ProtocolError as error:
            self._cool_down(str(error))
            return
        if self._session.state is State.UNSYNCED and self._phase is Phase.UP:
            self._out_of_step(unasked=unasked)
        elif self._waiting:
            self._pump()

    def _happened(self, event: Event) -> None:
        if not isinstance(event, Synchronised):
            self._ahead.pop(event.id, None)
        if isinstance(event, Answered):
            self._answered(event)
        elif isinstance(event, Synchronised):
            self._synchronised()
        elif call := self._sent.pop(event.id, None):
            self._settled(call, event)
        else:
            self._late.pop(event.id, None)

    def _answered(self, event: Answered) -> None:
        if call := self._sent.pop(event.id, None):
            call.reply = event.reply
            _finish(call, event.reply)
        elif late := self._late.pop(event.id, None):
            late(event.reply)

    def _settled(self, call: _Call, event: Lost | Unanswered) -> None:
        if isinstance(event, Unanswered):
            _succeed(call, b"null")
        elif self._may_repeat(call):
            call.again, call.id = True, None
            self._waiting.appendleft(call)
        else:
            _fail(call, CommandFailed(self._guest, call.command.name, event.why))

    def _may_repeat(self, call: _Call) -> bool:
        return self._agent_hung_up and call.command.repeatable and not call.again

    def _synchronised(self) -> None:
        self._hang_ups = 0
        if self._doubtful:
            self._verify()
        else:
            self._enter(Phase.UP)
            self._probes = 0

    def _verify(self) -> None:
        """Asks for a ping; the phase stays as it is until that is answered."""
        call = _Call(PING, {}, None, self._loop.create_future())
        call.future.add_done_callback(self._verified)
        call.id, data = self._session.send(PING, {})
        self._sent[call.id] = call
        self._write(data)

    def _verified(self, ping: asyncio.Future[bytes]) -> None:
        """An error of the agent's own is an answer, too: its administrator may have disabled ping."""
        failed = ping.cancelled() or isinstance(ping.exception(), CommandFailed)
        if failed or self._connection is None or self._session.state is not State.READY:
            return
        self._doubtful = False
        self._enter(Phase.UP)
        self._probes = 0
        self._pump()

    def _out_of_step(self, *, unasked: bool) -> None:
        """The agent spoke nonsense, or unasked: one that had something to answer gets a sync, one that had nothing a rest."""
        self._doubtful = True
        if unasked:
            self._cool_down("the agent speaks unasked")
        else:
            self._resync()

    # The connection

    def _open(self, timeout: float = OPEN_TIMEOUT) -> None:
        """Connects; on failure every waiting call fails."""
        if self._attaching and not self._attaching.done():
            return
        try:
            sock = _connect(self._path)
        except OSError as error:
            self._refuse_waiting(Phase.GONE, f"{self._path}: {error.strerror or error}")
            return
        self._enter(Phase.OPENING, timeout)
        self._attaching = self._loop.create_task(self._attach(sock), name=f"attach {self._guest}")

    async def _attach(self, sock: socket.socket) -> None:
        connection = _Connection(self)
        self._connection = connection
        self._session = Session(self._session.next_id, frozenset(self._late))
        self._ahead.clear()
        self._probes = 0
        try:
            await self._loop.create_unix_connection(lambda: connection, sock=sock)
        except BaseException:
            sock.close()
            raise
        if connection is self._connection:
            self._write(self._session.sync())

    def _resync(self) -> None:
        if self._connection is None:
            return
        self._enter(Phase.OPENING, RESYNC_TIMEOUT)
        self._write(self._session.sync())

    def _enter(self, phase: Phase, timeout: float | None = None) -> None:
        if self._phase is Phase.UP:
            self._wake.set()
        self._phase = phase
        known = _KNOWN.get(phase, self._last_known)
        if known is not self._last_known:
            self._last_known = known
            log.info("%s: its agent is %s%s", self._guest, known.value, "" if phase is Phase.UP else f": {self._why}")
        if self._deadline:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(timeout, self._nobody_answers) if timeout else None

    def _nobody_answers(self) -> None:
        self._refuse_waiting(Phase.SILENT, "no answer to a sync")

    def _refuse_waiting(self, phase: Phase, why: str) -> None:
        self._why = why
        self._enter(phase)
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            _fail(call, AgentNotRunning(self._guest, why))

    def _hung_up(self, connection: _Connection, why: str) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        self._why = why
        self._hang_ups += self._phase is not Phase.UP
        self._rest()
        self._enter(Phase.GONE)
        self._end_session(why, by_agent=True)
        if self._hang_ups >= MAX_HANG_UPS:
            self._refuse_waiting(Phase.GONE, "it hangs up instead of answering a sync")
        elif self._waiting:
            self._open()

    def _disconnect(self, why: str) -> None:
        connection, self._connection = self._connection, None
        self._why = why
        self._enter(Phase.GONE)
        self._end_session(why, by_agent=False)
        if connection and connection.transport:
            connection.transport.abort()

    def _end_session(self, why: str, *, by_agent: bool) -> None:
        late = dict(self._late)
        self._agent_hung_up = by_agent
        for event in self._session.end(why, by_agent=by_agent):
            self._happened(event)
        self._agent_hung_up = False
        self._late = late

    def _cool_down(self, why: str) -> None:
        """An agent that breaks the protocol is left alone for a while."""
        self._rest()
        self._disconnect(why)
        self._refuse_waiting(Phase.SILENT, why)

    def _rest(self) -> None:
        self._rest_until = self._loop.time() + RECHECK

    def _write(self, data: bytes) -> None:
        if self._connection and self._connection.transport:
            self._connection.transport.write(data)

    # What others know

    def _finish_mute_calls(self) -> None:
        for call in [call for call in self._sent.values() if not call.command.answers]:
            self._give_up(call)
            _succeed(call, b"null")
            self._resync()

    def _lose_sent(self, why: str) -> None:
        """The agent that had these commands is no more."""
        sent, self._sent = self._sent, {}
        for call in sent.values():
            self._settled(call, Lost(call.id or 0, why) if call.command.answers else Unanswered(call.id or 0))
        if self._phase is Phase.UP:
            self._resync()

    # The watcher

    async def _watch(self) -> None:
        """Looks after a channel that is not up: connects again, asks again, with growing pauses where nothing is there."""
        pause = RECHECK
        self._look()
        while True:
            try:
                async with asyncio.timeout(None if self._phase is Phase.UP else pause):
                    await self._wake.wait()
                pause = RECHECK
            except TimeoutError:
                pause = min(pause * 2, RECHECK_GONE_AT_MOST) if self._phase is Phase.GONE else RECHECK
            self._wake.clear()
            self._look()

    def _look(self) -> None:
        rested = self._loop.time() >= self._rest_until
        if self._phase is Phase.GONE and rested:
            self._open()
        elif self._phase is Phase.SILENT and self._connection:
            self._probe(self._connection)
        elif self._phase is Phase.SILENT and rested:
            self._open()

    def _probe(self, connection: _Connection) -> None:
        """Asks a silent agent once more; not one whose buffer is full, nor too often while it may be busy for somebody."""
        if self._probes < MAX_PROBES and connection.transport and not connection.transport.get_write_buffer_size():
            self._probes += 1
            self._write(self._session.sync())
        elif not self._is_waited_for():
            self._disconnect("no answer to a sync")
            self._refuse_waiting(Phase.SILENT, "no answer to a sync")

    def _is_waited_for(self) -> bool:
        """Whether a command that was sent has a caller; a ping of our own has neither caller nor time limit."""
        return any(call.timer for call in self._sent.values())


def _connect(path: Path) -> socket.socket:
    """A connected socket; on a UNIX socket that takes no time, so a full backlog (EAGAIN) is an error and no wait."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(0)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def _finish(call: _Call, reply: Reply) -> None:
    if reply.error is not msgspec.UNSET:
        _fail(call, AgentError(reply.error.error_class, reply.error.desc))
    elif reply.value is not msgspec.UNSET:
        _succeed(call, bytes(reply.value))


def _succeed(call: _Call, value: bytes) -> None:
    if not call.future.done():
        call.future.set_result(value)


def _fail(call: _Call, error: GuestError) -> None:
    if not call.future.done():
        call.future.set_exception(error)
