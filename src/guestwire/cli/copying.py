"""`guestwire cp` and `edit`: files of any size, to a guest and back."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from guestwire.cli.asking import confirm
from guestwire.cli.connecting import guest_and_path, on_guest, on_host, path_argument
from guestwire.cli.output import examples, json_option, note, to_json
from guestwire.cli.terminal import writer
from guestwire.cli.units import size
from guestwire.errors import GuestwireError, RequestError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from guestwire.agent.systems import System
    from guestwire.client import Guest, Host
    from guestwire.client.folders import TreeCopy

STANDARD: Final = "-"
INCOMPLETE: Final = 3
"""The exit code when files of a folder could not be copied; a note says which, and why."""

PIECE: Final = 1024 * 1024
EDITORS: Final = ("VISUAL", "EDITOR")
VI: Final = "vi"
"""The editor that every Unix has, where these name none."""

_of_guest = re.compile(r"(?:[^/:]+|[0-9A-Za-z-]+/[0-9]{1,9}):")

Progress = Callable[[int, int | None], None]


class EditorFailed(GuestwireError):
    """The editor can't be started, or did not end well."""

    def __init__(self, editor: str, why: str) -> None:
        super().__init__(f"the editor '{editor}' {why}; nothing was changed in the guest")


@click.command(
    "cp",
    epilog=examples(
        "guestwire cp site.tar web:/srv/site.tar",
        "guestwire cp web:/var/log/syslog .",
        "guestwire cp -r etc/ web:/etc/app",
        "guestwire cp web:/etc/app.conf db:/etc/app.conf",
        "tar -c . | guestwire cp - web:/tmp/all.tar",
    ),
)
@click.argument(
    "sources", metavar="SRC...", help="Paths, GUEST:PATH, or - for standard input.", nargs=-1, required=True
)
@click.argument("target", metavar="DST", help="A path, GUEST:PATH, or - for standard output.")
@click.option("--recursive", "-r", help="Copy folders with what is in them.", is_flag=True)
@json_option
@click.pass_context
def copy(context: click.Context, sources: tuple[str, ...], target: str, *, recursive: bool, json: bool) -> None:
    """Copy files to a guest, from it, or from one to another.

    With -r, the content of the folder SRC is copied into the folder DST, which is made if it is missing. Several SRC go
    into the folder DST, each under its own name.

    A copy is checked by its SHA-256, and appears under its name when it is whole: an interrupted copy leaves the old
    file as it was. When a copy was killed, or lost its connection, the same command continues where it stopped. A link
    that is SRC is followed, a link that is DST is replaced; links in folders stay links. What goes from one guest to
    another is on no disk of this machine, and begins anew when it was interrupted.
    """
    targets = [target] if len(sources) == 1 else [_place_in(target, source) for source in sources]
    for source in sources:
        if not (_is_of_guest(source) or _is_of_guest(target)) or not source or not target:
            raise click.BadParameter("SRC or DST must be GUEST:PATH, or both, and neither may be empty.")
    if json and target == STANDARD:
        raise click.BadParameter("Standard output is either for the file or for JSON.")
    from guestwire.client.folders import TreeCopy  # noqa: PLC0415  # with the rest of the client

    copied = TreeCopy()
    for source, place in zip(sources, targets, strict=True):
        with _bar() as progress:
            copied += _copy(context, source, place, recursive, progress)
    for left_out, why in copied.left_out:
        note(f"left out: {left_out}: {why}")
    if json:
        print(
            to_json({"files": copied.files, "bytes": copied.bytes, "left_out": [path for path, _ in copied.left_out]})
        )
    if copied.failed:
        raise click.exceptions.Exit(INCOMPLETE)


