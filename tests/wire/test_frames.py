import contextlib
import itertools
import json
import sys
import tracemalloc
from types import FrameType
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestwire.errors import ProtocolError
from guestwire.wire.frames import (
    BROKEN_TEXT_LIMIT,
    MAX_DEPTH,
    LineBuffer,
    check_depth,
    decode_reply,
    encode_command,
    encode_sync,
    outline,
)


def test_a_command_is_one_line_of_json_with_its_id() -> None:
    line = encode_command(7, "guest-file-open", {"path": "/tmp/ü\n"})

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"execute": "guest-file-open", "id": 7, "arguments": {"path": "/tmp/ü\n"}}


def test_a_command_without_arguments_sends_none() -> None:
    assert json.loads(encode_command(7, "guest-ping", {})) == {"execute": "guest-ping", "id": 7}


def test_a_sync_begins_with_the_byte_that_clears_the_agents_parser() -> None:
    data = encode_sync(7)

    assert data[:1] == b"\xff"
    assert json.loads(data[1:]) == {"execute": "guest-sync-delimited", "id": 7, "arguments": {"id": 7}}


def test_a_reply_keeps_the_json_text_behind_return() -> None:
    reply = decode_reply(b'{"return": {"a": [1, 2.50]}, "id": 4}')

    assert (bytes(reply.value), reply.id) == (b'{"a": [1, 2.50]}', 4)  # type: ignore[arg-type]


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    reply = decode_reply(b'{"return": "caf\xe9"}')

    assert json.loads(bytes(reply.value)) == "caf\ufffd"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b'{"id": 3}',
        b'{"return": 1, "error": {"class": "GenericError", "desc": "x"}}',
        b'{"error": "text"}',
        b'{"error": {"class": 1, "desc": "x"}}',
        b'{"return": tru}',
        b'{"return": "\\ud800',
        b"\xff\xff",
    ],
)
def test_what_is_no_reply_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_reply(line)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"b":', b"}]")])
@pytest.mark.parametrize("times", [MAX_DEPTH, 400, 20_000])
def test_what_is_nested_too_deeply_is_refused(opening: bytes, closing: bytes, times: int) -> None:
    with pytest.raises(ProtocolError, match="levels deep"):
        decode_reply(b'{"return": ' + opening * times + b"1" + closing * times + b"}")


def test_many_brackets_side_by_side_are_not_nested() -> None:
    check_depth(b"[" + b"[],{}," * 10_000 + b"[]]")


def test_brackets_inside_of_texts_do_not_count() -> None:
    check_depth(json.dumps(["[" * 1000, '"{' * 1000, "\\" * 7]).encode())


@given(
    st.recursive(
        st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=50
    )
)
def test_depth_is_counted_as_a_parser_would(value: object) -> None:
    def depth(value: object) -> int:
        if isinstance(value, dict):
            value = list(value.values())
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    line = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    limit = depth(value)
    check_depth(line, limit)
    if limit:
        with pytest.raises(ProtocolError):
            check_depth(line, limit - 1)


def test_texts_between_brackets_do_not_hide_them() -> None:
    assert outline(rb'{"a\\": ["[", "]", "\"[", {"b\\\"[": "\\"}]}') == b"[[[]]]"


