"""Numbers with their nouns, and that nothing else writes them."""

import re
from pathlib import Path

import pytest

import guestwire
from guestwire.counting import counted
from guestwire.inventory.freezes import in_words
from guestwire.stores import Frozen

SOURCE = Path(guestwire.__file__).parent
UNCOUNTED = re.compile(
    r"(?:%d|\{(?:[a-z_.]*(?:count|size|done|gone|wait|begun)|len\([^{}]*\))\}) (?:bytes|calls|VMs|guests|file systems|records|lines)\b"
)


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("call",), "0 calls"),
        (1, ("call",), "1 call"),
        (1.0, ("second",), "1 second"),
        (0.5, ("second",), "0.5 seconds"),
        (1, ("file system is", "file systems are"), "1 file system is"),
        (1_234_567_890_123, ("byte",), "1234567890123 bytes"),
        (2, ("file system is", "file systems are"), "2 file systems are"),
    ],
)
def test_a_number_has_the_right_form_of_its_noun(number: float, words: tuple[str, ...], text: str) -> None:
    assert counted(number, *words) == text


def test_one_frozen_file_system_is_one() -> None:
    assert (
        in_words(Frozen(100, "ann@pve", 0.0, 1)) == "1 file system was frozen by ann@pve since 1970-01-01 00:00:00 UTC"
    )
    assert in_words(Frozen(100, "ann@pve", 0.0, None)).startswith("a number of file systems were frozen by ann@pve")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_message_counts_without_it(path: Path) -> None:
    assert UNCOUNTED.findall(path.read_text()) == []
