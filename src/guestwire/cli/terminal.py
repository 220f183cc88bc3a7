r"""Output of guests for a terminal: colours, cursor movement and titles go through; what makes it answer does not.

A terminal answers some sequences (`ESC [ 6 n`: where is the cursor?) as if the answer was typed. Output comes here when
the program has ended: the answer would be the beginning of the operator's next line. What is known to be harmless is
let through, and no more: there are more sequences that are answered, print, or change what keys send than any list has.

Source: "XTerm Control Sequences", and Paul Williams' parser of DEC's terminals.
"""

import re
from collections.abc import Callable
from typing import Final, TextIO

SEQUENCE: Final = re.compile(
    r"\x1b\[[\x00-\x17\x19\x1c-\x3f\x7f]*+[\x40-\x7e]"  # CSI: a terminal obeys control characters in the middle of one
    r"|\x1b\][^\x00-\x1f\x7f]*+(?:\x07|\x1b\\)"  # OSC
    r"|\x1b[PX^_][^\x18\x1a\x1b]*+\x1b\\"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*+[0-~]?"
    # ENQ; and C1, which stands for ESC and a letter: as a character, or as a byte that is no part of one.
    r"|[\x05\x80-\x9f\udc80-\udc9f]"
)

HARMLESS: Final = re.compile(
    r"\x1b\[[0-9;:]*[@A-MPSXZ`abdefgmr]"  # cursor, colours, erasing, scrolling
    r"|\x1b\[[0-9]*T|\x1b\[[su]|\x1b\[\?[0-9;]*[JK]|\x1b\[!p|\x1b\[[0-9]* q"
    r"|\x1b\[\?(?:7|12|25|47|1047|1048|1049)[hl]"  # wrapping, the cursor's look, the other screen
    r"|\x1b\](?:[0128]|(?:4|1[0-9])(?=;[^?]*$)|1(?:04|1[0-9]))(?:;[^\x80-\x9f\udc80-\udc9f]*)?(?:\x07|\x1b\\)"
    r"|\x1b[78DEHMc]|\x1b[()*+\-./][0-~]|\x1b#[3-8]"
)
"""Of OSC: titles, links, and colours that are set. One with a question mark asks for a colour."""

LONGEST_KEPT: Final = 4096
"""Characters of the end of a piece that are kept for the next one: sequences are short."""

_strings = tuple(f"\x1b{letter}" for letter in "]PX^_")
_partial = re.compile(r"[\udc80-\udcff]{0,3}\Z")
_terminator = "\x1b\\"


class TerminalFilter:
    """Takes output in pieces, and gives what a terminal may get of it.

    Args:
        encoding: the terminal's; in any but UTF-8 each byte is a character.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding, self._errors = ("utf-8", "surrogateescape") if _is_utf8(encoding) else ("latin-1", "strict")
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """The next piece. From the last escape on it is kept for what follows, if that is near: `end` gives it."""
        text = (self._kept + data).decode(self._encoding, self._errors)
        end = _end_of_whole(text)
        self._kept = text[end:].encode(self._encoding, self._errors)
        return self._pass(text[:end])

    def end(self) -> bytes:
        """What is left: a sequence that is not whole is dropped, or the terminal would take what comes next for its end."""
        kept, self._kept = self._kept, b""
        return self._pass(kept.decode(self._encoding, self._errors))

    def _pass(self, text: str) -> bytes:
        shown = SEQUENCE.sub(lambda found: found[0] if HARMLESS.fullmatch(found[0]) else "", text)
        return shown.encode(self._encoding, self._errors)


def _end_of_whole(text: str) -> int:
    """Where what may go on in the next piece begins: a sequence, or a character of several bytes."""
    at = text.rfind("\x1b")
    if at == len(text) - 1 and text.startswith(_strings, before := max(text.rfind("\x1b", 0, at), 0)):
        at = before  # the ESC may be the first half of what ends the string
    if at < 0 or len(text) - at > LONGEST_KEPT or text.startswith(_terminator, at):
        found = _partial.search(text)
        return found.start() if found else len(text)
    return at


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def writer(stream: TextIO) -> Callable[[bytes], None]:
    """Writes bytes of a guest to a standard stream: as they are, or where it is a terminal what that may get.

    An empty piece is the last one.
    """
    filtered = TerminalFilter(stream.encoding) if stream.isatty() else None

    def write(data: bytes) -> None:
        if filtered:
            data = filtered.feed(data) if data else filtered.end()
        stream.buffer.write(data)
        stream.buffer.flush()

    return write


def write_whole(stream: TextIO, data: bytes) -> None:
    """As `writer`, for output that is there as a whole."""
    write = writer(stream)
    write(data)
    write(b"")
