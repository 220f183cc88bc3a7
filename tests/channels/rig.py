"""A link with a clock that goes when it is told to, and an agent that answers when it is told to; nothing is real but the link."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from guestwire.channels.link import (
    CONNECTED,
    Call,
    Connect,
    Disconnect,
    Fail,
    HandLate,
    Link,
    Phase,
    Resolve,
    Send,
    StateChanged,
)
from guestwire.errors import GuestError
from guestwire.wire import Command, Reply

FIRST_ID = 2**40


@dataclass
class Rig:
    """Performs what the link wants, as a runtime would, and checks that no call ends twice.

    Attributes:
        reachable: whether connecting succeeds; None leaves it open.
        owed: what was sent on this connection and has no answer yet.
        forgotten: what was owed on earlier connections.
        ids: of all that was ever sent; no id is used twice.
        connects: the times at which connections were wanted.
    """

    reachable: bool | None = True
    now: float = 1000.0
    owed: list[dict[str, Any]] = field(default_factory=list)
    forgotten: list[dict[str, Any]] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)
    sent: list[str] = field(default_factory=list)
    outcomes: dict[Call, bytes | GuestError] = field(default_factory=dict)
    late: list[tuple[Call, Reply]] = field(default_factory=list)
    connects: list[float] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    wants_connection: bool = False

    def __post_init__(self) -> None:
        self.link = Link("VM 100", FIRST_ID, self.now)

    def perform(self) -> None:
        while actions := self.link.take_actions():
            for action in actions:
                self._perform(action)

    def _perform(self, action: object) -> None:
        match action:
            case Send(data):
                for line in data.splitlines():
                    request = json.loads(line.rpartition(b"\xff")[2])
                    assert request["id"] not in self.ids, "an id was used twice"
                    self.ids.add(request["id"])
                    self.owed.append(request)
                    self.sent.append(request["execute"])
            case Resolve(call, value):
                assert call not in self.outcomes, "a call ended twice"
                self.outcomes[call] = value
            case Fail(call, error):
                assert call not in self.outcomes, "a call ended twice"
                self.outcomes[call] = error
            case HandLate(call, reply):
                self.late.append((call, reply))
            case Connect():
                self.connects.append(self.now)
                self.wants_connection = True
                if self.reachable is not None:
                    self.decide(reachable=self.reachable)
            case Disconnect():
                self.wants_connection = False
                self.forget()
            case StateChanged(state, _):
                self.states.append(state.value)

    def decide(self, *, reachable: bool) -> None:
        """The connection that is wanted comes, or does not."""
        self.wants_connection = False
        if reachable:
            self.forget()
            self.link.connected(self.now)
        else:
            self.link.connect_failed(self.now, "nobody listens")
        self.perform()

    def wait(self, seconds: float, *, unsent: int = 0) -> None:
        """Time passes; the link is woken when it wants to be."""
        end = self.now + seconds
        while self.link.wake_at <= end:
            self.now = max(self.now, self.link.wake_at)
            self.link.tick(self.now, unsent=unsent)
            self.perform()
            assert self.link.wake_at > self.now, "it would be woken without an end"
        self.now = end

    def call(self, command: Command, arguments: dict[str, Any] | None = None, *, wants_late: bool = False) -> Call:
        call = self.link.call(self.now, command, arguments or {}, (lambda _: None) if wants_late else None)
        self.perform()
        return call

    def say(self, data: bytes) -> None:
        if self.link.phase in CONNECTED:
            self.link.received(self.now, data)
            self.perform()

    def hang_up(self) -> None:
        if self.link.phase in CONNECTED:
            self.forget()
            self.link.hung_up(self.now, "hung up")
            self.perform()

    def forget(self) -> None:
        self.forgotten += self.owed
        self.owed.clear()

    def answer(self, count: int = 1) -> None:
        """The agent answers the oldest requests, honestly; the value shows whose it is."""
        for _ in range(min(count, len(self.owed))):
            self.say(honest(self.owed.pop(0)))

    def answer_all(self) -> None:
        while self.owed:
            self.answer()

    def up(self) -> "Rig":
        """The agent is up."""
        self.wait(0)
        self.answer()
        assert self.link.phase is Phase.UP
        return self

    @property
    def phase(self) -> Phase:
        return self.link.phase

    def is_in(self, phase: Phase) -> bool:
        return self.phase is phase

    @property
    def sleeps_for(self) -> float:
        """Seconds until it wants to be woken; a wake-up may be early, so it is woken first."""
        self.link.tick(self.now)
        self.perform()
        return math.inf if self.link.wake_at == math.inf else self.link.wake_at - self.now


def honest(request: dict[str, Any]) -> bytes:
    """What an honest agent says; nothing to a guest-shutdown."""
    if request["execute"] == "guest-shutdown":
        return b""
    is_sync = request["execute"] == "guest-sync-delimited"
    value = request["id"] if is_sync else {"of": request["id"]}
    return (b"\xff" if is_sync else b"") + json.dumps({"return": value, "id": request["id"]}).encode() + b"\n"
