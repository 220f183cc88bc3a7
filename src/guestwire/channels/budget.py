"""Bounds on what guests can take from each other: time of the event loop, and memory for replies that have arrived in part.

A guest decides what it sends, and so how much there is to read. One `ReadBudget` is shared by all channels on an event
loop:

* **Bytes a turn.** Of each guest, at most `READ_SIZE` bytes are read in one turn of the loop.
* **Time a turn.** All of them together get `turn` seconds of a turn. When that is used up, bytes are put aside and
  reading is paused, until a later turn of the loop: those that took least lately come first. So a guest that takes
  little is answered within two turns or three, whatever the others do.
* **Memory.** Replies that have arrived in part hold `memory` bytes in all, `FREE` bytes of each guest not counted in.
  Beyond that, reading is paused for those that hold more, and resumed in order as others give theirs back. One of them
  at a time is let through all the same, or two halves of replies could wait for each other for ever; it is disconnected
  when it uses that badly.
* **Connections.** All of them together hold `connections.most` descriptors, so that others keep some.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakKeyDictionary

READ_SIZE: Final = 128 * 1024
"""Bytes that are read from one guest at once; the buffer for them is shared."""

TURN: Final = 0.002
"""Seconds of one turn of the loop for all guests together."""

RECOVERY: Final = 0.01
"""Seconds of work that are forgiven to a guest each second."""

SMALL: Final = 256
"""Bytes that cost too little to be counted: nearly every reply."""

MEMORY: Final = 32 * 1024 * 1024
FREE: Final = 64 * 1024

PATIENCE: Final = 5.0
"""Seconds in which a reply over the memory must have come in, once others wait."""


class Reader(Protocol):
    """One guest's connection, as a budget sees it."""

    def process(self, data: bytes | memoryview) -> int:
        """Works on what was read; returns how many bytes of it are held on to, with those of before."""
        ...

    def pause(self) -> None:
        """Reads no more for now."""
        ...

    def resume(self) -> None:
        """Reads again."""
        ...

    def evict(self, why: str) -> None:
        """Gives up, and lets go of all bytes."""
        ...


@dataclass(eq=False, slots=True)
class Share:
    """One connection's part of a budget, which keeps it; made with `ReadBudget.share`.

    Attributes:
        reader: the connection.
        held: bytes that it holds on to.
        is_paused: whether its reading is paused, for one of two reasons: `backlog` or `waits_for_memory`.
        backlog: bytes that were read and wait for their turn.
        waits_for_memory: whether it holds much while all hold too much.
        is_released: whether it has ended.
        debt: seconds of work that it took and that have not been forgiven, at the time `as_of`.
    """

    reader: Reader
    held: int = 0
    is_paused: bool = False
    backlog: bytes = b""
    waits_for_memory: bool = False
    is_released: bool = False
    debt: float = 0.0
    as_of: float = 0.0


class ConnectionBudget:
    """Connections to guests, as far as descriptors are left to them; `most` is None where there is no limit."""

    def __init__(self) -> None:
        self.most: int | None = None
        self._open = 0

    def take(self) -> None:
        """One more.

        Raises:
            OSError: all are in use.
        """
        if self.most is not None and self._open >= self.most:
            raise OSError(f"all {self.most} connections to guests that the limit of open files allows are in use")
        self._open += 1

    def give_back(self) -> None:
        """One has ended."""
        self._open -= 1


