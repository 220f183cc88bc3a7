"""Folders in a guest, and whole trees: by way of the guest's own tools, whose answer is taken for data.

Trees keep links as links. What a guest says of its tree is not believed: no name leads out of the target, and links
come last, so that nothing is written through one.
"""

import contextlib
import os
import re
import stat
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from guestwire.client.cancellation import map_ordered, run_in_thread
from guestwire.client.errors import AgentRefused, CallFailed, ChecksumMismatch, FileRefused, LocalFile
from guestwire.client.systems import UNIX, system_of
from guestwire.client.transfer.files import Files
from guestwire.client.transfer.local_files import NO_NAME, Progress, report, translate_os_errors
from guestwire.client.transfer.reading import FileStat

AT_ONCE: Final = 6
"""Files that are copied at the same time: the guest makes a process for each."""

BATCH: Final = 50
"""Folders or links for one process."""

LONGEST_BATCH: Final = 40_000
"""Characters of its arguments."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a folder in a guest: `kind` is f (file), d (directory), l (link) or ? (anything else).

    `link` is where a link leads.
    """

    kind: str
    path: str
    size: int = 0
    mode: int = 0o644
    mtime: int = 0
    link: str = ""


_of_all = re.compile(r"No space|not enough space|quota|Read-only file system|frozen|Input/output error")
"""In errors that the next file would have, too."""


@dataclass(slots=True)
class TreeCopy:
    """The number of files and bytes of a tree that were copied, and what was left out: paths, and why.

    `failed` of those could not be copied; the others are no files, folders or links.
    """

    files: int = 0
    bytes: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    failed: int = 0

    def leave_out(self, entry: Entry, why: str) -> None:
        """Notes an entry that is not copied; only one that can be copied nowhere is no failure."""
        self.left_out.append((entry.path, why))
        self.failed += entry.kind != "?"


