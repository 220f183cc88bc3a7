"""Folders in a guest, and whole trees: by way of the guest's own tools, whose answer is taken for data.

Trees keep links as links. What a guest says of its tree is not believed: no name leads out of the target, and links come last, so that nothing is
written through one.
"""

import contextlib
import os
import stat
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from guestwire.client import scripts
from guestwire.client.ending import in_thread
from guestwire.client.errors import CallFailed
from guestwire.client.files import Facts, Files, Progress, facts_of
from guestwire.client.local import told
from guestwire.client.pieces import in_flight
from guestwire.client.processes import Processes
from guestwire.client.systems import UNIX, system_of

AT_ONCE: Final = 6
"""Files that are copied at the same time: the guest makes a process for each."""

BATCH: Final = 50
"""Folders or links for one process."""

LONGEST_BATCH: Final = 40_000
"""Characters of its arguments."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at a path in a guest: `kind` is f (file), d (directory), l (link) or ? (anything else); `link` is where a link leads."""

    kind: str
    path: str
    size: int = 0
    mode: int = 0o644
    mtime: int = 0
    link: str = ""


@dataclass(slots=True)
class TreeCopied:
    """What became of a tree: how many files and bytes were copied, and what was left out: paths, and why."""

    files: int = 0
    bytes: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


_LINK: Final = """\
while [ $# -gt 0 ]; do
  if [ -d "$2" ] && [ ! -L "$2" ]; then echo "$2: is a directory" >&2; exit 1; fi
  rm -f -- "$2" && ln -s -- "$1" "$2" || exit 1
  shift 2
done
"""

_KEEP: Final = """\
while [ $# -gt 0 ]; do
  chmod "$1" "$3" && TZ=UTC0 touch -t "$2" -- "$3" || exit 1
  shift 3
done
"""


class Folders:
    """The folders of one guest. Paths are the guest's own."""

    def __init__(self, _processes: Processes, files: Files) -> None:
        self._files = files
        self._steady = files.steady

    async def entries(self, path: str) -> list[Entry]:
        """What is in a folder, by name.

        Raises:
            FileRefused: there is no such folder, or it can't be read.
            CallFailed: see `client.errors`.
        """
        listed = (await self._steady.output(system_of(path).entries(path))).split("\0")
        return self._entries((text, "") for text in listed if text)

    async def tree(self, path: str) -> list[Entry]:
        """Everything below a folder, folders before what is in them; paths are relative to it."""
        system = system_of(path)
        texts = iter((await self._steady.output(system.tree(path))).split("\0"))
        return self._entries((text, next(texts, "") if system is UNIX else "") for text in texts if text)

    def _entries(self, listed: Iterable[tuple[str, str]]) -> list[Entry]:
        try:
            found = [_entry(*one) for one in listed]
        except ValueError as error:
            raise CallFailed(self._steady.place, f"unexpected answer to a list of files: {error}") from error
        return sorted((entry for entry in found if entry.path != "."), key=lambda entry: entry.path)

    async def make(self, path: str) -> None:
        """Makes a folder, and those above it."""
        await self._steady.done(system_of(path).make_folders([path]))

    async def copy_to(self, source: Path, path: str, *, progress: Progress | None = None) -> TreeCopied:
        """Copies a folder with what is in it into the guest's folder `path`, with permissions, times and links as they are.

        Raises:
            LocalFile: something can't be read, or changed meanwhile.
            FileRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        with told(source, self._steady.place):
            here = await in_thread(lambda: list(_local_tree(source)))
        system = system_of(path)
        there = {local: system.join(path, local.relative_to(source).as_posix()) for _, local, _ in here}
        copied, total = TreeCopied(), _Total(progress, sum(facts.st_size for kind, _, facts in here if kind == "f"))
        copied.left_out = [(str(local), "it is no file, folder or link") for kind, local, _ in here if kind == "?"]
        folders = [(local, facts) for kind, local, facts in here if kind == "d"]
        for batch in _batches([(path,), *((there[local],) for local, _ in folders)]):
            await self._steady.done(system.make_folders([folder for (folder,) in batch]))
        files = [local for kind, local, _ in here if kind == "f"]
        await self._each(
            copied, (_copying(self._files.copy_to, local, there[local], total.of_one()) for local in files)
        )
        with told(source, self._steady.place):
            links = [(str(local.readlink()), there[local]) for kind, local, _ in here if kind == "l"]
        if system is UNIX:
            await self._in_batches(_LINK, links)
            kept = [
                (f"{stat.S_IMODE(facts.st_mode):o}", scripts.touched(facts.st_mtime), there[local])
                for local, facts in folders
            ]
            await self._in_batches(_KEEP, kept[::-1])
        else:
            copied.left_out += [(link, "Windows takes no links of a Unix") for _, link in links]
        return copied

    async def copy_from(self, path: str, target: Path, *, progress: Progress | None = None) -> TreeCopied:
        """Copies the guest's folder with what is in it into `target`, with permissions, times and links as they are.

        Names that lead out of `target` are left out, also by links that stand there already.

        Raises:
            LocalFile: something can't be written.
            FileRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        entries = await self.tree(path)
        copied, total = TreeCopied(), _Total(progress, sum(entry.size for entry in entries if entry.kind == "f"))
        with told(target, self._steady.place):
            await in_thread(lambda: target.mkdir(parents=True, exist_ok=True))
        safe = await in_thread(_sorted_out, entries, target, copied)
        jobs = (
            _copying(
                self._files.copy_from,
                system_of(path).join(path, entry.path),
                target / entry.path,
                total.of_one(),
                facts=_facts(entry),
            )
            for entry in safe
            if entry.kind == "f"
        )
        await self._each(copied, jobs)
        await in_thread(_link_and_keep, safe, target, copied)
        return copied

    async def _each(self, copied: TreeCopied, jobs: Iterable[Callable[[], Coroutine[Any, Any, int]]]) -> None:
        async def begun() -> AsyncGenerator[Coroutine[Any, Any, int], None]:
            for job in jobs:
                yield job()

        async with contextlib.aclosing(in_flight(begun(), AT_ONCE)) as sizes:
            async for size in sizes:
                copied.files += 1
                copied.bytes += size

    async def _in_batches(self, script: str, items: Iterable[tuple[str, ...]]) -> None:
        for batch in _batches(items):
            await self._steady.done(scripts.script(script, *(word for item in batch for word in item)))


