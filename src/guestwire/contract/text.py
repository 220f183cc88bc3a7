"""Text and bytes, as Proxmox VE's API has them: what comes from a guest is one code point a byte.

Clients rely on it: they turn `content` back into bytes with `.encode("latin-1")`.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

SLICE: Final = 256 * 1024
"""Bytes that are turned into JSON at once: about half a millisecond of work."""

_MORE_THAN_ONE_BYTE: Final = {code: len(msgspec.json.encode(chr(code))) - 2 for code in range(256)}
_PLAIN: Final = bytes(code for code, size in _MORE_THAN_ONE_BYTE.items() if size == 1)
_EXTRA: Final = {code: size - 1 for code, size in _MORE_THAN_ONE_BYTE.items() if size > 1}


def to_bytes(text: str) -> bytes:
    """What a file, a password or standard input gets: a byte for each character up to U+00FF, else all of it as UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


class ByteText:
    """A long text made of bytes, a code point each, as the pieces it came in; turned into JSON a slice at a time."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def __str__(self) -> str:
        return b"".join(self.pieces).decode("latin-1")

    def json_size(self) -> int:
        """Bytes of its JSON text, without the quotes."""
        return sum(map(_json_size, self.pieces))

    def json_slices(self) -> Iterator[bytes]:
        """Its JSON text without the quotes, in slices."""
        for piece in self.pieces:
            for start in range(0, len(piece), SLICE):
                yield msgspec.json.encode(piece[start : start + SLICE].decode("latin-1"))[1:-1]


def _json_size(piece: bytes) -> int:
    unusual = piece.translate(None, delete=_PLAIN)
    if not unusual:
        return len(piece)
    return len(piece) + sum(extra * unusual.count(code) for code, extra in _EXTRA.items())
