"""The mark in what a relay sends of an output: 37 bytes that only relay and host know, and a letter behind them."""

from typing import Final, NamedTuple

LEAD: Final = b"\x1e"
"""Before the mark's digits; hardly ever typed or written, so that hardly ever something waits here."""

LEAD_HELD_FOR: Final = 0.02
HELD_FOR: Final = 1.0
"""Seconds that what may be half a mark waits for its other half: its first byte alone, which bytes at random often end with, and more."""

HELLO: Final = b"h"
NEXT: Final = b"n"
PORT: Final = b"p"
END: Final = b"e"
NOTHING: Final = b"w"


class Piece(NamedTuple):
    """Bytes of the program's, and the letter of the mark behind them; b"" where there is none."""

    data: bytes
    letter: bytes = b""


class MarkScanner:
    """Takes what comes apart. Input and output are bytes; nothing is read or written here.

    Args:
        digits: the mark's, behind the first byte.
    """

    def __init__(self, digits: str) -> None:
        self._mark = LEAD + digits.encode()
        self._kept = b""

    def feed(self, data: bytes, *, may_go_on: bool) -> list[Piece]:
        """What is in the next bytes.

        Args:
            data: as they came.
            may_go_on: what comes next may be the other half of a mark; if not, one is not split.
        """
        data, self._kept = self._kept + data, b""
        pieces: list[Piece] = []
        start = 0
        while (at := data.find(self._mark, start)) >= 0:
            behind = at + len(self._mark)
            if behind == len(data):
                self._kept = data[at:]
                return [*pieces, Piece(data[start:at])] if at > start else pieces
            pieces.append(Piece(data[start:at], data[behind : behind + 1]))
            start = behind + 1
        data = data[start:]
        if may_go_on and (at := data.rfind(LEAD)) >= 0 and self._mark.startswith(data[at:]):
            data, self._kept = data[:at], data[at:]
        return [*pieces, Piece(data)] if data else pieces

    @property
    def held_for(self) -> float | None:
        """Seconds after which what is kept back, as a mark's first half, is none; None: nothing is."""
        if not self._kept:
            return None
        return LEAD_HELD_FOR if self._kept == LEAD else HELD_FOR

    def release(self) -> bytes:
        """What was kept back, when it turned out to be no mark."""
        kept, self._kept = self._kept, b""
        return kept
