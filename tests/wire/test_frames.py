import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestwire.errors import ProtocolError
from guestwire.wire.frames import LineBuffer, check_depth, decode_reply, encode_command, encode_sync


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
def test_what_is_nested_too_deeply_is_refused(opening: bytes, closing: bytes) -> None:
    with pytest.raises(ProtocolError, match="levels deep"):
        decode_reply(b'{"return": ' + opening * 100_000 + b"1" + closing * 100_000 + b"}")


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
