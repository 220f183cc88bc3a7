"""Tools for files in a guest."""

import asyncio
import difflib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import msgspec

from guestwire.client import CallFailed, Guest
from guestwire.client.errors import LocalFile
from guestwire.client.transfer.local_files import Progress
from guestwire.contract import Effect, Level, Role, parameter
from guestwire.contract.parameters import RoleBy
from guestwire.mcp.display import beginning
from guestwire.mcp.enforce import resolve_path, verify_unchanged
from guestwire.mcp.policy import Refused
from guestwire.mcp.tool import Call, GuestParameters, Registry

tools = Registry()

PIECE = 256 * 1024
MOST_LINES = 2000
MOST_WRITTEN = 1024 * 1024
LONGEST_DIFF = 6000
MOST_COMPARED = 3000
"""Lines: comparing more of them can take minutes, if they are chosen for that."""


class ReadTextFile(GuestParameters, frozen=True, kw_only=True):
    """Parameters of read_text_file."""

    path: Annotated[str, parameter("Path in the guest.", Role.READ_PATH, examples=["/var/log/syslog"])]
    from_line: Annotated[int, parameter("First line, from 1.", ge=1)] = 1
    lines: Annotated[int, parameter("Lines at most.", ge=1, le=MOST_LINES)] = 200
    tail: Annotated[int, parameter("The last lines instead.", ge=1, le=MOST_LINES)] | None = None
    search: (
        Annotated[str, parameter("Only lines with this text.", Role.TEXT, min_length=1, examples=["error"])] | None
    ) = None


class TextRead(msgspec.Struct, frozen=True, omit_defaults=True):
    """Lines of a file; `from_line` is the first one's number where it is known, `next_line` where to go on."""

    text: str
    from_line: int | None = None
    next_line: int | None = None
    line_numbers: list[int] = []
    cursor: str | None = None
    note: str | None = None


@tools.tool("read_text_file", ReadTextFile, level=Level.FILES, effect=Effect.READS)
async def read_text_file(call: Call, parameters: ReadTextFile) -> TextRead:
    """Reads lines of a text file in a guest: from a line on, the last ones (tail), or those with a text (search).

    Large files are fine.
    """
    if parameters.tail:
        return await _tail(call, parameters.path, parameters.tail)
    return await _lines(call, parameters)


async def _lines(call: Call, parameters: ReadTextFile) -> TextRead:
    wanted = parameters.search.encode() if parameters.search else None
    taken: list[bytes] = []
    numbers: list[int] = []
    looked_at = _BoundedReader(call.guest.files.stream(parameters.path), call.limits.bytes)
    number, next_line = 0, None
    async with aclosing(_each_line(looked_at.pieces())) as lines:
        async for line in lines:
            number += 1
            if number >= parameters.from_line and (wanted is None or wanted in line):
                if len(taken) == parameters.lines:
                    next_line = number
                    break
                taken.append(line)
                numbers.append(number)
    text, cursor = _shown(call, b"".join(taken))
    return TextRead(
        text, from_line=numbers[0] if numbers else None, next_line=next_line, line_numbers=numbers if wanted else [], cursor=cursor,
        note=f"only its first {call.limits.bytes} bytes were looked at; tail shows the end" if looked_at.has_more else None,
    )  # fmt: skip


async def _tail(call: Call, path: str, lines: int) -> TextRead:
    size = (await call.guest.files.stat(path)).size
    start = max(0, size - min(PIECE * 4, call.limits.bytes))
    data = await _BoundedReader(call.guest.files.stream(path, offset=start), PIECE * 4).all()
    found = data.splitlines(keepends=True)[-lines:]
    text, cursor = _shown(call, b"".join(found))
    is_short = start > 0 and len(found) < lines
    return TextRead(text, cursor=cursor, note="only the end of the file was looked at" if is_short else None)


