"""Answers: legal reason phrases for any text, and JSON that is the same however it was put together."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestwire.contract import ByteText
from guestwire.contract.guest_events import Event
from guestwire.errors import AgentNotRunning, Forbidden, GuestwireError, InvalidParameters, NotImplementedHere
from guestwire.server import answers
from guestwire.server.http1 import Refusal


@given(text=st.text(st.characters()))
def test_any_text_gives_a_legal_reason_phrase(text: str) -> None:
    phrase = answers.reason_phrase(text)

    assert max(phrase, default=" ") <= "\xff"
    assert phrase.isprintable()
    assert len(phrase) == len(text.partition("\n")[0])


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("QEMU guest agent is not running", "QEMU guest agent is not running"),
        ("Agent error: no \u201cfile\u201d of \u2018mine\u2019", "Agent error: no \"file\" of 'mine'"),
        ("two\nlines", "two"),
        ("a\rb\tc\x00d\x7f\x85\x9f", "a?b?c?d???"),
        ("h\xe9llo \u4e2d\U0001f600", "h\xe9llo ??"),
        ("", ""),
    ],
)
def test_a_reason_phrase_is_the_first_line_in_latin_1(text: str, phrase: str) -> None:
    assert answers.reason_phrase(text) == phrase


def test_a_reason_phrase_is_short_enough_for_any_client() -> None:
    phrase = answers.reason_phrase(f"Agent error: {'x' * 100_000}")

    assert len(phrase) == answers.LONGEST_REASON
    assert phrase.startswith("Agent error: xxx")
    assert phrase.endswith("...")


PIECES = st.lists(st.binary(max_size=300), max_size=4)


def joined(body: answers.Body) -> bytes:
    return b"".join(body.slices())


@given(pieces=PIECES)
async def test_a_long_text_becomes_one_code_point_a_byte_and_its_size_is_known_before(pieces: list[bytes]) -> None:
    body = answers.success("json", {"content": ByteText(pieces), "more": 1})

    assert json.loads(joined(body)) == {"data": {"content": b"".join(pieces).decode("latin-1"), "more": 1}}
    assert await body.size() == len(joined(body))


@given(content=st.binary(max_size=50), mark=st.booleans())
def test_a_text_that_looks_like_the_mark_of_a_place_changes_nothing(content: bytes, mark: bool) -> None:
    other = answers._PLACE if mark else "other"
    body = answers.success("json", {other: other, "content": ByteText([content])})

    assert json.loads(joined(body)) == {"data": {other: other, "content": content.decode("latin-1")}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(result=JSON)
def test_any_result_is_answered_as_it_is(result: Any) -> None:
    assert json.loads(joined(answers.success("json", result))) == {"data": result}
    assert json.loads(joined(answers.success("extjs", result))) == {"data": result, "success": 1}


def test_only_what_belongs_into_an_answer_is_put_there() -> None:
    with pytest.raises(TypeError):
        answers.success("json", {"what": object()})


FAILURES: list[tuple[GuestwireError, int, str, int | str]] = [
    (AgentNotRunning("VM 100", "silence"), 500, "QEMU guest agent is not running", 500),
    (Forbidden("/vms/100", ("A", "B")), 403, "Permission check failed (/vms/100, A|B)", "403"),
    (NotImplementedHere("GET", "/x"), 501, "Method 'GET /x' not implemented", 501),
    (InvalidParameters({"pid": "wrong"}), 400, "Parameter verification failed.", "400"),
]


@pytest.mark.parametrize(("error", "status", "reason", "_inside"), FAILURES)
def test_an_error_is_status_reason_and_message(
    error: GuestwireError, status: int, reason: str, _inside: object
) -> None:
    code, phrase, body = answers.failure("json", error)

    assert (code, phrase) == (status, reason)
    assert json.loads(joined(body))["data"] is None
    assert json.loads(joined(body))["message"].rstrip("\n") == reason


@pytest.mark.parametrize(("error", "_status", "reason", "inside"), FAILURES)
def test_in_extjs_the_status_stands_inside(error: GuestwireError, _status: int, reason: str, inside: object) -> None:
    code, phrase, body = answers.failure("extjs", error)

    answer = json.loads(joined(body))
    assert (code, phrase) == (200, "OK")
    assert (answer["success"], answer["status"], answer["message"].strip()) == (0, inside, reason)


def test_wrong_parameters_are_named() -> None:
    _, _, body = answers.failure("json", InvalidParameters({"pid": "wrong"}))

    assert json.loads(joined(body))["errors"] == {"pid": "wrong"}


@pytest.mark.parametrize(("body", "sent"), [(None, b"some reason"), ("", b""), ("more \xe9", "more \xe9".encode())])
def test_a_refusal_says_its_reason_as_text_unless_it_has_another(body: str | None, sent: bytes) -> None:
    response = answers.refusal(Refusal(506, "some reason", body))

    assert (response.status, response.reason, response.body) == (506, "some reason", sent)
    assert response.closes


def test_a_refusal_is_told_with_its_status() -> None:
    refusal = Refusal(414, "too long")

    assert (refusal.code, str(refusal), refusal.body) == (414, "too long", "too long")


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("br", False),
        ("", False),
    ],
)
def test_gzip_is_used_where_it_is_wanted(accepted: str, takes: bool) -> None:  # a column of a table
    assert answers._takes_gzip(accepted) is takes


async def test_a_stream_of_events_is_said_to_be_heard_when_it_is_known_how_things_are() -> None:
    is_known = asyncio.Event()

    async def stream() -> AsyncGenerator[Event | None, None]:
        await is_known.wait()
        yield None
        yield Event(1.5, "guest-started", 100, "web", "pve1", "was started")

    pieces = answers.as_events(stream())
    first = asyncio.ensure_future(anext(pieces))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not first.done()
    is_known.set()

    assert await first == b": guestwire\n\n"
    assert (await anext(pieces)).startswith(b"event: guest-started\ndata: {")
    await pieces.aclose()
