"""One line of JSON for each call: when, who, what, in which guest, and what came of it. No secrets, no content.

The line is written before the answer is sent. The file is the owner's alone; at 16 MiB it is moved to `.1`, where the
one before was. Several servers may write to one file. Calls that were refused, and questions to a person, stand in a
file of their own: however many there are, they push no record of what was done out.
"""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from guestwire.client.settings import expand_home
from guestwire.errors import ConfigurationError

LARGEST: Final = 16 * 1024 * 1024


def default_path(environ: dict[str, str] | os._Environ[str] = os.environ) -> Path:
    """`~/.local/state/guestwire/mcp.jsonl`."""
    base = environ.get("XDG_STATE_HOME") or expand_home(environ.get("HOME") or "~") / ".local" / "state"
    return Path(base) / "guestwire" / "mcp.jsonl"


class Records:
    """Appends lines to one file.

    Raises:
        ConfigurationError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._unwritten = ""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._append("")
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}; name another file with --records") from error

    async def write(self, record: dict[str, Any]) -> None:
        """Returns when the line is in the file; one that can't be written is kept for `settle`.

        Raises:
            OSError: it is not in the file, nor is a part of it.
        """
        self._unwritten += json.dumps(record, ensure_ascii=True, default=str) + "\n"
        await self.settle()

    async def settle(self) -> None:
        """Writes what could not be written before.

        Raises:
            OSError: it still can't.
        """
        async with self._lock:
            if lines := self._unwritten:
                await asyncio.to_thread(self._append, lines)
                self._unwritten = self._unwritten.removeprefix(lines)

    def _append(self, line: str) -> None:
        with self._open_locked() as descriptor:
            size, data = os.fstat(descriptor).st_size, line.encode()
            if os.write(descriptor, data) < len(data):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _open_locked(self) -> Iterator[int]:
        """The file, locked, and not too large: another server may move it away while this one waits for the lock."""
        while True:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self._is_current(descriptor):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        """True if it is still the file at the path; one that is too large is moved away."""
        held = os.fstat(descriptor)
        if not self._path.exists() or not os.path.samestat(held, self._path.stat()):
            return False
        if held.st_size <= LARGEST:
            return True
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        return False


class CallRecords(Records):
    """The records of what was done; `refused` has what was not, beside it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.refused = Records(refused_path(path))


def refused_path(path: Path) -> Path:
    """`mcp.refused.jsonl`, where the records of what was done are in `mcp.jsonl`."""
    return path.with_name(f"{path.stem}.refused{path.suffix}")
