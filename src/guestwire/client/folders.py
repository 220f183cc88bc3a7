"""Folders in a Unix guest, and whole trees: by way of the guest's shell, whose answer is taken for data."""

import asyncio
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guestwire.client.files import Files, Progress
from guestwire.client.processes import Processes


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at a path in a guest: `kind` is f (file), d (directory), l (link) or ? (anything else)."""

    kind: str
    path: str
    size: int = 0
    mode: int = 0o644
    mtime: int = 0


_STAT: Final = """\
for f in "$@"; do
  if [ -L "$f" ]; then k=l; elif [ -f "$f" ]; then k=f; elif [ -d "$f" ]; then k=d; elif [ -e "$f" ]; then k=?; else continue; fi
  printf '%s %s %s\\0' "$k" "$(stat -c '%s %a %Y' -- "$f" 2>/dev/null || echo 0 644 0)" "$f"
done
"""
_LIST: Final = 'cd -- "$1" || exit 1; set -- .[!.]* ..?* *; ' + _STAT
_TREE: Final = 'cd -- "$1" || exit 1; find . -exec sh -c \'' + _STAT.replace("'", "'\\''") + "' sh {} +"


class Folders:
    """The folders of one guest. Paths are the guest's own."""

    def __init__(self, processes: Processes, files: Files) -> None:
        self._run = processes.run
        self._files = files

    async def entries(self, path: str) -> list[Entry]:
        """What is in a folder, by name.

        Raises:
            ProcessFailed: there is no such folder, or it can't be read.
            CallFailed: see `client.errors`.
        """
        return await self._entries(_LIST, path)

    async def tree(self, path: str) -> list[Entry]:
        """Everything below a folder, folders before what is in them; paths are relative to it."""
        return [entry for entry in await self._entries(_TREE, path) if entry.path != "."]

    async def _entries(self, script: str, path: str) -> list[Entry]:
        ended = await self._run(["/bin/sh", "-c", script, "sh", path], check=True)
        return sorted(map(_entry, filter(None, ended.output.split("\0"))), key=lambda entry: entry.path)

    async def make(self, path: str) -> None:
        """Makes a folder, and those above it."""
        await self._run(["mkdir", "-p", "--", path], check=True)

    async def copy_to(self, source: Path, path: str, *, progress: Progress | None = None) -> int:
        """Copies a folder with what is in it into the guest's folder `path`; returns how many files. Links are left out."""
        count = 0
        await self.make(path)
        for kind, local in await asyncio.to_thread(lambda: list(_local_tree(source))):
            there = posixpath.join(path, local.relative_to(source).as_posix())
            if kind == "d":
                await self.make(there)
            else:
                await self._files.copy_to(local, there, progress=progress)
                count += 1
        return count

    async def copy_from(self, path: str, target: Path, *, progress: Progress | None = None) -> int:
        """Copies the guest's folder with what is in it; returns how many files. Links, and names that lead out of it, are left out."""
        count = 0
        await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
        for entry in await self.tree(path):
            local = target / entry.path
            if not await asyncio.to_thread(_stays_inside, local, target):
                continue
            if entry.kind == "d":
                await asyncio.to_thread(local.mkdir, parents=True, exist_ok=True)
            elif entry.kind == "f":
                await self._files.copy_from(posixpath.join(path, entry.path), local, progress=progress)
                await asyncio.to_thread(local.chmod, entry.mode & 0o777)
                count += 1
        return count


def _stays_inside(path: Path, folder: Path) -> bool:
    """Whether a name that a guest gave leads nowhere else, by links that are here already neither."""
    return path.resolve().is_relative_to(folder.resolve())


def _local_tree(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink() and (path.is_dir() or path.is_file()):
            yield "d" if path.is_dir() else "f", path


def _entry(text: str) -> Entry:
    kind, size, mode, mtime, path = text.split(" ", 4)
    return Entry(kind, path.removeprefix("./"), int(size), int(mode, 8), int(mtime))