class Folders:
    """The folders of one guest. Paths are the guest's own."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._retrying = files.retrying

    async def listdir(self, path: str) -> list[Entry]:
        """The entries of a folder, by name.

        Raises:
            FileRefused: there is no such folder, or it can't be read.
            CallFailed: see `client.errors`.
        """
        output, list_file = await self._retrying.output(path, system_of(path).listdir(path))
        return self._entries(((text, "") for text in output.split("\0") if text), list_file)

    async def walk(self, path: str) -> list[Entry]:
        """Everything below a folder, folders before what is in them; paths are relative to it.

        Raises:
            FileRefused: there is no such folder, or it can't be read.
            CallFailed: see `client.errors`.
        """
        system = system_of(path)
        output, list_file = await self._retrying.output(path, system.walk(path))
        texts = iter(output.split("\0"))
        return self._entries(((text, next(texts, "") if system is UNIX else "") for text in texts if text), list_file)

    def _entries(self, texts: Iterable[tuple[str, str]], list_file: str) -> list[Entry]:
        """The entries of a list, without the file that held the list itself."""
        found = []
        try:
            for text, link in texts:
                kind, size, mode, mtime, path = text.split(" ", 4)
                stat = FileStat.parse(kind if kind in "fdl" else "?", size, mode, mtime)
                found.append(Entry(stat.kind, path.removeprefix("./"), stat.size, stat.mode, stat.mtime, link))
        except ValueError as error:
            raise CallFailed(self._retrying.context, f"unexpected answer to a list of files: {error}") from error
        wanted = (one for one in found if one.path != "." and one.path.rpartition("/")[2] != (list_file or "/"))
        return sorted(wanted, key=lambda entry: entry.path)

    async def makedirs(self, path: str) -> None:
        """Makes a folder, and those above it.

        Raises:
            FileRefused: the guest's own reason.
        """
        await self._retrying.check(system_of(path).makedirs([path]))

    async def upload(self, source: Path, path: str, *, progress: Progress | None = None) -> TreeCopy:
        """Copies a folder with what is in it into the guest's folder `path`.

        Permissions, times and links stay as they are.

        Raises:
            LocalFile: something can't be read, or changed meanwhile.
            FileRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        with translate_os_errors(source, self._retrying.context):
            here = await run_in_thread(lambda: list(_local_tree(source)))
        system = system_of(path)
        there = {entry.path: system.join(path, entry.path.relative_to(source).as_posix()) for entry in here}
        files = [entry for entry in here if entry.kind == "f"]
        folders = [entry for entry in here if entry.kind == "d"]
        links = [(entry.link, there[entry.path]) for entry in here if entry.kind == "l"]
        copy, total = TreeCopy(), _Total(progress, sum(entry.stat.st_size for entry in files))
        copy.left_out = [(str(entry.path), "it is no file, folder or link") for entry in here if entry.kind == "?"]
        for batch in _batches([(path,), *((there[entry.path],) for entry in folders)]):
            await self._retrying.check(system.makedirs([folder for (folder,) in batch]))
        uploads = (
            (str(entry.path), partial(self._files.upload, entry.path, there[entry.path], progress=total.of_one_file()))
            for entry in files
        )
        await _copy_all(copy, uploads)
        if system is not UNIX:
            copy.left_out += [(link, "Windows takes no links of a Unix") for _, link in links]
            copy.failed += len(links)
            return copy
        for links_batch in _batches(links):
            await self._retrying.check(UNIX.symlinks(links_batch))
        # The deepest first: what is made in a folder changes its time.
        attributes = [
            (f"{stat.S_IMODE(entry.stat.st_mode):o}", UNIX.timestamp(entry.stat.st_mtime), there[entry.path])
            for entry in reversed(folders)
        ]
        for attributes_batch in _batches(attributes):
            await self._retrying.check(UNIX.attributes(attributes_batch))
        return copy

    async def download(self, path: str, target: Path, *, progress: Progress | None = None) -> TreeCopy:
        """Copies the guest's folder with what is in it into `target`, with permissions, times and links as they are.

        Names that lead out of `target` are left out, also by links that stand there already.

        Raises:
            LocalFile: something can't be written.
            FileRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        entries = await self.walk(path)
        copy, total = TreeCopy(), _Total(progress, sum(entry.size for entry in entries if entry.kind == "f"))
        with translate_os_errors(target, self._retrying.context):
            await run_in_thread(lambda: target.mkdir(parents=True, exist_ok=True))
        safe = await run_in_thread(_make_folders, entries, target, copy)
        downloads = (
            (
                entry.path,
                partial(
                    self._files.download,
                    system_of(path).join(path, entry.path),
                    target / entry.path,
                    stat=FileStat(entry.kind, entry.size, entry.mode, entry.mtime),
                    progress=total.of_one_file(),
                ),
            )
            for entry in safe
            if entry.kind == "f"
        )
        await _copy_all(copy, downloads)
        await run_in_thread(_make_links_and_set_attributes, safe, target, copy)
        return copy


async def _copy_all(copy: TreeCopy, jobs: Iterable[tuple[str, Callable[[], Awaitable[int]]]]) -> None:
    """Copies files by their names, several at once; one that can't be copied is left out."""

    async def copy_one(name: str, job: Callable[[], Awaitable[int]]) -> int | None:
        try:
            return await job()
        except (AgentRefused, ChecksumMismatch, FileRefused, LocalFile) as error:
            if _of_all.search(error.message):
                raise
            copy.left_out.append((name, error.message))
            copy.failed += 1
            return None

    async def begun() -> AsyncGenerator[Coroutine[Any, Any, int | None], None]:
        for name, job in jobs:
            yield copy_one(name, job)

    async with contextlib.aclosing(map_ordered(begun(), AT_ONCE)) as sizes:
        async for size in sizes:
            if size is not None:
                copy.files += 1
                copy.bytes += size


