"""The mark in an output, however what comes is split."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from guestwire.streams.marks import END, HELD_FOR, LEAD, LEAD_HELD_FOR, NEXT, MarkScanner, Piece

DIGITS = "0123456789abcdef01234567"
MARK = LEAD + DIGITS.encode()


def scan(pieces: list[bytes]) -> tuple[bytes, list[bytes], MarkScanner]:
    """The program's bytes, and the letters behind marks."""
    scanner, data, letters = MarkScanner(DIGITS), b"", []
    for piece in pieces:
        for found in scanner.feed(piece, may_go_on=True):
            data += found.data
            letters += [found.letter] if found.letter else []
    return data, letters, scanner


@given(
    before=st.binary(max_size=60),
    between=st.binary(max_size=60),
    cuts=st.lists(st.integers(min_value=0, max_value=170), max_size=6),
)
def test_it_is_found_wherever_reads_end(before: bytes, between: bytes, cuts: list[int]) -> None:
    whole = before + MARK + NEXT + between + MARK + END
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})

    data, letters, scanner = scan([whole[start:end] for start, end in pairwise(places)])

    assert (data, letters) == (before + between, [NEXT, END])
    assert scanner.held_for is None


@given(st.binary(max_size=40).map(lambda data: data + MARK[:7]))
def test_half_a_mark_waits_and_is_given_when_it_is_none(data: bytes) -> None:
    seen, letters, scanner = scan([data])

    assert scanner.held_for == HELD_FOR
    assert (seen + scanner.release(), letters) == (data, [])


def test_what_can_not_go_on_waits_for_nothing() -> None:
    assert MarkScanner(DIGITS).feed(b"key" + LEAD, may_go_on=False) == [Piece(b"key" + LEAD)]


def test_its_first_byte_alone_waits_for_a_moment() -> None:
    scanner = MarkScanner(DIGITS)

    assert scanner.feed(b"bytes" + LEAD, may_go_on=True) == [Piece(b"bytes")]
    assert scanner.held_for == LEAD_HELD_FOR
    assert scanner.release() == LEAD
    assert scanner.held_for is None
