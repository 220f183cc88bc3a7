"""Which shared libraries a program needs: just enough of the ELF format, so that no tool has to be there.

Source: the System V ABI, 64-bit little-endian objects.
"""

import struct
from typing import Final

MAGIC: Final = b"\x7fELF\x02\x01"
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB = 1, 5

Segment = tuple[int, int, int, int]
"""Type, offset in the file, address, size in the file."""


def needed(data: bytes) -> list[str]:
    """Names of the libraries that an ELF file names; none for anything else."""
    if not data.startswith(MAGIC):
        return []
    segments = _segments(data)
    dynamic = [
        entry for kind, offset, _, size in segments if kind == PT_DYNAMIC for entry in _pairs(data, offset, size)
    ]
    strings = next((_offset(segments, value) for tag, value in dynamic if tag == DT_STRTAB), 0)
    return [_text(data, strings + value) for tag, value in dynamic if tag == DT_NEEDED]


def interpreter(data: bytes) -> str | None:
    """The program loader that an ELF file asks for."""
    if not data.startswith(MAGIC):
        return None
    return next((_text(data, offset) for kind, offset, _, _ in _segments(data) if kind == PT_INTERP), None)


def _segments(data: bytes) -> list[Segment]:
    start = struct.unpack_from("<Q", data, 32)[0]
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQ", data, start + number * size) for number in range(count)]
    return [(kind, offset, address, length) for kind, _, offset, address, _, length in headers]


def _pairs(data: bytes, offset: int, size: int) -> list[tuple[int, int]]:
    return [pair for pair in struct.iter_unpack("<QQ", data[offset : offset + size]) if pair[0]]


def _offset(segments: list[Segment], address: int) -> int:
    return next(
        offset + address - start
        for kind, offset, start, size in segments
        if kind == PT_LOAD and start <= address < start + size
    )


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
