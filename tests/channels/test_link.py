"""The rules of a link, on a clock that goes when it is told to."""

import json
import math

import pytest
from rig import Rig, honest

from guestwire.channels import ChannelState, GuestEvent
from guestwire.channels.link import (
    BEHAVED,
    MAX_EXTENSIONS,
    MAX_HANG_UPS,
    MAX_LATE,
    MAX_PROBES,
    MAX_WAITING,
    MOST_AHEAD,
    OPEN_TIMEOUT,
    PING_AFTER,
    RECHECK,
    RECHECK_AT_MOST,
    REST,
    REST_AT_MOST,
    RESYNC_TIMEOUT,
    STALLED,
    STOPPING,
    TRANSITIONS,
    WINDOW,
    Input,
    Phase,
)
from guestwire.errors import AgentError, AgentNotRunning, CommandFailed, CommandTimeout
from guestwire.wire import Command, LocalProtocolError

READ = Command("guest-get-users", repeatable=True)
CHANGE = Command("guest-fstrim")
LONG = Command("guest-fsfreeze-freeze", timeout=3600)
NO_REPLY = Command("guest-shutdown", answers=False)
SYNC = "guest-sync-delimited"
NOISE = b"{}\n"


@pytest.fixture
def rig() -> Rig:
    return Rig().up()


# The table


def test_the_table_names_every_phase_and_every_input() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert {what for moves in TRANSITIONS.values() for what in moves} == set(Input)
    assert all(Input.CLOSE in moves for moves in TRANSITIONS.values())


def test_every_phase_can_be_reached() -> None:
    reached = {Phase.DOWN}
    while new := {phase for known in reached for phase in TRANSITIONS[known].values()} - reached:
        reached |= new

    assert reached == set(Phase)


def test_what_the_table_does_not_list_is_a_mistake_of_ours(rig: Rig) -> None:
    with pytest.raises(LocalProtocolError):
        rig.link.connected(rig.now)
    rig.link.close()
    with pytest.raises(LocalProtocolError):
        rig.link.received(rig.now, b"\n")


# Coming up


def test_it_connects_and_syncs_by_itself() -> None:
    rig = Rig()
    rig.wait(0)
    assert (rig.phase, rig.sent) == (Phase.SYNCING, [SYNC])
    rig.answer()

    assert (rig.phase, rig.link.state) == (Phase.UP, ChannelState.UP)
    assert rig.sleeps_for == math.inf


def test_calls_wait_until_the_sync_is_answered() -> None:
    rig = Rig()
    calls = [rig.call(READ) for _ in range(3)]
    assert rig.sent == [SYNC]
    rig.answer_all()

    assert [json.loads(bytes(rig.outcomes[call]))["of"] for call in calls] == [call.id for call in calls]  # type: ignore[arg-type]
    assert len(rig.connects) == 1


def test_without_a_connection_calls_fail_and_it_looks_again_more_and_more_slowly() -> None:
    rig = Rig(reachable=False)
    call = rig.call(READ)
    assert isinstance(rig.outcomes[call], AgentNotRunning)
    assert rig.link.state is ChannelState.GONE
    rig.wait(60)
    pauses = [after - before for before, after in zip(rig.connects, rig.connects[1:], strict=False)]

    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (RECHECK, RECHECK_AT_MOST)
    rig.reachable = True
    rig.wait(RECHECK_AT_MOST)
    assert rig.is_in(Phase.SYNCING)


def test_a_connection_that_does_not_come_is_not_waited_for() -> None:
    rig = Rig(reachable=None)
    call = rig.call(READ)
    rig.wait(OPEN_TIMEOUT)

    assert isinstance(rig.outcomes[call], AgentNotRunning)
    assert not rig.wants_connection


def test_a_sync_that_is_not_answered_makes_the_agent_silent_and_calls_fail_at_once() -> None:
    rig = Rig()
    call = rig.call(READ)
    rig.wait(OPEN_TIMEOUT)

    assert isinstance(rig.outcomes[call], AgentNotRunning)
    assert (rig.phase, rig.link.state) == (Phase.SILENT, ChannelState.SILENT)
    with pytest.raises(AgentNotRunning):
        rig.call(READ)


