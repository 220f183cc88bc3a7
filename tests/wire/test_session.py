import json
from typing import Any

import pytest

from guestwire.errors import ProtocolError
from guestwire.wire import Answered, Command, Event, Lost, Session, State, Synchronised, Unanswered
from guestwire.wire.frames import STRUCTURE_LIMIT
from guestwire.wire.session import DISCARD_BUDGET, SYNC_REPLY_LIMIT, TRANSITIONS, Input, LocalProtocolError

PING = Command("guest-ping", repeatable=True)
SHUTDOWN = Command("guest-shutdown", answers=False)
STRAY = b'{"error": {"class": "GenericError", "desc": "JSON parse error, stray \'\xef\xbf\xbd\'"}}\n'


def answer(value: object, reply_id: int | None = None) -> bytes:
    reply: dict[str, Any] = {"return": value}
    return json.dumps(reply if reply_id is None else reply | {"id": reply_id}).encode() + b"\n"


def sync_answer(sync_id: int, *, echoes: bool = True) -> bytes:
    return b"\xff" + answer(sync_id, sync_id if echoes else None)


def ready(first_id: int = 1, *, echoes: bool = True) -> Session:
    session = Session(first_id)
    session.sync()
    assert list(session.receive(sync_answer(first_id, echoes=echoes))) == [Synchronised()]
    return session


def values(events: list[Event]) -> list[object]:
    return [json.loads(bytes(event.reply.value)) for event in events if isinstance(event, Answered)]  # type: ignore[arg-type]


def test_a_new_session_can_only_sync() -> None:
    with pytest.raises(LocalProtocolError):
        Session(1).send(PING, {})


def test_the_table_names_every_state() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(Input.END in moves for moves in TRANSITIONS.values())


def test_what_stood_in_the_channel_before_the_sync_is_dropped() -> None:
    session = Session(10)
    session.sync()

    events = list(session.receive(answer("somebody else's", 10) + b'{"retu' + STRAY + sync_answer(10)))

    assert events == [Synchronised()]
    assert session.state is State.READY


def test_the_answer_to_an_earlier_clients_sync_is_not_ours() -> None:
    session = Session(10)
    session.sync()

    assert list(session.receive(sync_answer(9))) == []
    assert session.state is State.SYNCING


def test_replies_belong_to_commands_in_order() -> None:
    session = ready()
    ids = [session.send(PING, {})[0] for _ in range(3)]

    events = list(session.receive(b"".join(answer(n, n) for n in ids)))

    assert [event.id for event in events if isinstance(event, Answered)] == ids
    assert values(events) == ids


def test_an_agent_that_echoes_no_ids_is_understood() -> None:
    session = ready(echoes=False)
    first, second = session.send(PING, {})[0], session.send(PING, {})[0]

    events = list(session.receive(answer("one") + answer("two")))

    assert [event.id for event in events if isinstance(event, Answered)] == [first, second]


def test_a_reply_without_an_id_is_stray_where_ids_are_echoed() -> None:
    session = ready()
    sent, _ = session.send(PING, {})

    (lost,) = session.receive(answer("whose?"))

    assert isinstance(lost, Lost)
    assert lost.id == sent
    assert session.state is State.UNSYNCED


@pytest.mark.parametrize("line", [b"no JSON\n", answer({}, 99), answer({}, 0), b'{"return": 1}\n', STRAY])
def test_a_stray_line_loses_everything_in_the_queue(line: bytes) -> None:
    session = ready()
    ids = [session.send(PING, {})[0] for _ in range(3)]

    events = list(session.receive(line + answer("not to be trusted", ids[1])))

    assert [event.id for event in events if isinstance(event, Lost)] == ids
    assert not values(events)


def test_after_a_stray_line_a_sync_brings_the_conversation_back() -> None:
    session = ready()
    session.send(PING, {})
    list(session.receive(b"?\n"))
    session.sync()

    assert list(session.receive(sync_answer(session.next_id - 1))) == [Synchronised()]
    sent, _ = session.send(PING, {})
    assert values(list(session.receive(answer("fine", sent)))) == ["fine"]


def test_the_answer_to_a_sync_that_was_out_when_a_stray_line_came_brings_the_conversation_back() -> None:
    session = ready()
    session.sync()
    session.sync()
    older, newer = session.next_id - 2, session.next_id - 1
    assert list(session.receive(sync_answer(older))) == [Synchronised()]
    asked, _ = session.send(PING, {})
    session.sync()
    assert list(session.receive(sync_answer(newer))) == [Synchronised()]

    (lost,) = session.receive(b"stray\n")

    assert isinstance(lost, Lost)
    assert lost.id == asked
    assert list(session.receive(sync_answer(session.next_id - 1))) == [Synchronised()]
    assert session.state is State.READY


def test_a_late_reply_before_a_syncs_answer_goes_to_its_own_command() -> None:
    session = ready()
    given_up, _ = session.send(PING, {})
    session.sync()

    events = list(session.receive(answer("late", given_up) + STRAY + sync_answer(session.next_id - 1)))

    assert [type(event) for event in events] == [Answered, Synchronised]