class ReadBudget:
    """See the module. For one event loop only.

    Args:
        memory: bytes that all hold in replies that have arrived in part.
        turn: seconds of work in one turn of the loop.
        clock: seconds; another one in tests.

    Attributes:
        buffer: what all connections read into, one after the other.
        held: bytes that are held on to now, as far as they count.
        connections: to all guests.
    """

    def __init__(
        self, *, memory: int = MEMORY, turn: float = TURN, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.buffer = memoryview(bytearray(READ_SIZE))
        self.held = 0
        self.connections = ConnectionBudget()
        self._memory = memory
        self._turn = turn
        self._clock = clock
        self._spent = 0.0
        self._is_turn_counted = False
        self._deferred: set[Share] = set()
        self._waiting: deque[Share] = deque()
        self._favoured: Share | None = None
        self._patience: asyncio.TimerHandle | None = None

    def share(self, reader: Reader) -> Share:
        """A new connection takes part.

        Raises:
            OSError: there are too many.
        """
        self.connections.take()
        return Share(reader)

    def release(self, share: Share) -> None:
        """The connection has ended; may be said twice."""
        if share.is_released:
            return
        share.is_released = True
        self.connections.give_back()
        share.backlog = b""
        self._deferred.discard(share)
        if share.waits_for_memory:
            share.waits_for_memory = False
            self._waiting.remove(share)
        self.hold(share, 0)

    def received(self, share: Share, data: memoryview) -> None:
        """Processes what was read from one guest, now or when its turn comes."""
        if share.backlog or self._spent >= self._turn:
            self._deferred.add(share)
            share.backlog += data
            self._count_turn()
            self._pause_or_resume(share)
        else:
            self._process(share, data)

    def hold(self, share: Share, held: int) -> None:
        """The connection holds on to so many bytes now."""
        if held == share.held:
            return
        self.held += max(held - FREE, 0) - max(share.held - FREE, 0)
        share.held = held
        is_too_much = held > FREE and self.held > self._memory
        if is_too_much and share is not self._favoured and not share.waits_for_memory:
            share.waits_for_memory = True
            self._waiting.append(share)
            self._pause_or_resume(share)
        if self._waiting or self._favoured:
            self._give_memory()

    def _process(self, share: Share, data: bytes | memoryview) -> None:
        began = self._clock()
        held = share.reader.process(data)
        took = self._clock() - began
        share.debt = self._debt(share) + took
        share.as_of = began
        self._spent += took
        self._count_turn()
        self.hold(share, held)

    def _debt(self, share: Share) -> float:
        return max(share.debt - (self._clock() - share.as_of) * RECOVERY, 0.0)

    def _count_turn(self) -> None:
        """What is scheduled now runs in the next turn of the loop, after this one's sockets."""
        if not self._is_turn_counted:
            self._is_turn_counted = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_turn_counted = False
        self._spent = 0.0
        while self._deferred:
            share = min(self._deferred, key=self._debt)
            self._deferred.remove(share)
            data, share.backlog = share.backlog, b""
            self._process(share, data)
            self._pause_or_resume(share)
            if self._spent >= self._turn:
                break
        if self._deferred:
            self._count_turn()

    def _give_memory(self) -> None:
        if self._favoured and self._favoured.held <= FREE:
            self._favoured = None
            if self._patience:
                self._patience.cancel()
        while self._waiting and (self.held <= self._memory or self._favoured is None):
            share = self._waiting.popleft()
            share.waits_for_memory = False
            if self.held > self._memory:
                self._favoured = share
                self._patience = asyncio.get_running_loop().call_later(PATIENCE, self._end_patience)
            self._pause_or_resume(share)

    def _end_patience(self) -> None:
        if self._favoured and self._waiting:
            self._favoured.reader.evict(f"its reply took {PATIENCE:g} seconds and more, and others wait for memory")
        elif self._favoured:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE, self._end_patience)

    def _pause_or_resume(self, share: Share) -> None:
        should_pause = bool(share.backlog) or share.waits_for_memory
        if should_pause != share.is_paused:
            share.is_paused = should_pause
            if should_pause:
                share.reader.pause()
            else:
                share.reader.resume()


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, ReadBudget] = WeakKeyDictionary()


def shared_budget() -> ReadBudget:
    """The one that all channels on the running event loop share when they are given no other."""
    loop = asyncio.get_running_loop()
    if loop not in _shared:
        _shared[loop] = ReadBudget()
    return _shared[loop]
