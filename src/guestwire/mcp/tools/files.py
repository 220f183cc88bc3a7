"""Tools for files in a guest."""

import asyncio
import codecs
import difflib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import msgspec

from guestwire.client import CallFailed, Guest
from guestwire.client.errors import LocalFile, is_no_such_file
from guestwire.client.transfer.local_files import Progress
from guestwire.contract import Effect, Level, Role, parameter
from guestwire.contract.parameters import RoleBy
from guestwire.counting import counted
from guestwire.mcp.display import beginning, sanitize
from guestwire.mcp.enforce import resolve_path, verify_unchanged
from guestwire.mcp.policy import Refused
from guestwire.mcp.text_format import (
    ENCODINGS,
    LONGEST_MARK,
    MARKS,
    MOST_NAMED,
    TextFormat,
    is_text,
    not_text,
    reason_to_refuse,
    written_out,
)
from guestwire.mcp.tool import Call, GuestParameters, Registry

tools = Registry()

PIECE = 256 * 1024
MOST_LINES = 2000
MOST_WRITTEN = 1024 * 1024
LONGEST_DIFF = 6000
MOST_COMPARED = 3000
"""Lines: comparing more of them can take minutes, if they are chosen for that."""


Encoding = Annotated[str, parameter("If not UTF-8.", Role.TEXT, enum=ENCODINGS)]


class ReadTextFile(GuestParameters, frozen=True, kw_only=True):
    """Parameters of read_text_file."""

    path: Annotated[str, parameter("Path in the guest.", Role.READ_PATH, examples=["/var/log/syslog"])]
    from_line: Annotated[int, parameter("First line, from 1.", ge=1)] = 1
    lines: Annotated[int, parameter("Lines at most.", ge=1, le=MOST_LINES)] = 200
    tail: Annotated[int, parameter("The last lines instead.", ge=1, le=MOST_LINES)] | None = None
    search: (
        Annotated[str, parameter("Only lines with this text.", Role.TEXT, min_length=1, examples=["error"])] | None
    ) = None
    encoding: Encoding | None = None


class TextRead(msgspec.Struct, frozen=True, omit_defaults=True):
    """Lines of a file; `from_line` is the first one's number where it is known, `next_line` where to go on."""

    text: str
    encoding: str = "utf-8"
    byte_order_mark: bool = False
    line_ends: str = "lf"
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
        return await _tail(call, parameters, parameters.tail)
    return await _lines(call, parameters)


async def _lines(call: Call, parameters: ReadTextFile) -> TextRead:
    taken: list[bytes] = []
    numbers: list[int] = []
    looked_at = _BoundedReader(call.guest.files.stream(parameters.path), call.limits.bytes)
    source = _TextSource(looked_at.pieces(), parameters.encoding)
    number, next_line, wanted = 0, None, parameters.search
    async with aclosing(_each_line(source.pieces())) as lines:
        async for line in lines:
            number += 1
            if number >= parameters.from_line and (wanted is None or wanted in line.decode(source.codec, "replace")):
                if len(taken) == parameters.lines:
                    next_line = number
                    break
                taken.append(line)
                numbers.append(number)
    is_part = f"only its first {counted(call.limits.bytes, 'byte was', 'bytes were')} looked at; tail shows the end"
    return msgspec.structs.replace(
        source.show(call, b"".join(taken), is_part if looked_at.has_more else None),
        from_line=numbers[0] if numbers else None, next_line=next_line, line_numbers=numbers if wanted else [],
    )  # fmt: skip


async def _tail(call: Call, parameters: ReadTextFile, lines: int) -> TextRead:
    files, path = call.guest.files, parameters.path
    size = (await files.stat(path)).size
    start = max(0, size - min(PIECE * 4, call.limits.bytes))
    start -= start % 2  # no character of UTF-16 is cut
    first = await _BoundedReader(files.stream(path), LONGEST_MARK).all() if start else None
    end = _BoundedReader(files.stream(path, offset=start), PIECE * 4)
    source = _TextSource(end.pieces(), parameters.encoding, first)
    found = b"".join([piece async for piece in source.pieces()]).splitlines(keepends=True)[-lines:]
    is_short = start > 0 and len(found) < lines
    return source.show(call, b"".join(found), "only the end of the file was looked at" if is_short else None)


