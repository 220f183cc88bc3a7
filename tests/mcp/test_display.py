"""What comes from a guest is data: visible, bounded, marked."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestwire.mcp.display import (
    LONGEST_KEPT,
    UNSEEN,
    TextCache,
    UnknownCursor,
    beginning,
    delimit,
    ending,
    sanitize,
    sanitize_values,
    truncate_to_fit,
)


@given(st.text(st.characters()))
def test_nothing_unseen_is_left(text: str) -> None:
    shown = sanitize(text)

    assert all(one in "\n\t" or one.isprintable() for one in shown)
    assert not UNSEEN.search(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb", "a\\u200bb"),
        ("\U000e0041", "\\U000e0041"),
        ("x\ufe0f", "x\\ufe0f"),
        ("line\nnext\tcell", "line\nnext\tcell"),
        ("\r", "\\r"),
        ("ünï世", "ünï世"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_steers_or_hides_is_written_out(text: str, shown: str) -> None:
    assert sanitize(text) == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_values_keep_their_shape(value: Any) -> None:
    assert type(sanitize_values(value)) is type(value)


@pytest.mark.parametrize(
    "value",
    [{"a": "x" * 10**6}, {"a": [{"b": "y" * 100}] * 10**4}, {f"k{n}": n for n in range(10**4)}, ["z" * 10**4] * 100],
)
def test_whatever_comes_fits(value: Any) -> None:
    assert len(json.dumps(truncate_to_fit(value, 5000), ensure_ascii=False)) < 6000


@given(st.text(st.characters()), st.integers(0, 50), st.integers(1, 50))
def test_a_part_fits_and_nothing_is_lost_between_parts(text: str, start: int, room: int) -> None:
    longest = max((len(sanitize(one)) for one in text), default=0)
    at, shown = start, ""
    while at < len(text):
        part, end = beginning(text, at, room)
        assert len(part) <= max(room, longest)
        assert end > at
        at, shown = end, shown + part
    assert shown == sanitize(text[start:])

    tail, begins = ending(text, start, room)
    assert len(tail) <= max(room, longest)
    assert tail == sanitize(text[begins:])
    assert begins >= min(start, len(text))


def test_what_fits_stays_the_very_same() -> None:
    value = {"a": ["b"] * 1000}

    assert truncate_to_fit(value, 10_000) is value
    assert truncate_to_fit(value, 1000) is not value


def test_a_text_that_is_too_long_to_keep_says_so_at_its_end() -> None:
    kept = TextCache()
    name = kept.keep("x" * 20_000_000).partition(":")[0]
    last, cursor = kept.read(f"{name}:{LONGEST_KEPT - 100}", 1000)

    assert cursor is None
    assert last.endswith("[more was not kept]")


def test_marks_can_not_be_forged() -> None:
    one, other = delimit("[0123456789abcdef]\n", "x"), delimit("y", "x")

    marks = [re.search(r"ends at (\w+)\]", text)[1] for text in (one, other)]  # type: ignore[index]
    assert marks[0] != marks[1]
    assert one.endswith(f"[{marks[0]}]")


def test_all_of_a_shortened_text_can_be_read() -> None:
    kept, text = TextCache(), "".join(map(str, range(20_000)))
    shown, cursor = kept.keep_middle(text, 3000)
    assert cursor is not None
    assert len(shown) < 3200
    assert shown.startswith(text[:2000])
    assert shown.endswith(text[-1000:])

    found, at = text[:2000], cursor
    while at:
        part, at = kept.read(at, 5000)  # type: ignore[assignment]
        found += part
    assert found == text


@pytest.mark.parametrize("cursor", ["", "x:0", "x", ":", "x:99999999999999999999"])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(UnknownCursor):
        TextCache().read(cursor, 10)


def test_a_cursor_is_its_callers_alone() -> None:
    cursor = TextCache().keep("secret")

    with pytest.raises(UnknownCursor):
        TextCache().read(cursor, 10)


def test_old_texts_make_room() -> None:
    kept = TextCache()
    first = kept.keep("first")
    for _ in range(40):
        kept.keep("x" * 1_000_000)

    with pytest.raises(UnknownCursor):
        kept.read(first, 10)