class _BoundedReader:
    """A file as it is read, up to so many bytes.

    Its reported size is not true of devices, nor of files that a guest lies about.
    """

    def __init__(self, pieces: AsyncIterator[bytes], most: int) -> None:
        self._pieces = cast("AsyncGenerator[bytes, None]", pieces)  # a stream is one
        self._room = most
        self.has_more = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Up to the limit; then `has_more` says whether there was more."""
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                self.has_more = len(piece) > self._room
                if self.has_more:
                    yield piece[: self._room]
                    return
                self._room -= len(piece)
                yield piece

    async def all(self) -> bytes:
        """The same in one."""
        return b"".join([piece async for piece in self.pieces()])


async def _each_line(source: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Lines with their ends; one that is longer than a piece comes in parts."""
    rest = b""
    async with aclosing(source) as pieces:
        async for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line + b"\n"
            if len(rest) > PIECE:
                yield rest
                rest = b""
    if rest:
        yield rest


def _shown(call: Call, data: bytes) -> tuple[str, str | None]:
    return call.caller.texts.keep_middle(data.decode("utf-8", "replace"), call.limits.characters // 3)


class WriteTextFile(GuestParameters, frozen=True, kw_only=True):
    """Parameters of write_text_file."""

    path: Annotated[str, parameter("Path in the guest.", Role.WRITE_PATH, examples=["/var/log/syslog"])]
    content: Annotated[
        str,
        parameter("The whole new text.", Role.CONTENT, max_length=MOST_WRITTEN),
    ]
    backup: Annotated[bool, parameter("Keep the old file beside it.")] = False


class TextWritten(msgspec.Struct, frozen=True, omit_defaults=True):
    """The changes, and the name of the old file where it was kept."""

    bytes: int
    created: bool
    diff: str = ""
    backup: str | None = None
    dry_run: bool = False


@tools.tool("write_text_file", WriteTextFile, level=Level.FILES, effect=Effect.WRITES, previews=True)
async def write_text_file(call: Call, parameters: WriteTextFile) -> TextWritten:
    """Replaces or creates a text file in a guest and shows the diff.

    The old file stays until the new one is whole; permissions are kept.
    """
    path, data = parameters.path, parameters.content.encode()
    old = await _old(call.guest, path)
    backup = f"{path}.{time.strftime('%Y%m%d-%H%M%S')}.bak" if parameters.backup and old else None
    if backup:
        call.allowed.check_write(backup)
    diff = await _diff_shown(call, old, data, path)
    if not call.policy.dry_run:
        if backup and old:
            await call.guest.files.write(backup, old.data, mode=old.mode)
        await call.guest.files.write(path, data)
    return TextWritten(len(data), created=old is None, diff=diff, backup=backup, dry_run=call.policy.dry_run)


@dataclass(frozen=True)
class _Old:
    """A file as it was, with its permissions."""

    data: bytes
    mode: int


async def _old(guest: Guest, path: str) -> _Old | None:
    """The file as it is; None when there is none."""
    try:
        facts = await guest.files.stat(path)
        if facts.kind != "f":
            raise Refused(
                f"there is a {'directory' if facts.kind == 'd' else 'device or the like'}, which a file must not replace"
            )
        old = _BoundedReader(guest.files.stream(path), MOST_WRITTEN)
        data = b"" if facts.size > MOST_WRITTEN else await old.all()
        if old.has_more or facts.size > MOST_WRITTEN:
            raise Refused(f"the file is over {MOST_WRITTEN} bytes; use copy_file for files of that size")
        return _Old(data, facts.mode)
    except CallFailed as error:
        if "No such file" in error.message or "no such file" in error.message:
            return None
        raise


async def _diff_shown(call: Call, old: _Old | None, new: bytes, path: str) -> str:
    """Nothing where the old text may not be read: who may write a path need not be one who may read it."""
    try:
        await resolve_path(call.guest, call.allowed, path, Role.READ_PATH)
    except (Refused, CallFailed):
        return ""
    return await asyncio.to_thread(_diff, old.data if old else b"", new, path)


def _diff(old: bytes, new: bytes, path: str) -> str:
    before, after = (data.decode("utf-8", "replace").splitlines() for data in (old, new))
    if max(len(before), len(after)) > MOST_COMPARED:
        return f"{len(before)} lines were replaced by {len(after)}; over {MOST_COMPARED} are not compared"
    text = "\n".join(difflib.unified_diff(before, after, path, path, lineterm=""))
    part, end = beginning(text, 0, LONGEST_DIFF)
    return part if end == len(text) else f"{part}\n… {len(text) - end} characters more"


class CopyFile(GuestParameters, frozen=True, kw_only=True):
    """Parameters of copy_file."""

    direction: Annotated[str, parameter("Which way.", Role.TEXT, enum=("to_guest", "from_guest"))]
    local: Annotated[str, parameter("Path on this side, within the folders that the operator named.", Role.LOCAL_PATH)]
    path: Annotated[
        str,
        parameter(
            "Path in the guest.",
            RoleBy("direction", {"to_guest": Role.WRITE_PATH, "from_guest": Role.READ_PATH}),
            examples=["/var/log/syslog"],
        ),
    ]


class Copied(msgspec.Struct, frozen=True):
    """How much was copied; its SHA-256 was compared on both sides."""

    bytes: int
    dry_run: bool = False


@tools.tool("copy_file", CopyFile, level=Level.FILES, effect=Effect.WRITES, seconds=3600, previews=True)
async def copy_file(call: Call, parameters: CopyFile) -> Copied:
    """Copies a file of any size between this side and a guest, checked by SHA-256.

    Nothing goes through the conversation.
    """
    local, path = Path(parameters.local), parameters.path
    if parameters.direction == "to_guest":
        return await _to_guest(call, local, path)
    size = (await call.guest.files.stat(path)).size
    _check_size(call, size)
    if call.policy.dry_run:
        return Copied(size, dry_run=True)
    size = await call.guest.download(path, local, progress=_bounded_progress(call))
    try:
        await verify_unchanged(call.guest, [path] if call.allowed.read is not None else [])
    except BaseException:
        await asyncio.to_thread(local.unlink, missing_ok=True)
        raise
    return Copied(size)


async def _to_guest(call: Call, local: Path, path: str) -> Copied:
    try:
        size = (await asyncio.to_thread(local.stat)).st_size
    except OSError as error:
        raise LocalFile(call.guest.context, f"{local}: {error.strerror}") from error
    _check_size(call, size)
    if call.policy.dry_run:
        return Copied(size, dry_run=True)
    return Copied(await call.guest.upload(local, path, progress=call.progress))


def _check_size(call: Call, size: int) -> None:
    if size > call.limits.bytes:
        raise Refused(f"{size} bytes are more than the policy lets a call copy ({call.limits.bytes})")


def _bounded_progress(call: Call) -> Progress:
    """Progress that ends a copy which becomes larger than its size was said to be."""

    def progress(done: int, total: int | None) -> None:
        _check_size(call, done)
        call.progress(done, total)

    return progress


class ListDirectory(GuestParameters, frozen=True, kw_only=True):
    """Parameters of list_directory."""

    path: Annotated[str, parameter("Path in the guest.", Role.LIST_PATH, examples=["/var/log/syslog"])]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry: `kind` is f (file), d (directory), l (link) or ? (else); `mtime` in seconds since the epoch."""

    name: str
    kind: str
    size: int
    mode: str
    mtime: int


class Listing(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of a folder; `more` entries are not listed."""

    entries: list[Entry]
    more: int = 0


MOST_ENTRIES = 200


@tools.tool("list_directory", ListDirectory, level=Level.FILES, effect=Effect.READS)
async def list_directory(call: Call, parameters: ListDirectory) -> Listing:
    """Lists a folder in a guest with kinds, sizes, permissions and times."""
    entries = await call.guest.folders.listdir(parameters.path)
    listing = [Entry(one.path, one.kind, one.size, f"{one.mode:o}", one.mtime) for one in entries[:MOST_ENTRIES]]
    return Listing(listing, max(0, len(entries) - MOST_ENTRIES))
