"""Folders in a guest, and whole trees: by way of the guest's own tools, whose answer is taken for data.

Trees keep links as links. What a guest says of its tree is not believed: no name leads out of the target, and links
come last, so that nothing is written through one.
"""

import contextlib
import os
import re
import stat
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from guestwire.agent.systems import UNIX, System, is_undecodable, system_of
from guestwire.client.cancellation import map_ordered, run_in_thread
from guestwire.client.errors import AgentRefused, CallFailed, ChecksumMismatch, FileRefused, LocalFile
from guestwire.client.processes import check_texts
from guestwire.client.transfer.between_guests import copy_file
from guestwire.client.transfer.files import Files
from guestwire.client.transfer.local_files import NO_NAME, LocalPath, Progress, report, translate_os_errors
from guestwire.client.transfer.reading import FileStat

AT_ONCE: Final = 6
"""Files that are copied at the same time: the guest makes a process for each."""

BATCH: Final = 50
"""Folders or links for one process."""

LONGEST_BATCH: Final = 40_000
"""Characters of its arguments."""


NO_FILE: Final = "it is no file, folder or link"
OUTSIDE: Final = "its name leads out of the folder"

NO_ACCOUNT: Final = "UNKNOWN"
"""The name that some tools print for an id that has none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a folder in a guest: `kind` is f (file), d (directory), l (link) or ? (anything else).

    `link` is where a link leads. `owner` and `group` are names in the guest, or ids where those have none; a Windows
    guest says nothing of these three.
    """

    kind: str
    path: str
    size: int = 0
    mode: int = 0o644
    mtime: int = 0
    link: str = ""
    owner: str = ""
    group: str = ""


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

    def __add__(self, other: "TreeCopy") -> "TreeCopy":
        return TreeCopy(
            self.files + other.files,
            self.bytes + other.bytes,
            self.left_out + other.left_out,
            self.failed + other.failed,
        )

    def leave_out(self, entry: Entry, why: str) -> None:
        """Notes an entry that is not copied; only one that can be copied nowhere is no failure."""
        self.left_out.append((entry.path, why))
        self.failed += entry.kind != "?"


