"""What a guest's system does with files, as command lines: a Unix by its shell (`scripts.py`), Windows by PowerShell (`windows.py`).

Above it: `files.py`, `folders.py` and `streams.py`, which run them. Which of the two is meant, a path says.
"""

import ntpath
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from guestwire.client import scripts, windows
from guestwire.client.scripts import Command

_windows_path = re.compile(r"[A-Za-z]:|\\\\")


class Begin(Protocol):
    """See `scripts.begin`."""

    def __call__(self, unfinished: str, path: str, *, keep: bool) -> Command:
        """The command."""
        ...


@dataclass(frozen=True, slots=True)
class System:
    """Command lines for what is done with files; those that have no line here are described in `scripts.py`.

    Attributes:
        temporary: with which paths of files begin that are soon gone.
        split: a path's folder and its last name.
        join: a folder and what is below it.
        append: adds standard input to a file; one that was not there is for its owner alone, where the guest is a Unix.
        size: prints how many bytes a file has.
        add: adds a file to the end of another, and removes it; that fails as a whole.
        remove: removes a file; one that is not there is gone already.
        make_folders: makes folders, and those above them.
        entries: lists a folder: for each of its entries `KIND SIZE MODE TIME PATH` and a NUL.
        tree: the same for all below it, paths relative to it, with slashes; of a Unix, behind each entry and a NUL, where a link leads.
    """

    temporary: str
    split: Callable[[str], tuple[str, str]]
    join: Callable[[str, str], str]
    begin: Begin
    prefix: Callable[[str, int], Command]
    piece: Callable[[str, int], Command]
    put: Callable[[str, str, str, int | None, int | None], Command]
    finish: Callable[[str, str, str, int | None, int | None], Command]
    stat: Callable[[str], Command]
    alias: Callable[[str, str], Command]
    append: Callable[[str], Command]
    size: Callable[[str], Command]
    add: Callable[[str, str], Command]
    remove: Callable[[str], Command]
    make_folders: Callable[[Sequence[str]], Command]
    entries: Callable[[str], Command]
    tree: Callable[[str], Command]

    def beside(self, path: str, name: str) -> str:
        """The path of this name in the same folder."""
        folder, _ = self.split(path)
        return self.join(folder, name) if folder else name


UNIX: Final = System(
    temporary="/tmp/",  # noqa: S108  # what it begins can't be guessed
    split=posixpath.split,
    join=posixpath.join,
    begin=scripts.begin,
    prefix=scripts.prefix,
    piece=scripts.piece,
    put=scripts.put,
    finish=scripts.finish,
    stat=scripts.stat,
    alias=scripts.alias,
    append=scripts.append,
    size=scripts.size,
    add=scripts.add,
    remove=scripts.remove,
    make_folders=scripts.make_folders,
    entries=scripts.entries,
    tree=scripts.tree,
)

WINDOWS: Final = System(
    temporary=windows.TEMPORARY,
    split=ntpath.split,
    join=windows.join,
    begin=windows.begin,
    prefix=windows.prefix,
    piece=windows.piece,
    put=windows.put,
    finish=windows.finish,
    stat=windows.stat,
    alias=windows.alias,
    append=windows.append,
    size=windows.size,
    add=windows.add,
    remove=windows.remove,
    make_folders=windows.make_folders,
    entries=windows.entries,
    tree=windows.tree,
)


def system_of(path: str) -> System:
    r"""The system that a path belongs to: Windows' begin with a drive (`C:\`) or a server (`\\`). Nobody need be asked."""
    return WINDOWS if _windows_path.match(path) else UNIX