def test_a_syncs_answer_settles_what_stands_before_it() -> None:
    session = ready()
    mute, _ = session.send(SHUTDOWN, {})
    session.sync()
    assert list(session.receive(sync_answer(session.next_id - 1))) == [Unanswered(mute), Synchronised()]

    asked, _ = session.send(PING, {})
    session.sync()
    lost, synchronised = session.receive(sync_answer(session.next_id - 1))
    assert isinstance(lost, Lost)
    assert lost.id == asked
    assert synchronised == Synchronised()


def test_the_reply_to_the_next_command_shows_that_a_mute_one_is_behind_us() -> None:
    session = ready()
    mute, _ = session.send(SHUTDOWN, {})
    following, _ = session.send(PING, {})

    events = list(session.receive(answer({}, following)))

    assert events[0] == Unanswered(mute)
    assert isinstance(events[1], Answered)


def test_a_mute_command_may_fail_with_an_answer() -> None:
    session = ready()
    mute, _ = session.send(SHUTDOWN, {})

    (event,) = session.receive(b'{"error": {"class": "CommandNotFound", "desc": "disabled"}, "id": %d}\n' % mute)

    assert isinstance(event, Answered)


def test_an_agent_that_hangs_up_has_done_its_mute_command_and_lost_the_others() -> None:
    session = ready()
    mute, _ = session.send(SHUTDOWN, {})
    asked, _ = session.send(PING, {})

    assert list(session.end("hung up", by_agent=True)) == [Unanswered(mute), Lost(asked, "hung up")]


def test_when_we_hang_up_nothing_is_taken_for_done() -> None:
    session = ready()
    mute, _ = session.send(SHUTDOWN, {})

    assert list(session.end("time-out", by_agent=False)) == [Lost(mute, "time-out")]


def test_ids_are_never_used_twice() -> None:
    session = ready(first_id=5)
    first, _ = session.send(PING, {})
    list(session.end("", by_agent=True))
    following = Session(session.next_id)
    following.sync()

    assert following.next_id > first + 1


def test_a_reply_over_its_commands_limit_ends_the_conversation() -> None:
    session = ready()
    session.send(Command("guest-ping", reply_limit=1000), {})

    with pytest.raises(ProtocolError, match="longer than 1000"):
        list(session.receive(b"x" * 1001))
    assert session.state is State.CLOSED


def test_a_reply_over_its_limit_is_refused_also_when_it_comes_as_a_whole() -> None:
    session = ready()
    sent, _ = session.send(Command("guest-ping", reply_limit=1000), {})

    with pytest.raises(ProtocolError, match="longer than 1000"):
        list(session.receive(answer("x" * 1000, sent)))


def test_a_reply_that_is_long_and_not_base64_is_refused_long_before_its_end() -> None:
    session = ready()
    session.send(Command("guest-exec-status", reply_limit=48 * 2**20), {})
    list(session.receive(b'{"return": [' + b" " * STRUCTURE_LIMIT))

    with pytest.raises(ProtocolError, match="not base64"):
        list(session.receive(b"[]," * 100))


def test_hundreds_of_answers_to_earlier_syncs_are_no_breach() -> None:
    session = Session(2**40)
    session.sync()
    owed = b"".join(STRAY + sync_answer(2**39 + number) for number in range(2000))

    assert list(session.receive(owed + sync_answer(2**40))) == [Synchronised()]


@pytest.mark.parametrize("orphans", [frozenset[int](), frozenset({2**40 - 5}), frozenset({3})])
def test_lines_that_are_looked_at_are_few(orphans: frozenset[int]) -> None:
    session = Session(2**40, orphans)
    session.sync()

    with pytest.raises(ProtocolError, match="before the answer to a sync"):
        list(session.receive(b"%d\n" % 2**40 * 300))


def test_when_a_conversation_ends_nothing_of_it_is_held() -> None:
    session = ready()
    session.send(PING, {})
    list(session.receive(b"x" * 1000))
    assert session.buffered == 1000
    list(session.end("", by_agent=True))

    assert session.buffered == 0


def test_a_long_answer_meant_for_an_earlier_client_is_dropped_and_not_held() -> None:
    session = Session(10)
    session.sync()
    for _ in range(300):
        list(session.receive(b"x" * SYNC_REPLY_LIMIT))
        assert len(session._lines) <= SYNC_REPLY_LIMIT

    assert list(session.receive(b"\n" + sync_answer(10))) == [Synchronised()]


@pytest.mark.parametrize("piece", [b"x" * 2**20, b"\n" * 2**16, b"{}\n" * 2**14])
def test_endless_noise_before_a_syncs_answer_ends_the_conversation(piece: bytes) -> None:
    session = Session(10)
    session.sync()

    def keep_on() -> None:
        for _ in range(DISCARD_BUDGET // len(piece) + 2):
            list(session.receive(piece))

    with pytest.raises(ProtocolError, match="before the answer to a sync"):
        keep_on()


def test_the_reply_to_an_earlier_sessions_command_is_recognised_when_it_still_matters() -> None:
    session = Session(100, orphans=frozenset({42}))
    session.sync()

    events = list(session.receive(answer(1000, 42) + answer("nobody's", 41) + sync_answer(100)))

    assert [type(event) for event in events] == [Answered, Synchronised]
    assert values(events) == [1000]