def _copying(
    copy: Callable[..., Coroutine[Any, Any, int]], one: Any, other: Any, progress: Progress, **more: Any
) -> Callable[[], Coroutine[Any, Any, int]]:
    """A copy that begins when it is called."""
    return lambda: copy(one, other, progress=progress, **more)


class _Total:
    """The progress of many files as that of one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        if progress:
            progress(0, total)

    def of_one(self) -> Progress:
        """The progress of one of them."""
        before = 0

        def tell(done: int, _: int | None) -> None:
            nonlocal before
            self._done, before = self._done + done - before, done
            if self._progress:
                self._progress(self._done, self._total)

        return tell


def _batches(items: Iterable[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    batch: list[tuple[str, ...]] = []
    for item in items:
        if len(batch) >= BATCH or sum(len(word) for one in (*batch, item) for word in one) > LONGEST_BATCH:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _facts(entry: Entry) -> Facts:
    return Facts(entry.kind, entry.size, entry.mode, entry.mtime)


def _stays_inside(path: Path, folder: Path) -> bool:
    """Whether a name that a guest gave leads nowhere else, by links that are here already neither."""
    return ".." not in path.parts and path.parent.resolve().is_relative_to(folder.resolve())


@contextlib.contextmanager
def _left_out(entry: Entry, copied: TreeCopied) -> Iterator[None]:
    """What can't be here, as a name that is too long, is left out."""
    try:
        yield
    except OSError as error:
        copied.left_out.append((entry.path, error.strerror or str(error)))


def _sorted_out(entries: list[Entry], target: Path, copied: TreeCopied) -> list[Entry]:
    """Makes the folders; gives what can be copied."""
    safe, seen = [], set[str]()
    for entry in entries:
        with _left_out(entry, copied):
            if why := _why_not(entry, target, seen):
                copied.left_out.append((entry.path, why))
                continue
            if entry.kind == "d":
                (target / entry.path).mkdir(parents=True, exist_ok=True)
            seen.add(entry.path)
            safe.append(entry)
    return safe


def _why_not(entry: Entry, target: Path, seen: set[str]) -> str:
    local = target / entry.path
    if entry.path in seen or entry.path == "" or entry.path.startswith("/") or not _stays_inside(local, target):
        return "its name leads out of the folder"
    if entry.kind == "?":
        return "it is no file, folder or link"
    if not local.parent.is_dir():
        return "no folder stands above it"
    return "a link stands in its place" if entry.kind == "d" and local.is_symlink() else ""


def _link_and_keep(entries: list[Entry], target: Path, copied: TreeCopied) -> None:
    """Makes the links, when all else is there; then gives folders their permissions and times, the deepest first."""
    for entry in (entry for entry in entries if entry.kind == "l"):
        local = target / entry.path
        if not _stays_inside(local, target) or (local.is_dir() and not local.is_symlink()):
            copied.left_out.append((entry.path, "a folder stands in its place"))
            continue
        with _left_out(entry, copied):
            new = local.with_name(f".guestwire-{uuid.uuid4().hex}")
            new.symlink_to(entry.link)
            new.replace(local)
    for entry in reversed([entry for entry in entries if entry.kind == "d"]):
        local = target / entry.path
        if not local.is_symlink() and _stays_inside(local, target):
            with _left_out(entry, copied):
                local.chmod(entry.mode & 0o777)
                os.utime(local, (entry.mtime, entry.mtime))


def _local_tree(folder: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """All below a folder, each behind the folder that it is in."""
    for path in sorted(folder.iterdir()):
        facts = path.lstat()
        kind = _kind(facts.st_mode)
        yield kind, path, facts
        if kind == "d":
            yield from _local_tree(path)


def _kind(mode: int) -> str:
    return "l" if stat.S_ISLNK(mode) else "d" if stat.S_ISDIR(mode) else "f" if stat.S_ISREG(mode) else "?"


def _entry(text: str, link: str) -> Entry:
    kind, size, mode, mtime, path = text.split(" ", 4)
    facts = facts_of(kind if kind in "fdl" else "?", size, mode, mtime)
    return Entry(facts.kind, path.removeprefix("./"), facts.size, facts.mode, facts.mtime, link)