def test_a_silent_agent_is_asked_again_and_must_answer_a_ping_too() -> None:
    rig = Rig()
    rig.wait(OPEN_TIMEOUT + 10 * RECHECK)
    assert rig.sent == [SYNC] * 11
    rig.answer(11)
    assert rig.is_in(Phase.SILENT)
    rig.answer_all()

    assert rig.is_in(Phase.UP)


def test_an_agent_that_reads_nothing_is_not_written_to_and_gets_a_new_connection() -> None:
    rig = Rig()
    rig.wait(OPEN_TIMEOUT)
    rig.wait(RECHECK, unsent=1)

    assert rig.sent == [SYNC]
    assert rig.is_in(Phase.RESTING)
    rig.wait(RECHECK)
    assert len(rig.connects) == 2


def test_after_many_syncs_without_an_answer_there_is_a_new_connection() -> None:
    rig = Rig()
    rig.wait(OPEN_TIMEOUT + (MAX_PROBES + 3) * RECHECK)

    assert len(rig.connects) == 2
    assert rig.sent[-1] == SYNC


# Sending


def test_so_many_commands_are_ahead_of_their_replies_and_no_more(rig: Rig) -> None:
    calls = [rig.call(READ) for _ in range(3 * WINDOW)]
    assert len(rig.owed) == WINDOW
    rig.answer()
    assert len(rig.owed) == WINDOW
    rig.answer_all()

    assert len(rig.outcomes) == len(calls)


