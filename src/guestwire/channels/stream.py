"""A channel over a stream of bytes: whatever asyncio can connect to.

`link.py` decides everything; here are the connection, the timer and the futures. Another kind of socket is its
`connect`:

    def tcp_channel(host: str, port: int, guest: str) -> StreamChannel:
        async def connect(factory: ProtocolFactory) -> None:
            await asyncio.get_running_loop().create_connection(factory, host, port)

        return StreamChannel(connect, guest)
"""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from guestwire.channels.budget import SMALL, ReadBudget, shared_budget
from guestwire.channels.channel import ChannelState, GuestEvent, Limits, OnLateReply
from guestwire.channels.link import (
    Call,
    Connect,
    Disconnect,
    Fail,
    HandLate,
    Link,
    Resolve,
    Send,
    StateChanged,
)
from guestwire.wire import Command

log = logging.getLogger("guestwire.channels")

ProtocolFactory = Callable[[], asyncio.BaseProtocol]

ANSWERS_WITHIN: Final = 1.0
"""Seconds."""

StreamConnect = Callable[[ProtocolFactory], Awaitable[object]]
"""Connects a protocol made by the factory, as `loop.create_connection` does; `OSError` says that it can't."""


class StreamChannel:
    """A `Channel`. Must be made where an event loop runs, and closed.

    Args:
        connect: makes a connection; see `StreamConnect`.
        guest: how messages name the guest, for example `VM 100`.
        budget: what all guests share; without it, all channels on this event loop share one.
    """

    limits = Limits()

    def __init__(self, connect: StreamConnect, guest: str, *, budget: ReadBudget | None = None) -> None:
        self._stream_connect = connect
        self._guest = guest
        self._budget = budget or shared_budget()
        self._loop = asyncio.get_running_loop()
        # Ids begin at random: they tell one conversation's replies from another's, and hide nothing.
        self.link = Link(guest, random.randrange(2**32, 2**52), self._loop.time())  # noqa: S311
        self._futures: dict[Call, asyncio.Future[bytes]] = {}
        self._connection: _Connection | None = None
        self._silence: asyncio.Future[None] | None = None
        """Wanted by `close`: nothing is owed any more."""
        self._connecting: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None
        self._wakes_at = math.inf
        self._schedule()

    @property
    def state(self) -> ChannelState:
        """See `Channel.state`; while it is being found out, what was known before."""
        return self.link.state

    async def execute(
        self, command: Command, arguments: dict[str, Any] | None = None, *, on_late_reply: OnLateReply | None = None
    ) -> bytes:
        """See `Channel.execute`."""
        call = self.link.call(self._loop.time(), command, arguments or {}, on_late_reply)
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._futures[call] = future
        self._perform()
        try:
            return await future
        except asyncio.CancelledError:
            self.link.abandon(call)
            if call.reply and on_late_reply:  # it came at the very moment at which the caller went away
                on_late_reply(call.reply)
            raise
        finally:
            self._futures.pop(call, None)

    def notify(self, event: GuestEvent) -> None:
        """See `Channel.notify`."""
        self.link.notify(self._loop.time(), event)
        self._perform()

    async def close(self) -> None:
        """See `Channel.close`.

        An agent that is just answering is waited for, a second at most. One whose host is gone tries to write its
        answer again and again, without a pause, until there is a host: it would take a processor of the guest's. And
        there may be a handle in its answer, which is closed then: the agent owes another one.
        """
        try:
            self.link.refuse_calls()
            self._perform()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWERS_WITHIN):
                    while self.link.owes:
                        if self._silence is None or self._silence.done():
                            self._silence = self._loop.create_future()
                        await asyncio.wait([self._silence])
        finally:
            self.link.close()
            self._perform()
            if self._timer:
                self._timer.cancel()
            await asyncio.gather(*self._connecting, return_exceptions=True)

    # What the link wants

    def _perform(self) -> None:
        """Does what the link wants to be done; after each call of one of its methods."""
        for action in self.link.take_actions():
            match action:
                case Send(data) if self._connection:
                    self._connection.send(data)
                case Resolve(call, value) if not self._futures[call].done():
                    self._futures[call].set_result(value)
                case Fail(call, error) if not self._futures[call].done():
                    self._futures[call].set_exception(error)
                case HandLate(call, reply) if call.on_late_reply:
                    call.on_late_reply(reply)
                case Connect():
                    task = self._loop.create_task(self._connect(), name=f"connect {self._guest}")
                    self._connecting.add(task)
                    task.add_done_callback(self._connecting.discard)
                case Disconnect():
                    self._disconnect()
                case StateChanged(state, why):
                    reason = "" if state is ChannelState.UP else f": {why}"
                    log.info("%s: its agent is %s%s", self._guest, state.value, reason)
        if self._silence and not self.link.owes and not self._silence.done():
            self._silence.set_result(None)
        self._schedule()

    def _schedule(self) -> None:
        """Sees that the link wakes in time.

        A timer may be early: leaving it costs less than a new one for each call.
        """
        # Handles don't say when they are due: uvloop's for a time that has come already don't know.
        if self.link.wake_at < self._wakes_at:
            if self._timer:
                self._timer.cancel()
            self._wakes_at = self.link.wake_at
            self._timer = self._loop.call_at(self._wakes_at, self._wake)

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        self.link.tick(self._loop.time(), unsent=self._connection.unsent if self._connection else 0)
        self._perform()

    async def _connect(self) -> None:
        connection: _Connection | None = None
        try:
            connection = made = self._connection = _Connection(self.link, self._perform, self._budget)
            await self._stream_connect(lambda: made)
        except OSError as error:
            if connection and connection.is_over:
                return
            if connection:
                connection.end()
            self.link.connect_failed(self._loop.time(), str(error))
            self._perform()

    def _disconnect(self) -> None:
        for task in self._connecting:
            task.cancel()
        if self._connection:
            self._connection.end()
            self._connection = None


