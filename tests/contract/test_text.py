import base64

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guestwire.contract import ByteText, to_bytes
from guestwire.contract.text import SLICE, Base64Text

PIECES = st.lists(st.binary(max_size=200))


def json_text(text: ByteText) -> bytes:
    return b'"' + b"".join(text.json_slices()) + b'"'


@given(PIECES)
@example([bytes(range(256))])
def test_its_slices_are_its_json(pieces: list[bytes]) -> None:
    assert json_text(ByteText(pieces)) == msgspec.json.encode(b"".join(pieces).decode("latin-1"))


@given(PIECES)
def test_its_size_is_that_of_its_pieces(pieces: list[bytes]) -> None:
    assert ByteText(pieces).size == len(b"".join(pieces))


@given(PIECES)
def test_its_bytes_come_back_as_clients_get_them(pieces: list[bytes]) -> None:
    received = msgspec.json.decode(json_text(ByteText(pieces)), type=str)

    assert received.encode("latin-1") == b"".join(pieces)


@given(st.binary())
def test_the_text_is_one_code_point_a_byte(data: bytes) -> None:
    assert [ord(character) for character in str(ByteText([data]))] == list(data)


@pytest.mark.parametrize("size", [SLICE - 1, SLICE, SLICE + 1, 2 * SLICE + 7])
def test_a_long_piece_comes_in_slices(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    text = ByteText([b"<", data, b">"])

    assert max(map(len, text.json_slices())) <= SLICE * len("\\u0000")
    assert json_text(text) == msgspec.json.encode(str(text))


def test_no_pieces_are_the_empty_text() -> None:
    text = ByteText([])

    assert (str(text), json_text(text), text.size) == ("", b'""', 0)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("abc\n\0", b"abc\n\0"),
        ("café ÿ", b"caf\xe9 \xff"),
        ("Ā", b"\xc4\x80"),
        ("é世", b"\xc3\xa9\xe4\xb8\x96"),
        ("😀", b"\xf0\x9f\x98\x80"),
    ],
)
def test_a_text_is_a_byte_each_character_or_all_utf8(text: str, data: bytes) -> None:
    assert to_bytes(text) == data


@given(st.binary())
def test_every_byte_can_be_written_as_one_character(data: bytes) -> None:
    assert to_bytes(str(ByteText([data]))) == data


@given(st.text())
def test_any_text_has_bytes_and_only_one_way_to_read_them(text: str) -> None:
    encoding = "latin-1" if all(character <= "ÿ" for character in text) else "utf-8"

    assert to_bytes(text).decode(encoding) == text


@given(PIECES)
@example([bytes(range(256)) * 3, b'"\\\x00\x1f\x7f\x80\xff'])
def test_its_size_in_json_is_counted_right(pieces: list[bytes]) -> None:
    text = ByteText(pieces)

    assert sum(text.json_sizes()) == len(json_text(text)) - 2


@given(PIECES)
def test_base64_is_json_as_it_is(pieces: list[bytes]) -> None:
    text = Base64Text(pieces)

    assert base64.b64decode(str(text), validate=True) == bytes(text) == b"".join(pieces)
    assert json_text(text) == msgspec.json.encode(str(text))
    assert sum(text.json_sizes()) == len(json_text(text)) - 2
