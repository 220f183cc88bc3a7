"""Whatever comes, in whatever pieces: every command has one fate, and no reply is ever taken for another's."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from guestwire.errors import ProtocolError
from guestwire.wire import Answered, Command, Event, Lost, Session, State, Synchronised, Unanswered

PING = Command("guest-ping", repeatable=True, reply_limit=4096)
SHUTDOWN = Command("guest-shutdown", answers=False, reply_limit=4096)

NOISE = (
    st.binary(max_size=200)
    | st.sampled_from(
        [
            b"\n",
            b"\xff",
            b"{",
            b'{"return": {}}\n',
            b'{"return": 3, "id": 3}\n',
            b'\xff{"return": 3}\n',
            b"[" * 40 + b"\n",
        ]
    )
    | st.integers(0, 60).map(lambda n: b'{"return": "forged", "id": %d}\n' % n)
    | st.integers(0, 60).map(lambda n: b'\xff{"return": %d, "id": %d}\n' % (n, n))
)


def reply(command_id: int) -> bytes:
    """The reply says whose it is, so that a mix-up can be seen."""
    return json.dumps({"return": {"of": command_id}, "id": command_id}).encode() + b"\n"


def sync_reply(sync_id: int) -> bytes:
    return b"\xff" + json.dumps({"return": sync_id, "id": sync_id}).encode() + b"\n"


@given(
    count=st.integers(1, 8),
    cuts=st.lists(st.integers(0, 2000)),
    junk=st.binary(max_size=300).filter(lambda junk: b"\xff" not in junk),
)
def test_events_do_not_depend_on_how_the_bytes_were_cut(count: int, cuts: list[int], junk: bytes) -> None:
    def run(places: list[int]) -> list[Event]:
        session = Session(1)
        session.sync()
        events = list(session.receive(junk + b"\n" + sync_reply(1)))
        ids = [session.send(PING, {})[0] for _ in range(count)]
        stream = b"".join(map(reply, ids))
        for start, end in zip([0, *places], [*places, len(stream)], strict=True):
            events += session.receive(stream[start:end])
        return events

    length = sum(len(reply(number)) for number in range(2, 2 + count))
    assert run(sorted(place % (length + 1) for place in cuts)) == run([])


@given(st.lists(NOISE, max_size=30), st.integers(0, 4))
def test_noise_ends_in_events_or_a_protocol_error_and_holds_little(pieces: list[bytes], commands: int) -> None:
    session = Session(10)
    session.sync()
    list(session.receive(sync_reply(10)))
    for _ in range(commands):
        session.send(PING, {})
    try:
        for piece in pieces:
            list(session.receive(piece))
            assert len(session._lines) <= 70_000
    except ProtocolError:
        assert session.state is State.CLOSED


STEPS = st.sampled_from(
    ["sync", "sync", "send", "send mute", "answer oldest", "answer newest", "reply", "forge", "stray", "empty"]
)


@given(st.lists(STEPS, max_size=25))
@settings(max_examples=500)
def test_a_guest_can_never_cause_a_mistake_of_ours(steps: list[str]) -> None:
    """`LocalProtocolError`, or anything but a `ProtocolError`, would come through."""
    session = Session(1000)
    session.sync()
    syncs, commands, fates = [1000], [], 0
    for step in steps:
        data = b""
        if step == "sync":
            syncs.append(session.next_id)
            session.sync()
        elif step in ("send", "send mute"):
            if session.state is State.READY:
                commands.append(session.send(PING if step == "send" else SHUTDOWN, {})[0])
        elif step == "reply":
            data = reply(commands[fates] if fates < len(commands) else 7)
        else:
            oldest, newest = sync_reply(syncs[0]), sync_reply(syncs[-1])
            known = {"answer oldest": oldest, "answer newest": newest, "forge": sync_reply(session.next_id)}
            data = known.get(step, b"\n" if step == "empty" else b"stray\n")
            syncs = syncs[1:] if step == "answer oldest" and len(syncs) > 1 else syncs
        try:
            fates += sum(not isinstance(event, Synchronised) for event in session.receive(data))
        except ProtocolError:
            break
        assert session.in_flight == len(commands) - fates


class Conversation(RuleBasedStateMachine):
    """A session, and an agent that answers in order but may say anything in between, hang up, or lose what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(1000)
        self.agent_owes: list[tuple[int, Command | None]] = []
        self.open: dict[int, Command] = {}
        self.answered = 0

    @precondition(lambda self: self.session.state is not State.CLOSED)
    @rule()
    def sync(self) -> None:
        self.agent_owes.append((self.session.next_id, None))
        self.session.sync()

    @precondition(lambda self: self.session.state is State.READY)
    @rule(command=st.sampled_from([PING, PING, PING, SHUTDOWN]))
    def send(self, command: Command) -> None:
        command_id, _ = self.session.send(command, {})
        self.open[command_id] = command
        self.agent_owes.append((command_id, command))

    @precondition(lambda self: self.agent_owes)
    @rule(cut=st.integers(0, 60))
    def agent_answers(self, cut: int) -> None:
        owed, command = self.agent_owes.pop(0)
        if command is not None and not command.answers:
            return
        data = sync_reply(owed) if command is None else reply(owed)
        self.receive(data[:cut])
        self.receive(data[cut:])

    @precondition(lambda self: self.agent_owes)
    @rule()
    def agent_forgets(self) -> None:
        self.agent_owes.pop(0)

    @rule(
        noise=st.binary(max_size=60).filter(lambda noise: b"\xff" not in noise)
        | st.sampled_from([b"{}\n", b'{"return": {"of": 1}, "id": 1}\n'])
    )
    def agent_babbles(self, noise: bytes) -> None:
        self.receive(noise)

    @rule()
    def reconnect(self) -> None:
        for event in self.session.end("gone", by_agent=True):
            self.happened(event)
        assert not self.open, "a command without a fate"
        self.session = Session(self.session.next_id)

    def receive(self, data: bytes) -> None:
        if self.session.state is State.CLOSED:
            return
        try:
            for event in self.session.receive(data):
                self.happened(event)
        except ProtocolError:
            self.reconnect()

    def happened(self, event: Event) -> None:
        match event:
            case Answered(command_id, answer):
                assert self.open.pop(command_id).answers
                assert bytes(answer.value) == json.dumps({"of": command_id}).encode(), "somebody else's answer"  # type: ignore[arg-type]
                self.answered += 1
            case Unanswered(command_id):
                assert not self.open.pop(command_id).answers
            case Lost(command_id, _):
                self.open.pop(command_id)
            case Synchronised():
                assert self.session.state is State.READY

    @invariant()
    def what_is_open_is_in_flight(self) -> None:
        assert self.session.in_flight == len(self.open)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