class _Total:
    """The progress of many files as that of one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        report(progress, 0, total)

    def of_one_file(self) -> Progress:
        """The progress of one of them."""
        before = 0

        def tell(done: int, _: int | None) -> None:
            nonlocal before
            self._done, before = self._done + done - before, done
            report(self._progress, self._done, self._total)

        return tell


Item = TypeVar("Item", bound=tuple[str, ...])


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in lists, each of which one command line holds."""
    batch: list[Item] = []
    for item in items:
        if len(batch) >= BATCH or sum(len(word) for one in (*batch, item) for word in one) > LONGEST_BATCH:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _is_inside(path: Path, folder: Path) -> bool:
    """True if a name that a guest gave stays below the folder, also by links that are here already."""
    # Path.resolve raises an error of its own where links lead in a circle.
    return ".." not in path.parts and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder))


@contextlib.contextmanager
def _record_failure(entry: Entry, copy: TreeCopy) -> Iterator[None]:
    """Leaves out an entry that can't be made here, as one whose name is too long."""
    try:
        yield
    except OSError as error:
        copy.leave_out(entry, error.strerror or str(error))
    except UnicodeEncodeError:
        copy.leave_out(entry, NO_NAME)


def _make_folders(entries: list[Entry], target: Path, copy: TreeCopy) -> list[Entry]:
    """Makes the folders; returns the entries that can be copied, and leaves out the others."""
    safe, seen = [], set[str]()
    for entry in entries:
        with _record_failure(entry, copy):
            if why := _reason_to_leave_out(entry, target, seen):
                copy.leave_out(entry, why)
                continue
            if entry.kind == "d":
                (target / entry.path).mkdir(parents=True, exist_ok=True)
            seen.add(entry.path)
            safe.append(entry)
    return safe


def _reason_to_leave_out(entry: Entry, target: Path, seen: set[str]) -> str:
    local = target / entry.path
    os.fsencode(local)
    if entry.path in seen or entry.path == "" or entry.path.startswith("/") or not _is_inside(local, target):
        return "its name leads out of the folder"
    if entry.kind == "?":
        return "it is no file, folder or link"
    if not local.parent.is_dir():
        return "no folder stands above it"
    return "a link stands in its place" if entry.kind == "d" and local.is_symlink() else ""


def _make_links_and_set_attributes(entries: list[Entry], target: Path, copy: TreeCopy) -> None:
    """Makes the links, when all else is there; then gives folders their permissions and times, the deepest first."""
    for entry in (entry for entry in entries if entry.kind == "l"):
        local = target / entry.path
        if not _is_inside(local, target) or (local.is_dir() and not local.is_symlink()):
            copy.leave_out(entry, "a folder stands in its place")
            continue
        with _record_failure(entry, copy):
            new = local.with_name(f".guestwire-{uuid.uuid4().hex}")
            new.symlink_to(entry.link)
            new.replace(local)
    for entry in reversed([entry for entry in entries if entry.kind == "d"]):
        local = target / entry.path
        if not local.is_symlink() and _is_inside(local, target):
            with _record_failure(entry, copy):
                local.chmod(entry.mode & 0o777)
                os.utime(local, (entry.mtime, entry.mtime))


@dataclass(frozen=True, slots=True)
class _LocalEntry:
    kind: str
    path: Path
    stat: os.stat_result
    link: str


def _local_tree(folder: Path) -> Iterator[_LocalEntry]:
    """All below a folder, each behind the folder that it is in."""
    for path in sorted(folder.iterdir()):
        facts = path.lstat()
        mode = facts.st_mode
        kind = "l" if stat.S_ISLNK(mode) else "d" if stat.S_ISDIR(mode) else "f" if stat.S_ISREG(mode) else "?"
        yield _LocalEntry(kind, path, facts, str(path.readlink()) if kind == "l" else "")
        if kind == "d":
            yield from _local_tree(path)
