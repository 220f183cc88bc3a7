"""Text and bytes, as Proxmox VE's API has them: what comes from a guest is one code point a byte.

Clients rely on it: they turn `content` back into bytes with `.encode("latin-1")`.
"""

import base64
from collections.abc import Iterator
from typing import Final

import msgspec

SLICE: Final = 64 * 1024
"""Bytes that are turned into JSON at once: about a quarter of a millisecond."""

_EXTRA: Final = bytes((1 << len(msgspec.json.encode(chr(code))) - len('""') - 1) - 1 for code in range(256))
"""As many bits as each code point takes bytes more than one in JSON: one as UTF-8 or behind a backslash, five as a number."""


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
        return bytes(self).decode("latin-1")

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def size(self) -> int:
        """Bytes, as they came."""
        return sum(map(len, self.pieces))

    def json_sizes(self) -> Iterator[int]:
        """Bytes of its JSON text, slice by slice: to count them takes a third of the time that making it does."""
        return map(_json_size, self._slices())

    def json_slices(self) -> Iterator[bytes]:
        """Its JSON text without the quotes, in slices."""
        return (msgspec.json.encode(part.decode("latin-1"))[1:-1] for part in self._slices())

    def _slices(self) -> Iterator[bytes]:
        for piece in self.pieces:
            for start in range(0, len(piece), SLICE):
                yield piece[start : start + SLICE]


class Base64Text(ByteText):
    """The same bytes where JSON has them in base64, which it takes as it is: nothing has to be looked at."""

    def __str__(self) -> str:
        return b"".join(self.json_slices()).decode()

    def json_sizes(self) -> Iterator[int]:
        """See `ByteText.json_sizes`."""
        yield (self.size + 2) // 3 * 4

    def json_slices(self) -> Iterator[bytes]:
        """See `ByteText.json_slices`. The bytes that a piece has over a multiple of three go to the next one."""
        carried = b""
        for piece in self.pieces:
            data = carried + piece
            whole = len(data) - len(data) % 3
            yield base64.b64encode(data[:whole])
            carried = data[whole:]
        yield base64.b64encode(carried)


def _json_size(piece: bytes) -> int:
    # A processor counts bits faster than bytes of a kind, of which random ones have one after the other.
    return len(piece) + int.from_bytes(piece.translate(_EXTRA)).bit_count()
