"""One line of JSON for each call: when, who, what, in which guest, and what came of it. No secrets, no content.

The line is written before the answer is sent. The file is the owner's alone; at 16 MiB it is moved to `.1`, where the one before was.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final

from guestwire.errors import ConfigurationError

LARGEST: Final = 16 * 1024 * 1024


def default_path(environ: dict[str, str] | os._Environ[str] = os.environ) -> Path:
    """`~/.local/state/guestwire/mcp.jsonl`."""
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    return Path(base) / "guestwire" / "mcp.jsonl"


class Records:
    """Appends lines to one file.

    Raises:
        ConfigurationError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._append("")
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}; name another file with --records") from error

    async def write(self, record: dict[str, Any]) -> None:
        """Returns when the line is in the file."""
        line = json.dumps(record, ensure_ascii=True, default=str) + "\n"
        async with self._lock:
            await asyncio.to_thread(self._append, line)

    def _append(self, line: str) -> None:
        if self._path.exists() and self._path.stat().st_size > LARGEST:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