class _Connection(asyncio.BufferedProtocol):
    """One connection: it tells the link what happens to it, until it is over."""

    def __init__(self, link: Link, perform: Callable[[], None], budget: ReadBudget) -> None:
        self.is_over = False
        self._link = link
        self._perform = perform
        self._budget = budget
        self._share = budget.share(self)
        self._transport: asyncio.Transport | None = None
        self._now = asyncio.get_running_loop().time

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def send(self, data: bytes) -> None:
        """Sends, or keeps until the socket takes it."""
        if self._transport:
            self._transport.write(data)

    def end(self) -> None:
        """Ends it at once; may be done twice."""
        self.is_over = True
        self._budget.release(self._share)
        if self._transport:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # a stream has no other
        if self.is_over:
            self._transport.abort()
            return
        self._link.connected(self._now())
        self._perform()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the buffer is what it is
        return self._budget.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._budget.buffer[:nbytes]
        if nbytes <= SMALL and not self._share.is_paused:
            if (held := self.process(data)) != self._share.held:
                self._budget.hold(self._share, held)
        else:
            self._budget.received(self._share, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._share.backlog:
            self.process(self._share.backlog)
        self._hang_up(str(exc) if exc else "client closed connection")

    def _hang_up(self, why: str) -> None:
        if self.is_over:  # what came last may have ended it
            return
        self.end()
        self._link.hung_up(self._now(), why)
        self._perform()

    # What the budget calls

    def process(self, data: bytes | memoryview) -> int:
        """See `Reader`."""
        if self.is_over:
            return 0
        self._link.received(self._now(), data)
        self._perform()
        return self._link.buffered

    def pause(self) -> None:
        """See `Reader`."""
        self._set_paused(paused=True)

    def resume(self) -> None:
        """See `Reader`."""
        self._set_paused(paused=False)

    def evict(self, why: str) -> None:
        """See `Reader`."""
        self._link.breach(self._now(), why)
        self._perform()

    def _set_paused(self, *, paused: bool) -> None:
        if self.is_over or not self._transport:
            return
        self._link.reading_paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
