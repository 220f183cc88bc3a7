"""Files on this side: one that is read and must not change meanwhile, one that appears when it is whole."""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from guestwire.client.ending import in_thread
from guestwire.client.errors import CallFailed, Place, Unreachable
from guestwire.client.pieces import is_hole

BLOCK: Final = 1024 * 1024

PRIVATE: Final = 0o600

ROOM: Final = "make room on this machine, then copy again"


class LocalFile(CallFailed):
    """The file on this side can't be read or written."""

    exit_code = 74


@contextlib.contextmanager
def told(path: Path, place: Place) -> Iterator[None]:
    """What the system says against using a path on this side, as a `LocalFile`."""
    try:
        yield
    except OSError as error:
        advice = (
            ROOM
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "check the path on this machine, and who may use it"
        )
        name = error.filename if str(error.filename).startswith(f"{path}/") else path
        raise LocalFile(place, f"{name}: {error.strerror or error}", advice=advice) from error


class Reading:
    """A file that is read. `digest` is of what was read of it so far."""

    def __init__(self, path: Path, place: Place, number: int) -> None:
        self._path = path
        self._place = place
        self._number = number
        self.facts = os.fstat(number)
        self.digest = hashlib.sha256()

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, path: Path, place: Place) -> AsyncIterator[Self]:
        """Opens a regular file; what is none is not touched.

        Raises:
            LocalFile: it is none, or can't be read.
        """
        opened: list[int] = []
        try:
            with told(path, place):
                await in_thread(_open_into, opened, os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            reading = cls(path, place, opened[0])
            if not stat.S_ISREG(reading.facts.st_mode):
                kind = "a directory; copy it with -r" if stat.S_ISDIR(reading.facts.st_mode) else "no regular file"
                raise LocalFile(place, f"{path} is {kind}")
            yield reading
        finally:
            _close(opened)

    @property
    def size(self) -> int:
        """Bytes, at the beginning."""
        return self.facts.st_size

    @property
    def identity(self) -> str:
        """The same for the same file as long as it does not change."""
        return f"{self._path.resolve()} {self.size} {self.facts.st_mtime_ns}"

    async def all(self) -> bytes:
        """The whole file, a small one.

        Raises:
            LocalFile: it can't be read, or changed meanwhile.
        """
        return b"".join([piece async for piece in self.pieces(0, max(self.size, 1))])

    async def prefix(self, size: int) -> str:
        """The SHA-256 of the first bytes, with which `digest` begins anew."""
        self.digest = await _digest(self._number, size)
        return self.digest.hexdigest()

    async def pieces(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """The rest of it, in pieces of `size` bytes.

        Raises:
            LocalFile: it can't be read, or changed meanwhile.
        """
        while offset < self.size:
            with told(self._path, self._place):
                piece = await in_thread(os.pread, self._number, min(size, self.size - offset), offset)
            if not piece:
                break
            yield piece
            offset += len(piece)
        now = os.fstat(self._number)
        if (now.st_size, now.st_mtime_ns) != (self.facts.st_size, self.facts.st_mtime_ns) or offset != self.size:
            raise LocalFile(
                self._place,
                f"{self._path} changed while it was copied",
                advice="copy again; of a file that never rests, `-` and standard input take what is there",
            )


class Unfinished:
    """A file beside its place, of which `done` bytes are written; `digest` is their SHA-256."""

    def __init__(self, target: Path, path: Path, place: Place, number: int) -> None:
        self._target = target
        self._path = path
        self._place = place
        self._number = number
        self._digest = hashlib.sha256()
        self.done = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def beside(cls, target: Path, place: Place) -> AsyncIterator[Self]:
        """Opens the one that an earlier copy left, or a new one. It is gone at the end, unless the connection broke: then it is kept.

        Raises:
            LocalFile: it can't be written, or another copy to the same place is under way.
        """
        name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:20]
        path = target.with_name(f".guestwire-{name}")
        opened: list[int] = []
        try:
            with told(target, place):
                await in_thread(_open_into, opened, _locked, target, path)
            yield cls(target, path, place, opened[0])
        except Unreachable:
            raise
        except BaseException:
            if opened:
                path.unlink(missing_ok=True)
            raise
        finally:
            _close(opened)

    @property
    def digest(self) -> str:
        """In hexadecimal digits."""
        return self._digest.hexdigest()

    async def measure(self) -> int:
        """Reads what is there already; returns how many bytes."""
        self.done = os.fstat(self._number).st_size
        self._digest = await _digest(self._number, self.done)
        return self.done

    async def restart(self) -> None:
        """Forgets what is there."""
        os.ftruncate(self._number, 0)
        self.done, self._digest = 0, hashlib.sha256()

    async def write(self, piece: bytes) -> None:
        """Adds a piece; zeros become a hole.

        Raises:
            LocalFile: the disk is full, …
        """
        with told(self._target, self._place):
            await in_thread(self._write, piece)

    def _write(self, piece: bytes) -> None:
        self._digest.update(piece)
        if is_hole(piece):
            os.ftruncate(self._number, self.done + len(piece))
        else:
            _pwrite(self._number, piece, self.done)
        self.done += len(piece)

    async def finish(self, mode: int | None, mtime: int | None) -> None:
        """Puts it in its place.

        Raises:
            LocalFile: that can't be.
        """
        with told(self._target, self._place):
            if mode is None:
                mode = 0o666 & ~_umask()
            os.fchmod(self._number, mode & 0o777)
            if mtime is not None:
                os.utime(self._number, (mtime, mtime))
            self._path.replace(self._target)


def _open_into(opened: list[int], how: Callable[..., int], *arguments: Any) -> None:
    """Who is cancelled while a thread opens a file has its number still."""
    opened.append(how(*arguments))


def _close(opened: list[int]) -> None:
    for number in opened:
        os.close(number)


def _locked(target: Path, path: Path) -> int:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "it is no regular file, and is not replaced by one (- is standard output)")
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_mine = os.path.samestat(path.lstat(), os.fstat(number))
    except (BlockingIOError, FileNotFoundError):
        is_mine = False
    if not is_mine:  # or the other one has just put it in its place
        os.close(number)
        raise OSError(errno.EAGAIN, "another copy to it is under way")
    return number


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


async def _digest(number: int, size: int) -> Any:
    digest, at = hashlib.sha256(), 0
    while at < size and (count := await in_thread(_add_to, digest, number, min(BLOCK, size - at), at)):
        at += count
    return digest


def _add_to(digest: Any, number: int, size: int, at: int) -> int:
    piece = os.pread(number, size, at)
    digest.update(piece)
    return len(piece)


def _pwrite(number: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(number, view, at)
        view, at = view[written:], at + written