def _place_in(folder: str, source: str) -> str:
    """The place of one of several sources: its own name in the folder that is their target."""
    path = source.partition(":")[2] if _is_of_guest(source) else source.rstrip("/")
    name = _name(path.rstrip("/")) if _is_of_guest(source) else Path(path).name
    if STANDARD in (source, folder) or name in ("", ".", ".."):
        raise click.BadParameter(f"'{source}' can't be one of several SRC: copy it alone, and name its place.")
    if not _is_of_guest(folder):
        if not _is_folder(Path(folder)):
            raise click.BadParameter(f"Several SRC need a folder as DST: '{folder}' is none on this machine.")
        return str(Path(folder) / name)
    guest, path = guest_and_path(folder)
    return f"{guest}:{_system(path).join(path, name)}"


def _copy(context: click.Context, source: str, target: str, recursive: bool, progress: Progress) -> "TreeCopy":  # noqa: FBT001
    if _is_of_guest(source) and _is_of_guest(target):
        places = guest_and_path(source), guest_and_path(target)
        return on_host(context, lambda host: _copy_between(host, *places, recursive, progress))
    move = _download if _is_of_guest(source) else _upload
    name, path = guest_and_path(source if _is_of_guest(source) else target)
    local = target if _is_of_guest(source) else source
    return on_guest(context, name, lambda guest: move(guest, path, local, recursive, progress))


def _is_of_guest(text: str) -> bool:
    """True for `GUEST:PATH` and `NODE/VMID:PATH`.

    A path of this machine that has a colon is written with a slash before it (`./a:b`).
    """
    return bool(_of_guest.match(text))


async def _upload(guest: "Guest", path: str, local: str, recursive: bool, progress: Progress) -> "TreeCopy":  # noqa: FBT001
    if local == STANDARD:
        return _one(await guest.files.write(path, _standard_input(), progress=progress))
    source = Path(local)
    if recursive and _is_folder(source):
        return await guest.folders.upload(source, path, progress=progress)
    there = path if _name(path) else _system(path).join(path, source.name)
    return _one(await guest.files.upload(source, there, progress=progress))


async def _download(guest: "Guest", path: str, local: str, recursive: bool, progress: Progress) -> "TreeCopy":  # noqa: FBT001
    if local == STANDARD:
        return _one(await _to_standard_output(guest, path))
    target = Path(local)
    if recursive and await guest.folders.is_folder(path):
        return await guest.folders.download(path, target, progress=progress)
    if local.endswith("/") and not _is_folder(target):
        raise RequestError(f"{local}: there is no such folder on this machine")
    here = target / _name(path) if _is_folder(target) else target
    return _one(await guest.files.download(path, here, progress=progress))


async def _copy_between(
    host: "Host",
    source: tuple[str, str],
    target: tuple[str, str],
    recursive: bool,  # noqa: FBT001
    progress: Progress,
) -> "TreeCopy":
    from guestwire.client.transfer.between_guests import copy_file  # noqa: PLC0415  # with the rest of the client

    (name, path), (other, there) = source, target
    if host.is_local and name != other:
        raise RequestError(f"{host.name} is one guest, and {name} and {other} are two; name a server as the host")
    here, away = await host.guest(name), await host.guest(other)
    if recursive and await here.folders.is_folder(path):
        return await here.folders.copy_to(path, away.folders, there, progress=progress)
    place = there if _name(there) else _system(there).join(there, _name(path))
    return _one(await copy_file(here.files, path, away.files, place, progress=progress))


def _system(path: str) -> "System":
    from guestwire.agent.systems import system_of  # noqa: PLC0415  # with the rest of the client

    return system_of(path)


def _name(path: str) -> str:
    """The last part of a guest's path; none where that ends with a folder's slash."""
    return _system(path).split(path)[1]


def _one(count: int) -> "TreeCopy":
    from guestwire.client.folders import TreeCopy  # noqa: PLC0415  # with the rest of the client

    return TreeCopy(1, count)


def _is_folder(path: Path) -> bool:
    return path.is_dir()


async def _standard_input() -> AsyncIterator[bytes]:
    """Reads standard input in daemon threads: a read that never returns must not delay the end after Ctrl-C."""
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    loop = asyncio.get_running_loop()
    while True:
        read: asyncio.Future[bytes] = loop.create_future()
        threading.Thread(target=_read, args=(loop, read), daemon=True).start()
        if not (piece := await read):
            return
        yield piece