@pytest.mark.parametrize(("size", "ahead"), [(MOST_AHEAD, 1), (MOST_AHEAD // 2, 1), (MOST_AHEAD // 5, 4)])
@pytest.mark.parametrize("kind", [str, bytes])
def test_large_commands_are_not_sent_ahead(rig: Rig, size: int, ahead: int, kind: type) -> None:
    content = "x" * size if kind is str else bytes(size * 3 // 4)
    for _ in range(4):
        rig.call(CHANGE, {"buf-b64": content})

    assert len(rig.owed) == ahead


def test_nothing_travels_with_a_command_that_says_nothing_on_success(rig: Rig) -> None:
    rig.call(READ)
    quiet = rig.call(NO_REPLY)
    behind = rig.call(READ)
    assert len(rig.owed) == 1
    rig.answer()
    assert [request["execute"] for request in rig.owed] == [NO_REPLY.name]
    rig.hang_up()

    assert rig.outcomes[quiet] == b"null"
    rig.answer_all()
    assert behind in rig.outcomes


def test_too_many_waiting_calls_are_refused() -> None:
    rig = Rig()
    for _ in range(MAX_WAITING):
        rig.call(READ)

    with pytest.raises(CommandFailed, match=f"{MAX_WAITING} calls"):
        rig.call(READ)


# Errors and time-outs


def test_an_error_of_the_agent_is_the_calls(rig: Rig) -> None:
    call = rig.call(READ)
    rig.say(b'{"error": {"class": "CommandNotFound", "desc": "no"}, "id": %d}\n' % rig.owed.pop()["id"])

    assert isinstance(rig.outcomes[call], AgentError)
    assert rig.is_in(Phase.UP)


def test_time_counts_while_a_call_waits(rig: Rig) -> None:
    calls = [rig.call(READ) for _ in range(WINDOW + 1)]
    rig.wait(READ.timeout)

    assert all(isinstance(rig.outcomes[call], CommandTimeout) for call in calls)


def test_an_agent_that_is_busy_with_others_calls_is_not_taken_for_silent(rig: Rig) -> None:
    calls = [rig.call(READ) for _ in range(40)]
    for _ in range(20):
        rig.wait(READ.timeout / 20)
        rig.answer()
    late = [call for call in calls if isinstance(rig.outcomes.get(call), CommandTimeout)]
    assert len(late) >= 20
    assert (rig.phase, len(rig.connects)) == (Phase.UP, 1)
    assert SYNC not in rig.sent[1:]
    after = rig.call(READ)
    rig.answer_all()

    assert json.loads(bytes(rig.outcomes[after])) == {"of": after.id}  # type: ignore[arg-type]


def test_an_agent_that_said_something_a_while_ago_gets_more_time_for_a_sync(rig: Rig) -> None:
    calls = [rig.call(READ) for _ in range(WINDOW + 1)]
    rig.wait(READ.timeout - STALLED)
    rig.answer()
    rig.wait(STALLED)
    assert (rig.phase, len(rig.connects)) == (Phase.SYNCING, 1)
    rig.wait(OPEN_TIMEOUT - STALLED - 0.01)
    assert rig.is_in(Phase.SYNCING)
    after = rig.call(READ)
    rig.answer_all()
    assert isinstance(rig.outcomes[after], bytes)

    assert [isinstance(rig.outcomes[call], CommandTimeout) for call in calls] == [False, *[True] * WINDOW]


def test_an_agent_that_was_busy_and_then_says_nothing_is_left_for_a_new_connection(rig: Rig) -> None:
    for _ in range(2):
        rig.call(READ)
    rig.wait(READ.timeout - 0.5)
    rig.answer()
    rig.wait(0.5)
    assert (rig.phase, len(rig.connects)) == (Phase.UP, 1)
    rig.wait(STALLED - 0.5)

    assert (rig.phase, len(rig.connects)) == (Phase.SYNCING, 2)


def test_after_a_time_out_a_new_connection_must_prove_itself_with_a_ping(rig: Rig) -> None:
    rig.call(READ)
    rig.wait(READ.timeout)
    assert (rig.phase, len(rig.connects)) == (Phase.SYNCING, 2)
    call = rig.call(READ)
    rig.answer()
    assert (rig.phase, rig.owed[-1]["execute"]) == (Phase.VERIFYING, "guest-ping")
    rig.answer_all()

    assert call in rig.outcomes
    assert rig.is_in(Phase.UP)


def test_an_agent_that_answers_syncs_and_nothing_else_is_silent(rig: Rig) -> None:
    rig.call(READ)
    rig.wait(READ.timeout)
    rig.answer()
    rig.wait(RESYNC_TIMEOUT)
    assert rig.is_in(Phase.SILENT)
    for _ in range(5):
        rig.wait(RECHECK)
        rig.owed = [request for request in rig.owed if request["execute"] == SYNC]
        rig.answer(1)
        assert rig.is_in(Phase.SILENT)


def test_a_ping_that_the_agent_refuses_is_an_answer(rig: Rig) -> None:
    rig.call(READ)
    rig.wait(READ.timeout)
    rig.answer()
    rig.say(b'{"error": {"class": "GenericError", "desc": "disabled"}, "id": %d}\n' % rig.owed.pop()["id"])

    assert rig.is_in(Phase.UP)


def test_a_connection_that_carries_a_callers_answer_is_kept(rig: Rig) -> None:
    slow = rig.call(Command("guest-fstrim", timeout=600))
    rig.call(READ)
    rig.wait(READ.timeout)
    assert (rig.phase, len(rig.connects)) == (Phase.SYNCING, 1)
    rig.wait(60)
    assert (rig.phase, len(rig.connects)) == (Phase.SILENT, 1)
    rig.answer_all()

    assert isinstance(rig.outcomes[slow], bytes)
    assert rig.is_in(Phase.UP)


def test_an_answer_that_is_arriving_extends_the_time_but_not_for_ever(rig: Rig) -> None:
    call = rig.call(READ)
    rig.say(b'{"return": "')
    rounds = 0
    while call not in rig.outcomes:
        rig.say(b"x")
        rig.wait(0.5)
        rounds += 1

    assert READ.timeout * MAX_EXTENSIONS <= rounds * 0.5 <= READ.timeout * (MAX_EXTENSIONS + 1) + 1


def test_an_answer_that_has_stalled_is_not_expected_unless_we_do_not_read(rig: Rig) -> None:
    stalled = rig.call(READ)
    rig.say(b'{"return": "')
    rig.link.reading_paused = True
    rig.wait(READ.timeout + 1)
    assert stalled not in rig.outcomes
    rig.link.reading_paused = False
    rig.wait(READ.timeout)

    assert isinstance(rig.outcomes[stalled], CommandTimeout)


def test_a_command_that_says_nothing_is_done_when_its_time_is_up(rig: Rig) -> None:
    call = rig.call(NO_REPLY)
    rig.wait(NO_REPLY.timeout)
    assert rig.outcomes[call] == b"null"
    rig.answer_all()

    assert rig.is_in(Phase.UP)


# Callers that go away


def test_a_reply_that_nobody_waits_for_goes_to_no_other_call(rig: Rig) -> None:
    leaving, staying = rig.call(READ), rig.call(READ)
    rig.link.abandon(leaving)
    rig.answer_all()

    assert leaving not in rig.outcomes
    assert json.loads(bytes(rig.outcomes[staying])) == {"of": staying.id}  # type: ignore[arg-type]
    assert not rig.late


def test_a_call_that_was_not_sent_yet_never_is(rig: Rig) -> None:
    calls = [rig.call(READ) for _ in range(WINDOW + 2)]
    rig.link.abandon(calls[-2])
    rig.link.abandon(calls[-2])
    rig.answer_all()

    assert len(rig.outcomes) == WINDOW + 1
    assert rig.sent.count(READ.name) == WINDOW + 1


def test_a_late_reply_is_handed_on_also_over_the_next_connection(rig: Rig) -> None:
    call = rig.call(CHANGE, wants_late=True)
    request = rig.owed[0]
    rig.wait(CHANGE.timeout)
    rig.hang_up()
    rig.wait(RECHECK)
    rig.say(honest(request))

    assert [late for late, _ in rig.late] == [call]


def test_late_replies_are_remembered_up_to_a_bound(rig: Rig) -> None:
    for _ in range(MAX_LATE + 10):
        rig.link.abandon(rig.call(CHANGE, wants_late=True))
        rig.hang_up()
        rig.wait(RECHECK_AT_MOST)
        rig.answer_all()
    assert len(rig.link._late) == MAX_LATE
    assert not any(call.arguments for call in rig.link._late.values())


# Hanging up


def test_a_command_that_reads_is_repeated_once_when_the_agent_hangs_up(rig: Rig) -> None:
    call = rig.call(READ)
    rig.hang_up()
    rig.answer()
    assert rig.sent.count(READ.name) == 2
    rig.hang_up()

    assert isinstance(rig.outcomes[call], CommandFailed)
    assert rig.sent.count(READ.name) == 2


def test_a_command_that_changes_is_never_repeated(rig: Rig) -> None:
    call = rig.call(CHANGE)
    rig.hang_up()

    assert isinstance(rig.outcomes[call], CommandFailed)
    rig.wait(60)
    assert rig.sent.count(CHANGE.name) == 1


def test_a_large_command_without_a_caller_that_is_never_answered_is_in_nobodys_way() -> None:
    rig = Rig().up()
    large = rig.call(CHANGE, {"x": "x" * 2 * MOST_AHEAD})
    rig.link.abandon(large)
    rig.wait(CHANGE.timeout - 1)
    behind = rig.call(READ)  # nothing is sent ahead of an answer to so much
    rig.wait(1)

    assert len(rig.connects) == 2
    rig.answer_all()
    assert isinstance(rig.outcomes[behind], bytes)


def test_an_agent_that_hangs_up_on_syncs_is_left_alone() -> None:
    rig = Rig()
    call = rig.call(READ)
    for _ in range(MAX_HANG_UPS):
        rig.hang_up()

    assert isinstance(rig.outcomes[call], AgentNotRunning)
    assert rig.is_in(Phase.RESTING)
    assert len(rig.connects) == MAX_HANG_UPS


def test_an_agent_that_hangs_up_for_ever_is_connected_to_more_and_more_seldom() -> None:
    rig = Rig()
    rig.wait(0)
    for _ in range(200):
        rig.answer()  # it even comes up each time
        rig.hang_up()
        rig.wait(RECHECK)

    assert len(rig.connects) < 200 * RECHECK / RECHECK_AT_MOST + 10


@pytest.mark.parametrize("hangs_up", [False, True])
def test_an_agent_that_never_answers_is_one_change_of_state_in_an_hour(*, hangs_up: bool) -> None:
    rig = Rig()
    for _ in range(3600):
        rig.wait(1)
        if hangs_up:
            rig.hang_up()

    assert rig.states == ["silent"]
    rig.reachable = False
    rig.hang_up()
    rig.wait(REST_AT_MOST)
    assert rig.states == ["silent", "gone"]


# Breaking the protocol


def breach(rig: Rig) -> None:
    """The guest speaks unasked as soon as it can."""
    rig.answer()
    rig.say(NOISE)


def test_a_guest_that_breaks_the_protocol_meets_pauses_that_grow() -> None:
    rig = Rig()
    rig.wait(0)
    pauses = []
    for _ in range(12):
        breach(rig)
        assert rig.is_in(Phase.RESTING)
        pauses.append(rig.sleeps_for)
        rig.wait(rig.sleeps_for)

    assert pauses[:8] == [REST * 2**number for number in range(7)] + [REST_AT_MOST]
    assert set(pauses[8:]) == {REST_AT_MOST}


@pytest.mark.parametrize("event", [GuestEvent.PORT_OPENED, GuestEvent.WOKEN, GuestEvent.RESET, GuestEvent.SUSPENDED])
def test_nothing_that_a_guest_can_do_ends_a_pause(event: GuestEvent) -> None:
    rig = Rig()
    rig.wait(0)
    breach(rig)
    rig.link.notify(rig.now, event)
    rig.perform()

    assert rig.is_in(Phase.RESTING)
    with pytest.raises(AgentNotRunning, match="not running"):
        rig.call(READ)
    assert len(rig.connects) == 1


def test_in_an_hour_a_hostile_guest_is_connected_to_about_sixty_times() -> None:
    rig = Rig()
    end = rig.now + 3600
    while rig.now < end:
        breach(rig)
        rig.wait(min(rig.sleeps_for, end - rig.now) or 0.01)

    assert 55 <= len(rig.connects) <= 75


def test_breaches_are_forgiven_when_it_has_behaved_for_a_while_and_no_earlier() -> None:
    rig = Rig()
    rig.wait(0)
    for _ in range(5):
        breach(rig)
        rig.wait(rig.sleeps_for)
    rig.answer()
    rig.wait(BEHAVED / 2)
    breach(rig)
    assert rig.sleeps_for == REST * 2**5
    rig.wait(rig.sleeps_for)
    rig.answer()
    rig.wait(BEHAVED)
    breach(rig)

    assert rig.sleeps_for == REST


def test_a_breach_fails_what_was_under_way_and_what_waited(rig: Rig) -> None:
    calls = [rig.call(Command("guest-get-users", reply_limit=1000)) for _ in range(WINDOW + 2)]
    rig.say(b"x" * 1001)

    assert len(rig.outcomes) == len(calls)
    assert {type(outcome) for outcome in rig.outcomes.values()} == {CommandFailed, AgentNotRunning}
    assert rig.link.buffered == 0


def test_a_command_that_reads_is_repeated_once_after_an_answer_to_something_else(rig: Rig) -> None:
    call = rig.call(READ)
    rig.owed.clear()
    rig.say(NOISE)
    rig.answer()
    rig.answer()
    assert rig.sent.count(READ.name) == 2
    rig.owed.clear()
    rig.say(NOISE)

    assert isinstance(rig.outcomes[call], CommandFailed)
    assert rig.sent.count(READ.name) == 2


def test_an_agent_that_was_started_again_during_a_long_command_is_found_out_by_a_ping(rig: Rig) -> None:
    freeze = rig.call(LONG)
    rig.wait(PING_AFTER)
    assert rig.sent[-2:] == [LONG.name, "guest-ping"]
    rig.wait(PING_AFTER)
    assert rig.sent.count("guest-ping") == 1
    del rig.owed[0]  # the agent that had it is no more
    rig.answer()

    assert isinstance(rig.outcomes[freeze], CommandFailed)


def test_a_long_command_ends_with_its_own_answer_whatever_follows_it(rig: Rig) -> None:
    freeze = rig.call(LONG)
    rig.wait(PING_AFTER)
    rig.answer()
    rig.answer()

    assert rig.outcomes[freeze] == b'{"of": %d}' % (freeze.id or 0)
    assert rig.phase is Phase.UP
    rig.wait(10 * PING_AFTER)
    assert rig.sent.count("guest-ping") == 1


def test_nothing_follows_a_large_or_a_silent_command(rig: Rig) -> None:
    large = rig.call(LONG, {"content": "x" * MOST_AHEAD})
    rig.wait(5 * PING_AFTER)
    assert "guest-ping" not in rig.sent
    rig.answer()
    assert large in rig.outcomes
    rig.call(Command("guest-shutdown", answers=False, timeout=600))
    rig.wait(5 * PING_AFTER)

    assert "guest-ping" not in rig.sent


def test_a_wrong_answer_to_a_command_is_met_with_a_sync_and_a_ping(rig: Rig) -> None:
    call = rig.call(CHANGE)
    rig.owed.clear()
    rig.say(NOISE)
    assert isinstance(rig.outcomes[call], CommandFailed)
    assert rig.is_in(Phase.SYNCING)
    rig.answer()
    assert rig.is_in(Phase.VERIFYING)
    rig.answer()

    assert (rig.phase, len(rig.connects)) == (Phase.UP, 1)


# What others know, and the end


@pytest.mark.parametrize("event", [GuestEvent.SUSPENDED, GuestEvent.STOPPED])
def test_a_guest_that_sleeps_or_stops_has_done_its_command(rig: Rig, event: GuestEvent) -> None:
    call = rig.call(NO_REPLY)
    rig.link.notify(rig.now, event)
    rig.perform()

    assert rig.outcomes[call] == b"null"


@pytest.mark.parametrize("event", [GuestEvent.RESET, GuestEvent.PORT_CLOSED])
def test_a_guest_that_was_reset_has_lost_what_it_was_asked(rig: Rig, event: GuestEvent) -> None:
    call = rig.call(Command("guest-get-users", repeatable=True, timeout=600))
    rig.link.notify(rig.now, event)
    rig.perform()

    assert isinstance(rig.outcomes[call], CommandFailed)
    assert event.value in str(rig.outcomes[call])


def test_a_port_that_was_opened_is_looked_at_at_once() -> None:
    rig = Rig()
    rig.wait(OPEN_TIMEOUT + RECHECK / 2)
    before = len(rig.sent)
    rig.link.notify(rig.now, GuestEvent.PORT_OPENED)
    rig.perform()

    assert len(rig.sent) == before + 1


@pytest.mark.parametrize("seconds", [0, OPEN_TIMEOUT])
def test_closing_ends_every_call(seconds: float) -> None:
    rig = Rig(reachable=None)
    calls = [rig.call(READ) for _ in range(5)]
    rig.decide(reachable=True)
    rig.answer()
    rig.wait(seconds)
    rig.link.close()
    rig.link.close()
    rig.perform()

    assert all(isinstance(rig.outcomes[call], CommandFailed | AgentNotRunning) for call in calls)
    assert rig.sleeps_for == math.inf
    with pytest.raises(AgentNotRunning) as caught:
        rig.call(READ)
    assert caught.value.why == STOPPING


def test_state_changes_are_told_once_each(rig: Rig) -> None:
    rig.call(READ)
    rig.wait(READ.timeout + RESYNC_TIMEOUT + RECHECK)
    rig.answer_all()

    assert rig.states == ["up", "gone", "silent", "up"]
