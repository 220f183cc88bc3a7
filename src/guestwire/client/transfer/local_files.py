"""The side of a copy that is on this machine.

A file that is read and must not change meanwhile, one that appears when it is whole, and data in memory.

Every call that may wait for a disk is made in a thread.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from guestwire.client.cancellation import run_in_thread
from guestwire.client.errors import ErrorContext, LocalFile, Unreachable

BLOCK: Final = 1024 * 1024

PRIVATE: Final = 0o600

MAKE_ROOM: Final = "make room on this machine, then copy again"

NO_NAME: Final = "no file of this machine can have this name (a NUL, or letters that its locale lacks)"

LocalPath = str | os.PathLike[str]
Data = bytes | Iterable[bytes] | AsyncIterator[bytes]
"""Bytes, or chunks of them."""

Progress = Callable[[int, int | None], None]
"""Called before the first chunk and after each: how many bytes are done, and how many there are (None: not known).

The bytes of an earlier copy count as done.
"""


def report(progress: Progress | None, done: int, total: int | None) -> None:
    """Calls it, where there is one."""
    if progress:
        progress(done, total)


@contextlib.contextmanager
def translate_os_errors(path: Path, context: ErrorContext) -> Iterator[None]:
    """Raises the system's errors about a path on this side as `LocalFile`."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = MAKE_ROOM if is_full else "check the path on this machine, and who may use it"
        name = error.filename if str(error.filename).startswith(f"{path}/") else path
        raise LocalFile(context, f"{name}: {error.strerror or error}", hint=hint) from error
    except ValueError as error:
        raise LocalFile(context, f"{str(path)!a}: {NO_NAME}", hint="use another name") from error