HOSTILE = {
    "deep": b"[" * 2**20,
    "deep and closed": b"[" * 2**19 + b"]" * 2**19,
    "wide": b"[" + b"[]," * 2**19 + b"1]",
    "many numbers": b"[" + b"1," * 2**20 + b"1]",
    "many texts": b"[" + b'"a",' * 2**19 + b'"a"]',
    "as many values as it may": b"[" + b'{"a":1},' * 65_000 + b"{}]",
    "as many brackets as it may": b"[" * 20 + b"[[[]]]," * 18_000 + b"1" + b"]" * 20,
    "quotes": b"[" * 40 + b'"' * 2**20,
    "backslashes": b"[[[[]]]," * 10 + b'"' + b"\\\\" * 2**19 + b'"',
    "escaped quotes": b"[" + b"[[]]," * 20 + b'"' + b'\\"' * 2**19 + b'"]',
    "brackets in a text": b"[" + b"[[]]," * 20 + b'"' + b"[" * 50_000 + b'"]',
    "not UTF-8": b'"' + b"\xff" * (BROKEN_TEXT_LIMIT - 100) + b'"',
    "not UTF-8, and long": b'"' + b"\xff" * 2**21 + b'"',
    "long and not ASCII": b'"' + "é".encode() * 2**22 + b'"',
    "long and full of brackets": b'{"out-data": "' + b"A" * 2**23 + b'", "x": [' + b"[]," * 1000 + b"1]}",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_work_and_memory_are_a_small_multiple_of_a_reply_whatever_is_in_it(value: bytes) -> None:
    line = b'{"return": ' + value + b"}"
    steps = Steps()
    tracemalloc.start()
    try:
        with steps, contextlib.suppress(ProtocolError):
            decode_reply(line)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert steps.count < 10 * MAX_DEPTH, "each step is one pass in C: their number must not depend on the reply"
    assert peak <= max(4 * len(line), 5 * 2**20)


class Steps:
    """Counts the calls of functions, C's too, while it is entered."""

    count = 0

    def __enter__(self) -> Self:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def __call__(self, _frame: FrameType, event: str, _argument: object) -> None:
        self.count += event in ("call", "c_call")


@pytest.mark.parametrize(
    "name", ["deep", "wide", "many numbers", "many texts", "long and not ASCII", "not UTF-8, and long"]
)
def test_what_would_cost_much_is_refused_before_it_is_decoded(name: str) -> None:
    with pytest.raises(ProtocolError, match=r"values|levels deep|not base64|not UTF-8"):
        decode_reply(b'{"return": ' + HOSTILE[name] + b"}")


@given(st.lists(st.sampled_from([b"a\n", b"77\n", b"\xff77\n", b"\n", b"7", b"b"]), max_size=30))
def test_skipped_are_whole_lines_up_to_the_first_with_the_mark(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    buffer = LineBuffer()
    buffer.feed(stream)
    *lines, rest = stream.split(b"\n")
    skipped = list(itertools.takewhile(lambda line: b"77" not in line, lines))

    assert buffer.skip_lines(b"77") == (sum(len(line) + 1 for line in skipped), len(skipped))
    assert buffer.next_line() == next(iter(lines[len(skipped) :]), None)
    assert len(buffer) <= len(stream)
    assert buffer.skip_lines(None)[1] == max(len(lines) - len(skipped) - 1, 0)
    assert len(buffer) == len(rest)


@given(st.binary())
def test_arbitrary_bytes_are_a_reply_or_a_protocol_error(line: bytes) -> None:
    try:
        reply = decode_reply(line)
    except ProtocolError:
        return
    assert isinstance(json.loads(line.decode("utf-8", "replace")), dict)
    assert reply is not None


@given(
    st.lists(st.binary().filter(lambda line: b"\n" not in line)),
    st.binary().filter(lambda tail: b"\n" not in tail),
    st.data(),
)
def test_lines_come_out_as_they_went_in_however_they_were_cut(
    lines: list[bytes], tail: bytes, data: st.DataObject
) -> None:
    stream = b"".join(line + b"\n" for line in lines) + tail
    buffer, seen = LineBuffer(), []
    for piece in cut(stream, data):
        buffer.feed(piece)
        while (line := buffer.next_line()) is not None:
            seen.append(line)

    assert seen == lines
    assert len(buffer) == len(tail)


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20), label="cut at"))
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


def test_only_what_follows_the_last_sentinel_is_kept() -> None:
    buffer = LineBuffer()
    buffer.feed(b"abc\xffdef\xffgh")

    assert buffer.drop_before_sentinel() == 7
    buffer.feed(b"\n")
    assert buffer.next_line() == b"\xffgh"
