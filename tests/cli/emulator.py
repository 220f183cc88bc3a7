"""A terminal of this machine with `guestwire` in it, and a terminal emulator that shows what a person would see."""

import asyncio
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from typing import Any, Self

import pyte

SHOWN_WITHIN = 20.0
ENDS_WITHIN = 25.0


class _Screen(pyte.Screen):
    """Answers what a program asks its terminal."""

    def __init__(self, columns: int, rows: int, typed: bytearray) -> None:
        super().__init__(columns, rows)
        self._typed = typed

    def write_process_input(self, data: str) -> None:
        self._typed += data.encode()

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        if not private:  # pyte takes `ESC [ ? 4 m`, which vim asks with, for an error
            super().select_graphic_rendition(*attributes)


class Emulator:
    """A program on a pseudo terminal, as its session's own.

    Attributes:
        screen: what is shown.
        received: all bytes that came so far.
    """

    def __init__(self, *line: str, rows: int = 24, columns: int = 80, env: Mapping[str, str] | None = None) -> None:
        self.received = bytearray()
        self._to_type = bytearray()
        self.screen = _Screen(columns, rows, self._to_type)
        self._stream = pyte.ByteStream(self.screen)
        self._changed = asyncio.Event()
        self._ours, self._theirs = os.openpty()
        self.resize(rows, columns)
        self.settings_before = self.settings()
        # A program that begins a session and opens a terminal gets it as its own, with the signals of its keys.
        own = ["sh", "-c", 'exec <"$0" >"$0" 2>&1; exec "$@"', os.ttyname(self._theirs), *line]
        self.process = subprocess.Popen(
            own, start_new_session=True, env={**os.environ, "TERM": "xterm-256color", **(env or {})}
        )
        os.set_blocking(self._ours, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self._read)

    @classmethod
    def guestwire(
        cls, target: str, *arguments: str, rows: int = 24, columns: int = 80, env: Mapping[str, str] | None = None
    ) -> Self:
        """The command with a target and arguments."""
        line = [sys.executable, "-m", "guestwire", "--host", target, *arguments]
        return cls(*line, rows=rows, columns=columns, env=env)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.remove_reader(self._ours)
        self._loop.remove_writer(self._ours)
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        os.close(self._ours)
        os.close(self._theirs)

    def settings(self) -> list[Any]:
        """The terminal's, as programs here have set them."""
        return termios.tcgetattr(self._theirs)

    def resize(self, rows: int, columns: int) -> None:
        """As if its window was drawn larger or smaller."""
        self.screen.resize(rows, columns)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data: str | bytes) -> None:
        """As if by the keyboard, or pasted."""
        self._to_type += data.encode() if isinstance(data, str) else data
        self._write()

    @property
    def text(self) -> str:
        """The screen's lines, without what is blank at their ends and below them."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n")

    async def see(self, pattern: str, within: float = SHOWN_WITHIN) -> re.Match[str]:
        """Waits until the screen shows that."""
        try:
            async with asyncio.timeout(within):
                while not (found := re.search(pattern, self.text, re.MULTILINE)):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{pattern!r} is not on the screen:\n{self.text}") from None
        return found

    async def ended(self) -> int:
        """The exit code, when the program has ended and all that it wrote is shown."""
        async with asyncio.timeout(ENDS_WITHIN):
            while self.process.poll() is None:
                await asyncio.sleep(0.02)
        self._read()
        return self.process.returncode

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self.received += data
                self._stream.feed(data)
        except BlockingIOError:
            pass
        self._changed.set()
        self._write()

    def _write(self) -> None:
        """What was typed, as the terminal takes it."""
        try:
            while self._to_type:
                del self._to_type[: os.write(self._ours, self._to_type[:4096])]
        except BlockingIOError:
            self._loop.add_writer(self._ours, self._write)
            return
        self._loop.remove_writer(self._ours)