class LocalSource:
    """A file that is read. `digest` is of what was read of it so far."""

    def __init__(self, path: Path, context: ErrorContext, number: int) -> None:
        self._path = path
        self._context = context
        self._number = number
        self.stat = os.fstat(number)
        self.digest = hashlib.sha256()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path: Path, context: ErrorContext) -> AsyncIterator[Self]:
        """Opens a regular file; anything else is not touched.

        Raises:
            LocalFile: it is none, or can't be read.
        """
        numbers: list[int] = []
        try:
            with translate_os_errors(path, context):
                # Without O_NONBLOCK, a named pipe would be waited for.
                await run_in_thread(_open_into, numbers, os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            source = cls(path, context, numbers[0])
            if not stat.S_ISREG(source.stat.st_mode):
                kind = "a directory; copy it with -r" if stat.S_ISDIR(source.stat.st_mode) else "no regular file"
                raise LocalFile(context, f"{path} is {kind}")
            yield source
        finally:
            _close(numbers)

    @property
    def size(self) -> int:
        """Bytes, when it was opened."""
        return self.stat.st_size

    @property
    def identity(self) -> str:
        """The same for the same file as long as it does not change."""
        return f"{self._path.resolve()} {self.size} {self.stat.st_mtime_ns}"

    async def read(self) -> bytes:
        """The whole file, a small one.

        Raises:
            LocalFile: it can't be read, or changed meanwhile.
        """
        return b"".join([chunk async for chunk in self.chunks(0, max(self.size, 1))])

    async def rewind(self, size: int) -> str:
        """The SHA-256 of the first bytes, which `digest` goes on from."""
        self.digest = await _digest(self._number, size)
        return self.digest.hexdigest()

    async def chunks(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """The rest of it, in chunks of `size` bytes.

        Raises:
            LocalFile: it can't be read, or changed meanwhile.
        """
        while offset < self.size:
            with translate_os_errors(self._path, self._context):
                chunk = await run_in_thread(os.pread, self._number, min(size, self.size - offset), offset)
            if not chunk:
                break
            yield chunk
            offset += len(chunk)
        now = os.fstat(self._number)
        if (now.st_size, now.st_mtime_ns) != (self.stat.st_size, self.stat.st_mtime_ns) or offset != self.size:
            hint = "copy again; of a file that never rests, `-` and standard input take what is there"
            raise LocalFile(self._context, f"{self._path} changed while it was copied", hint=hint)


class LocalTarget:
    """An unfinished file beside its place, of which `done` bytes are written; `digest` is their SHA-256."""

    def __init__(self, target: Path, path: Path, context: ErrorContext, number: int) -> None:
        self._target = target
        self._path = path
        self._context = context
        self._number = number
        self._digest = hashlib.sha256()
        self.done = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, target: Path, context: ErrorContext) -> AsyncIterator[Self]:
        """Opens the one that an earlier copy left, or a new one.

        At the end it is removed, unless the connection broke: then the next copy goes on.

        Raises:
            LocalFile: it can't be written, or another copy to the same place is under way.
        """
        with translate_os_errors(target, context):
            name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:20]
        path = target.with_name(f".guestwire-{name}")
        numbers: list[int] = []
        try:
            with translate_os_errors(target, context):
                await run_in_thread(_open_into, numbers, _open_locked, target, path)
            yield cls(target, path, context, numbers[0])
        except Unreachable:
            raise
        except BaseException:
            if numbers:
                path.unlink(missing_ok=True)
            raise
        finally:
            _close(numbers)

    @property
    def digest(self) -> str:
        """In hexadecimal digits."""
        return self._digest.hexdigest()

    async def measure(self) -> int:
        """Reads what an earlier copy left; returns how many bytes."""
        self.done = os.fstat(self._number).st_size
        self._digest = await _digest(self._number, self.done)
        return self.done

    async def restart(self) -> None:
        """Drops what an earlier copy left."""
        os.ftruncate(self._number, 0)
        self.done, self._digest = 0, hashlib.sha256()

    async def write(self, chunk: bytes) -> None:
        """Adds a chunk; zeros become a hole.

        Raises:
            LocalFile: the disk is full, …
        """
        with translate_os_errors(self._target, self._context):
            await run_in_thread(self._write, chunk)

    def _write(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        if is_hole(chunk):
            os.ftruncate(self._number, self.done + len(chunk))
        else:
            view = memoryview(chunk)
            while view:
                view = view[os.pwrite(self._number, view, self.done + len(chunk) - len(view)) :]
        self.done += len(chunk)

    async def finish(self, mode: int | None, mtime: int | None) -> None:
        """Puts it in its place; what stands there hands on its owner, permissions and other attributes.

        Args:
            mode: of a new file; None: as other new files.
            mtime: seconds since the epoch; None: now.

        Raises:
            LocalFile: that can't be.
        """
        with translate_os_errors(self._target, self._context):
            await run_in_thread(self._finish, mode, mtime)

    def _finish(self, mode: int | None, mtime: int | None) -> None:
        number = self._number
        try:
            old = self._target.lstat()
        except FileNotFoundError:
            os.fchmod(number, 0o666 & ~_umask() if mode is None else mode & 0o777)
        else:
            with contextlib.suppress(PermissionError):
                os.fchown(number, old.st_uid, old.st_gid)
            os.fchmod(number, stat.S_IMODE(old.st_mode) if stat.S_ISREG(old.st_mode) else 0o666 & ~_umask())
            if stat.S_ISREG(old.st_mode):
                self._copy_attributes()
        if mtime is not None:
            os.utime(number, (mtime, mtime))
        self._path.replace(self._target)

    def _copy_attributes(self) -> None:
        """ACL, label and attributes of the file that is replaced; not every file system takes them."""
        if not hasattr(os, "listxattr"):  # a BSD or macOS
            return
        names: list[str] = []
        # vfat and some of a network have none, and refuse to list them.
        with contextlib.suppress(OSError):
            names = os.listxattr(self._target, follow_symlinks=False)
        for name in names:
            with contextlib.suppress(OSError):
                os.setxattr(self._number, name, os.getxattr(self._target, name, follow_symlinks=False))


def _open_into(numbers: list[int], function: Callable[..., int], *arguments: Any) -> None:
    """Opens a file in a thread.

    A caller who is cancelled meanwhile finds its number in the list all the same, and closes it.
    """
    numbers.append(function(*arguments))


def _close(numbers: list[int]) -> None:
    for number in numbers:
        os.close(number)


def _open_locked(target: Path, path: Path) -> int:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "it is no regular file, and is not replaced by one (- is standard output)")
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking, another copy may have put the file in its place, or removed it.
        is_mine = os.path.samestat(path.lstat(), os.fstat(number))
    except (BlockingIOError, FileNotFoundError):
        is_mine = False
    if not is_mine:
        os.close(number)
        raise OSError(errno.EAGAIN, "another copy to it is under way")
    return number


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


async def _digest(number: int, size: int) -> Any:
    digest, offset = hashlib.sha256(), 0
    while offset < size and (
        count := await run_in_thread(_hash_into, digest, number, min(BLOCK, size - offset), offset)
    ):
        offset += count
    return digest


def _hash_into(digest: Any, number: int, size: int, offset: int) -> int:
    chunk = os.pread(number, size, offset)
    digest.update(chunk)
    return len(chunk)


async def chunks_of(data: Data, size: int) -> AsyncGenerator[bytes, None]:
    """The data in chunks of this size; the last may be shorter.

    What an ordinary iterable gives is waited for in a thread.
    """
    if isinstance(data, bytes):
        for start in range(0, len(data), size):
            yield data[start : start + size]
        return
    rest = bytearray()
    async for chunk in data if isinstance(data, AsyncIterator) else _in_threads(data):
        rest += chunk
        while len(rest) >= size:
            yield bytes(rest[:size])
            del rest[:size]
    if rest:
        yield bytes(rest)


async def _in_threads(data: Iterable[bytes]) -> AsyncIterator[bytes]:
    source = iter(data)
    while (chunk := await asyncio.to_thread(next, source, None)) is not None:
        yield chunk


def is_hole(chunk: bytes) -> bool:
    """True if a chunk is zeros alone."""
    return not chunk[:1].strip(b"\0") and chunk.count(0) == len(chunk)