class Folders:
    """The folders of one guest. Paths are the guest's own."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._retrying = files.retrying

    async def listdir(self, path: str) -> list[Entry]:
        """The entries of a folder, by name.

        Raises:
            FileRefused: there is no such folder, or it can't be read.
            CallFailed: see `client.errors`.
        """
        return await self._list(path, recursive=False)

    async def walk(self, path: str) -> list[Entry]:
        """Everything below a folder, folders before what is in them; paths are relative to it.

        Raises:
            FileRefused: there is no such folder, or it can't be read.
            CallFailed: see `client.errors`.
        """
        return await self._list(path, recursive=True)

    async def _list(self, path: str, *, recursive: bool) -> list[Entry]:
        output, list_file = await self._output(path, recursive=recursive)
        texts = iter(output.split("\0"))
        is_unix = system_of(path) is UNIX
        return self._entries(((text, next(texts, "") if is_unix else "") for text in texts if text), list_file)

    async def _output(self, path: str, *, recursive: bool) -> tuple[str, str]:
        """What the guest's program for lists prints; see `Retrying.output`.

        A server of guestwire runs it for those who may read files and run no program of their own.
        """
        retrying = self._retrying
        host, calls = retrying.host, retrying.calls
        if await host.is_guestwire() and not is_undecodable(path) and not await host.may_run(calls.vmid):
            check_texts(retrying.context, path)
            try:
                found = await retrying.call(lambda: calls.file_list(path, recursive=recursive))
            except AgentRefused as error:
                raise retrying.refusal(error.description) from error
            return found.data.decode("utf-8", "surrogateescape"), ""
        system = system_of(path)
        return await retrying.output(path, (system.walk if recursive else system.listdir)(path))

    def _entries(self, texts: Iterable[tuple[str, str]], list_file: str) -> list[Entry]:
        """The entries of a list, without the file that held the list itself."""
        found = []
        try:
            for text, more in texts:
                kind, size, mode, mtime, path = text.split(" ", 4)
                uid, gid, owner, group, link = more.split(":", 4) if more else [""] * 5
                stat = FileStat.parse(kind if kind in "fdl" else "?", size, mode, mtime)
                names = (name if name != NO_ACCOUNT else number for name, number in ((owner, uid), (group, gid)))
                found.append(Entry(stat.kind, path.removeprefix("./"), stat.size, stat.mode, stat.mtime, link, *names))
        except ValueError as error:
            raise CallFailed(self._retrying.context, f"unexpected answer to a list of files: {error}") from error
        wanted = (one for one in found if one.path != "." and one.path.rpartition("/")[2] != (list_file or "/"))
        return sorted(wanted, key=lambda entry: entry.path)

    async def is_folder(self, path: str) -> bool:
        """True if a folder stands at a path, links followed.

        Raises:
            FileRefused: there is nothing. To those who may run no program, it is no folder.
            CallFailed: see `client.errors`.
        """
        if await self._retrying.host.may_run(self._retrying.calls.vmid):
            return (await self.files.stat(path)).kind == "d"
        try:
            await self.listdir(path)
        except FileRefused:
            return False
        return True

    async def makedirs(self, path: str) -> None:
        """Makes a folder, and those above it.

        Raises:
            FileRefused: the guest's own reason.
        """
        await self._retrying.check(system_of(path).makedirs([path]))

    async def upload(self, source: LocalPath, path: str, *, progress: Progress | None = None) -> TreeCopy:
        """Copies a folder with what is in it into the guest's folder `path`.

        Permissions, times and links stay as they are.

        Raises:
            LocalFile: something can't be read, or changed meanwhile.
            FileRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        source = Path(source)
        with translate_os_errors(source, self._retrying.context):
            entries = await run_in_thread(lambda: list(_local_tree(source)))
        total = _Total(progress, sum(entry.size for entry in entries if entry.kind == "f"))

        async def put(entry: Entry, there: str) -> int:
            return await self.files.upload(source / entry.path, there, progress=total.of_one_file())

        copy = TreeCopy()
        await self._make(path, entries, put, copy, lambda entry: str(source / entry.path))
        return copy

    async def copy_to(self, path: str, target: "Folders", there: str, *, progress: Progress | None = None) -> TreeCopy:
        """Copies the folder `path` with what is in it into the folder `there` of another guest.

        Permissions, times and links stay as they are. Names that lead out of `there` are left out: what the one guest
        says must do no harm to the other.

        Raises:
            FileRefused: either guest's own reason.
            CallFailed: see `client.errors`.
        """
        copy, kinds, safe = TreeCopy(), {"": "d"}, list[Entry]()
        for entry in await self.walk(path):
            if why := _reason_not_to_make(entry, kinds, system_of(there)):
                copy.leave_out(entry, why)
                continue
            safe.append(entry)
            kinds[entry.path] = entry.kind
        total = _Total(progress, sum(entry.size for entry in safe if entry.kind == "f"))

        async def put(entry: Entry, name: str) -> int:
            source = system_of(path).join(path, entry.path)
            stat = FileStat(entry.kind, entry.size, entry.mode, entry.mtime)
            files = target.files
            return await copy_file(self.files, source, files, name, stat=stat, progress=total.of_one_file())

        await target._make(there, safe, put, copy, lambda entry: entry.path)  # of this class
        return copy

    async def _make(
        self, path: str, entries: list[Entry], put: Callable[[Entry, str], Awaitable[int]], copy: TreeCopy,
        name: Callable[[Entry], str],
    ) -> None:  # fmt: skip
        """Makes a tree below `path`.

        Args:
            path: a folder, which is made where there is none.
            entries: with paths relative to it, each behind the folder that it is in.
            put: makes a file at its path in the guest; returns its size.
            copy: gets what was made, and what was left out.
            name: of an entry, for what is left out.
        """
        system = system_of(path)
        there = {entry.path: system.join(path, entry.path) for entry in entries}
        folders = [entry for entry in entries if entry.kind == "d"]
        links = [(entry.link, there[entry.path]) for entry in entries if entry.kind == "l"]
        copy.left_out += [(name(entry), NO_FILE) for entry in entries if entry.kind == "?"]
        for batch in _batches([(path,), *((there[entry.path],) for entry in folders)]):
            await self._retrying.check(system.makedirs([folder for (folder,) in batch]))
        files = (entry for entry in entries if entry.kind == "f")
        await _copy_all(copy, ((name(entry), partial(put, entry, there[entry.path])) for entry in files))
        if system is not UNIX:
            copy.left_out += [(link, "Windows takes no links of a Unix") for _, link in links]
            copy.failed += len(links)
            return
        for links_batch in _batches(links):
            await self._retrying.check(UNIX.symlinks(links_batch))
        # The deepest first: what is made in a folder changes its time.
        attributes = [
            (f"{stat.S_IMODE(entry.mode):o}", UNIX.timestamp(entry.mtime), there[entry.path])
            for entry in reversed(folders)
        ]
        for attributes_batch in _batches(attributes):
            await self._retrying.check(UNIX.attributes(attributes_batch))

    async def download(self, path: str, target: LocalPath, *, progress: Progress | None = None) -> TreeCopy:
        """Copies the guest's folder with what is in it into `target`, with permissions, times and links as they are.

        Names that lead out of `target` are left out, also by links that stand there already.

        Raises:
            LocalFile: something can't be written.
            FileRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        target = Path(target)
        entries = await self.walk(path)
        copy, total = TreeCopy(), _Total(progress, sum(entry.size for entry in entries if entry.kind == "f"))
        with translate_os_errors(target, self._retrying.context):
            await run_in_thread(lambda: target.mkdir(parents=True, exist_ok=True))
        safe = await run_in_thread(_make_folders, entries, target, copy)
        downloads = (
            (
                entry.path,
                partial(
                    self.files.download,
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


def _reason_not_to_make(entry: Entry, kinds: Mapping[str, str], system: System) -> str:
    """Why an entry that one guest names is not made in another; `kinds` are those of the paths that are made before it."""
    steps = entry.path.split("/")
    if entry.kind == "?":
        return NO_FILE
    if system is not UNIX and re.search(r"[\\:]", entry.path):
        return "Windows has no such names"
    is_inside = {"", ".", ".."}.isdisjoint(steps) and kinds.get("/".join(steps[:-1])) == "d"
    return "" if is_inside and entry.path not in kinds else OUTSIDE


def _reason_to_leave_out(entry: Entry, target: Path, seen: set[str]) -> str:
    local = target / entry.path
    os.fsencode(local)
    if entry.path in seen or entry.path == "" or entry.path.startswith("/") or not _is_inside(local, target):
        return OUTSIDE
    if entry.kind == "?":
        return NO_FILE
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


def _local_tree(folder: Path, below: str = "") -> Iterator[Entry]:
    """All below a folder, each behind the folder that it is in, with paths relative to the first one."""
    for path in sorted(folder.iterdir()):
        facts = path.lstat()
        mode, name = facts.st_mode, f"{below}{path.name}"
        kind = "l" if stat.S_ISLNK(mode) else "d" if stat.S_ISDIR(mode) else "f" if stat.S_ISREG(mode) else "?"
        link = str(path.readlink()) if kind == "l" else ""
        yield Entry(kind, name, facts.st_size, mode, int(facts.st_mtime), link)
        if kind == "d":
            yield from _local_tree(path, f"{name}/")