def _read(loop: "AbstractEventLoop", read: "Future[bytes]") -> None:
    try:
        tell, found = read.set_result, os.read(sys.stdin.fileno(), PIECE)
    except OSError as error:
        tell, found = read.set_exception, error  # type: ignore[assignment]
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(lambda: None if read.done() else tell(found))


async def _to_standard_output(guest: "Guest", path: str) -> int:
    size = 0
    write = writer(sys.stdout)
    async for piece in guest.files.stream(path):
        write(piece)
        size += len(piece)
    write(b"")
    return size


@contextmanager
def _bar() -> Iterator[Progress]:
    """Shows on a terminal how much is done; says everywhere when a copy goes on where an earlier one stopped."""
    if not sys.stderr.isatty():
        yield _Resumption()
        return
    from rich.console import Console  # noqa: PLC0415  # only who sees it waits for it
    from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TransferSpeedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (BarColumn(), TaskProgressColumn(), DownloadColumn(), TransferSpeedColumn())
    resumption = _Resumption()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("copy", total=None)

        def tell(done: int, total: int | None) -> None:
            resumption(done, total)
            bar.update(task, completed=done, total=total)

        yield tell


class _Resumption:
    """Says it once, at the beginning."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, done: int, total: int | None) -> None:
        if not self._begun and done and done != total:
            note(f"goes on where an earlier copy stopped, after {size(done)}")
        self._begun = True


@click.command(
    "edit", epilog=examples("guestwire edit web:/etc/hosts", "EDITOR='code --wait' guestwire edit web:/etc/motd")
)
@path_argument
@click.option("--yes", help="Do not ask when the file changed meanwhile.", is_flag=True)
@click.pass_context
def edit(context: click.Context, path: str, *, yes: bool) -> None:
    """Edit a guest's file in your own editor.

    The editor is what VISUAL or EDITOR names, or vi. A link is followed. When the edited file can't be written back, it
    is kept on this machine.
    """
    name, given = guest_and_path(path)
    editor = next((os.environ[variable] for variable in EDITORS if os.environ.get(variable)), "")
    if not editor and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("edit needs a terminal, or an editor that needs none in EDITOR.")
    file = on_guest(context, name, lambda guest: guest.files.behind_links(given))
    before = on_guest(context, name, lambda guest: guest.files.read(file))
    after = _edited(before, _name(file), editor or VI)
    if after == before:
        note("nothing was changed")
        return
    with _kept(after, _name(file)):
        if on_guest(context, name, lambda guest: guest.files.read(file)) != before:
            confirm(f"{path} changed in the guest meanwhile. Write yours over it?", yes=yes)
        on_guest(context, name, lambda guest: guest.files.write(file, after))


def _edited(content: bytes, name: str, editor: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="guestwire-") as folder:
        local = Path(folder) / name
        local.write_bytes(content)
        try:
            code = subprocess.run([*_words(editor), str(local)], check=False).returncode
        except OSError as error:
            raise EditorFailed(editor, f"can't be started: {error.strerror}; name another in EDITOR") from error
        if code:
            raise EditorFailed(editor, f"ended with exit status {code}" if code > 0 else f"was ended by signal {-code}")
        try:
            return local.read_bytes()
        except FileNotFoundError as error:
            raise EditorFailed(editor, "left no file behind") from error


def _words(editor: str) -> list[str]:
    """The editor's command line, taken apart as a shell would."""
    try:
        words = shlex.split(editor)
    except ValueError as error:
        raise EditorFailed(editor, "is no command line: a quotation mark is left open, or a \\ ends it") from error
    if not words or not words[0]:
        raise EditorFailed(editor, "is no command line: it names no program; name one in EDITOR")
    return words


@contextmanager
def _kept(content: bytes, name: str) -> Iterator[None]:
    """Keeps what was written in a file of this machine when something fails."""
    try:
        yield
    except BaseException:
        local = Path(tempfile.mkdtemp(prefix="guestwire-")) / name
        local.write_bytes(content)
        note(f"what you wrote is kept in {local}")
        raise