class _TextSource:
    """A text file on its way, in an encoding whose line feeds are one byte.

    Args:
        pieces: its bytes.
        encoding: where there is no byte order mark.
        first: its first bytes, where `pieces` begins elsewhere.

    Attributes:
        codec: of the bytes that it gives.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], encoding: str | None, first: bytes | None = None) -> None:
        self._pieces = pieces
        self._form = TextFormat.of(first or b"", encoding)
        self._begins_here = first is None
        self.codec = self._form.encoding

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Its bytes without a byte order mark; UTF-16 becomes UTF-8."""
        decoder = None
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                part = piece
                if self._begins_here:
                    self._begins_here = False
                    self._form = TextFormat.of(piece, self.codec)
                    part = piece.removeprefix(MARKS[self._form.encoding]) if self._form.has_mark else piece
                if self._form.encoding.startswith("utf-16"):
                    decoder = decoder or codecs.getincrementaldecoder(self._form.encoding)("backslashreplace")
                    self.codec, part = "utf-8", decoder.decode(part).encode("utf-8", "backslashreplace")
                else:
                    self.codec = self._form.encoding
                yield part

    def show(self, call: Call, data: bytes, note: str | None) -> TextRead:
        """Lines of it as an answer, and what can't be seen in them."""
        form = TextFormat.of(data, self.codec)
        notes = [note] if note else []
        if not is_text(data, self.codec):
            notes.append(not_text(self.codec))
        if form.line_ends == "mixed":
            notes.append(r"mixed line ends: a carriage return is shown as \r")
        whole = form.decode(data)
        if unseen := [shown for one, shown in written_out(whole).items() if one not in "\r\0"]:
            notes.append(f"characters that can't be seen are shown written out ({', '.join(unseen[:MOST_NAMED])})")
        text, cursor = call.caller.texts.keep_middle(whole, call.limits.characters // 3)
        return TextRead(
            text, encoding=self._form.encoding, byte_order_mark=self._form.has_mark, line_ends=form.line_ends,
            cursor=cursor, note="; ".join(notes) or None,
        )  # fmt: skip


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


class WriteTextFile(GuestParameters, frozen=True, kw_only=True):
    """Parameters of write_text_file."""

    path: Annotated[str, parameter("Path in the guest.", Role.WRITE_PATH, examples=["/var/log/syslog"])]
    content: Annotated[
        str,
        parameter("The whole new text.", Role.CONTENT, max_length=MOST_WRITTEN),
    ]
    backup: Annotated[bool, parameter("Keep the old file beside it.")] = False
    encoding: Encoding | None = None
    overwrite: Annotated[bool, parameter("Keep neither encoding nor line ends of the old file.")] = False


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

    The old file stays until the new one is whole; permissions, encoding, line ends and links are kept.
    """
    path = await _behind_links(call, parameters.path)
    old = await _old(call.guest, path)
    data = _encode(parameters, old)
    backup = f"{path}.{time.strftime('%Y%m%d-%H%M%S')}.bak" if parameters.backup and old else None
    if backup:
        call.allowed.check_write(backup)
    diff = await _diff_shown(call, old, data, path)
    if not call.policy.dry_run:
        if backup and old:
            await call.guest.files.write(backup, old.data, mode=old.mode)
        await call.guest.files.write(path, data)
    return TextWritten(len(data), created=old is None, diff=diff, backup=backup, dry_run=call.policy.dry_run)


async def _behind_links(call: Call, path: str) -> str:
    """The file that a write changes, so that no link is replaced by one.

    Where rules name paths, it was resolved for its check, and is not followed once more.
    """
    return path if call.allowed.write is not None else await call.guest.files.behind_links(path)


def _encode(parameters: WriteTextFile, old: "_Old | None") -> bytes:
    form, content = TextFormat(parameters.encoding or "utf-8"), parameters.content
    if old and not parameters.overwrite:
        form = TextFormat.of(old.data, parameters.encoding)
        if why := reason_to_refuse(form, old.data, content):
            raise Refused(f"{why}; or give overwrite=true to write just this text")
        if form.has_mark:  # it is kept, so that one in the text would be a second one
            content = content.removeprefix("\ufeff")
    try:
        return form.encode(content)
    except UnicodeEncodeError as error:
        letter = sanitize(error.object[error.start])
        raise Refused(f"{form.encoding} has no '{letter}'; give overwrite=true and another encoding") from None


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
        if is_no_such_file(error):
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
    """A diff of bytes: line ends, encoding and a byte order mark are part of it."""
    forms = [TextFormat.of(data) for data in (old, new)]
    before, after = (_lines_of(data, form) for data, form in zip((old, new), forms, strict=True))
    changes = f"{forms[0]} becomes {forms[1]}\n" if old and new and forms[0] != forms[1] else ""
    if max(len(before), len(after)) > MOST_COMPARED:
        return f"{changes}{counted(len(before), 'line was', 'lines were')} replaced by {len(after)}; over {MOST_COMPARED} are not compared"
    text = changes + "\n".join(difflib.unified_diff(before, after, path, path, lineterm=""))
    part, end = beginning(text, 0, LONGEST_DIFF)
    return part if end == len(text) else f"{part}\n… {counted(len(text) - end, 'character')} more"


def _lines_of(data: bytes, form: TextFormat) -> list[str]:
    """Lines without their line feed; carriage returns stay."""
    *lines, rest = data.decode(form.encoding, "backslashreplace").split("\n")
    return [*lines, rest, r"\ No newline at end of file"] if rest else lines


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
    """Copies a file of any size between this side and a guest, checked by SHA-256; links are followed.

    Nothing goes through the conversation.
    """
    local, path = Path(parameters.local), parameters.path
    if parameters.direction == "to_guest":
        return await _to_guest(call, local, path)
    size = (await call.guest.files.stat(path)).size
    _check_size(call, size)
    if call.policy.dry_run:
        return Copied(size, dry_run=True)
    reads = [path] if call.allowed.read is not None else []
    size = await call.guest.files.download(
        path, local, progress=_bounded_progress(call), before_replacing=lambda: verify_unchanged(call.guest, reads)
    )
    return Copied(size)


async def _to_guest(call: Call, local: Path, path: str) -> Copied:
    try:
        size = (await asyncio.to_thread(local.stat)).st_size
    except OSError as error:
        raise LocalFile(call.guest.context, f"{local}: {error.strerror}") from error
    _check_size(call, size)
    if call.policy.dry_run:
        return Copied(size, dry_run=True)
    return Copied(await call.guest.upload(local, await _behind_links(call, path), progress=call.progress))


def _check_size(call: Call, size: int) -> None:
    if size > call.limits.bytes:
        raise Refused(
            f"{counted(size, 'byte is', 'bytes are')} more than the policy lets a call copy ({call.limits.bytes})"
        )


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
