"""Whatever happens in whatever order: every call ends once, with its own answer or an error, and no guest can make us break our own rules."""

import json
import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rig import FIRST_ID, Rig, honest

from guestwire.channels import GuestEvent
from guestwire.channels.link import CONNECTED, MAX_WAITING, WINDOW, Call, Phase
from guestwire.errors import GuestError
from guestwire.wire import Command

COMMANDS = [
    Command("guest-get-users", repeatable=True, timeout=1.0, reply_limit=4096),
    Command("guest-fstrim", timeout=3.0, reply_limit=4096),
    Command("guest-shutdown", answers=False, timeout=2.0, reply_limit=4096),
]

IDS = st.integers(FIRST_ID, FIRST_ID + 60)
NOISE = (
    st.binary(max_size=40)
    | st.sampled_from([b"\n", b"\xff", b"{}\n", b"x" * 5000, b"[" * 40 + b"\n", b"\xff\n" * 300])
    | IDS.map(lambda number: b'{"return": "forged", "id": %d]' % number)  # whatever follows: no answer
    | IDS.map(lambda number: b'\n\xff{"return": %d}\n' % number)
)


class Life(RuleBasedStateMachine):
    """A link with callers that come and go, an agent that may do anything, and time that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(reachable=None)
        self.calls: list[Call] = []
        self.gone: set[Call] = set()

    @rule(command=st.sampled_from(COMMANDS), wants_late=st.booleans(), size=st.sampled_from([0, 10, 3000]))
    def call(self, command: Command, wants_late: bool, size: int) -> None:
        try:
            self.calls.append(self.rig.call(command, {"text": "x" * size}, wants_late=wants_late))
        except GuestError:
            assert self.rig.phase in (Phase.SILENT, Phase.RESTING, Phase.CLOSED)

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 10))
    def caller_leaves(self, which: int) -> None:
        call = self.calls[-1 - which % len(self.calls)]
        if call not in self.rig.outcomes:
            self.gone.add(call)
        self.rig.link.abandon(call)
        self.rig.perform()

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 5.0, 30.0]), unsent=st.sampled_from([0, 0, 1]))
    def time_passes(self, seconds: float, unsent: int) -> None:
        self.rig.wait(seconds, unsent=unsent)

    @precondition(lambda self: self.rig.wants_connection)
    @rule(reachable=st.booleans())
    def connecting_ends(self, reachable: bool) -> None:
        self.rig.decide(reachable=reachable)

    @precondition(lambda self: self.rig.owed)
    @rule(count=st.integers(1, 6), cut=st.integers(0, 60))
    def agent_answers(self, count: int, cut: int) -> None:
        self.rig.answer(count - 1)
        if self.rig.owed:
            data = honest(self.rig.owed.pop(0))
            self.rig.say(data[:cut])
            self.rig.say(data[cut:])

    @precondition(lambda self: self.rig.link.phase is not Phase.CLOSED)
    @rule()
    def all_is_well(self) -> None:
        """For once, so that not all time is spent on what goes wrong."""
        while self.rig.link.phase is Phase.RESTING or self.rig.link.phase is Phase.DOWN:
            self.rig.wait(self.rig.sleeps_for)
        if self.rig.wants_connection:
            self.rig.decide(reachable=True)
        self.rig.answer_all()

    @precondition(lambda self: self.rig.owed)
    @rule()
    def agent_forgets(self) -> None:
        self.rig.owed.pop(0)

    @precondition(lambda self: self.rig.forgotten)
    @rule(which=st.integers(0, 10))
    def agent_answers_what_an_earlier_connection_asked(self, which: int) -> None:
        self.rig.say(honest(self.rig.forgotten[-1 - which % len(self.rig.forgotten)]))

    @rule(noise=NOISE)
    def agent_babbles(self, noise: bytes) -> None:
        self.rig.say(noise)

    @precondition(lambda self: self.rig.phase in CONNECTED)
    @rule()
    def agent_hangs_up(self) -> None:
        self.rig.hang_up()

    @rule(event=st.sampled_from(GuestEvent))
    def another_source_tells(self, event: GuestEvent) -> None:
        self.rig.link.notify(self.rig.now, event)
        self.rig.perform()

    @precondition(lambda self: self.rig.phase in CONNECTED)
    @rule()
    def the_runtime_sees_a_breach(self) -> None:
        self.rig.link.breach(self.rig.now, "it held memory")
        self.rig.perform()

    @invariant()
    def a_call_that_is_open_is_seen_to_in_time(self) -> None:
        for call in self.calls:
            if not call.has_ended:
                assert self.rig.link.wake_at <= call.deadline

    @invariant()
    def every_call_that_ended_has_one_fate(self) -> None:
        for call in self.calls:
            assert call.has_ended == (call in self.rig.outcomes or call in self.gone)
            assert not (call in self.rig.outcomes and call in self.gone)

    @invariant()
    def no_call_has_anothers_answer(self) -> None:
        answers = [(call, value) for call, value in self.rig.outcomes.items() if isinstance(value, bytes)]
        answers += [(call, bytes(reply.value)) for call, reply in self.rig.late if not reply.error]  # type: ignore[arg-type]
        for call, value in answers:
            if value != b"null":
                assert json.loads(value) == {"of": call.id}
                assert call.command.answers

    @invariant()
    def the_bounds_hold(self) -> None:
        assert self.rig.link.in_flight <= WINDOW
        assert len(self.rig.link._waiting) <= MAX_WAITING
        assert self.rig.link.buffered <= 70_000
        assert self.rig.phase is Phase.CLOSED or self.rig.link.wake_at < math.inf or self.rig.phase is Phase.UP

    def teardown(self) -> None:
        self.rig.wait(1000)
        assert all(call.has_ended for call in self.calls), "a call without an end"
        self.every_call_that_ended_has_one_fate()
        self.rig.link.close()
        self.rig.perform()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
