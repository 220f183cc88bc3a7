"""Which libraries a program needs, read from ELF files made here and from real ones."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools.guests import elf

BASE = 0x400000
HEADER, PROGRAM_HEADER = 64, 56
INTERPRETER = b"/lib64/ld-linux-x86-64.so.2\0"


def made(libraries: list[str], interpreter: bytes = INTERPRETER) -> bytes:
    """An ELF file with three segments: all of it, what it is linked to, and its interpreter."""
    strings, offsets = b"\0", []
    for library in libraries:
        offsets.append(len(strings))
        strings += library.encode() + b"\0"
    strings_at = HEADER + 3 * PROGRAM_HEADER + len(interpreter)
    dynamic_at = strings_at + len(strings)
    pairs = [*((1, offset) for offset in offsets), (5, BASE + strings_at), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *pair) for pair in pairs)
    size = dynamic_at + len(dynamic)
    segments = [
        (1, 0, BASE, size),
        (2, dynamic_at, BASE + dynamic_at, len(dynamic)),
        (3, HEADER + 3 * PROGRAM_HEADER, 0, len(interpreter)),
    ]
    headers = b"".join(
        struct.pack("<IIQQQQQQ", kind, 4, at, address, address, length, length, 8)
        for kind, at, address, length in segments
    )
    ident = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    head = ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, HEADER, 0, 0, HEADER, PROGRAM_HEADER, 3, 0, 0, 0)
    return head + headers + interpreter + strings + dynamic


@given(libraries=st.lists(st.text(st.sampled_from("abc.-+1"), min_size=1), max_size=6))
def test_a_program_names_its_libraries_in_order(libraries: list[str]) -> None:
    assert elf.needed(made(libraries)) == libraries


def test_a_program_names_its_loader() -> None:
    assert elf.interpreter(made([])) == "/lib64/ld-linux-x86-64.so.2"


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x01\x01" + b"\0" * 100, b"MZ" * 100])
def test_anything_else_needs_nothing(data: bytes) -> None:
    assert elf.needed(data) == []
    assert elf.interpreter(data) is None


def linked(program: Path) -> set[str]:
    """What the system's own tool says."""
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=30, check=True)
    return {line.split()[0] for line in done.stdout.splitlines() if "=>" in line}


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("ldd"), reason="the program ldd is not there")
def test_a_real_programs_libraries_are_among_those_that_the_system_finds() -> None:
    program = Path(shutil.which("sh") or "/bin/sh").resolve()
    needed = elf.needed(program.read_bytes())

    assert any(name.startswith("libc.so") for name in needed)
    assert set(needed) <= linked(program)
    assert Path(str(elf.interpreter(program.read_bytes()))).exists()
