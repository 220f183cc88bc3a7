"""Guest systems: each one's command lines, for processes and for what is done with files.

What a guest is asked to do with files are scripts, in `scripts/unix/*.sh` and `scripts/windows/*.ps1`: one of the
same name for each system, which takes the same arguments, and may run twice. A line `# include: NAME` stands for the
script NAME of the same folder; lines that are comments are not sent. The shell scripts use what POSIX has, and where
it has nothing (permissions and times, SHA-256) what is there: the tools of GNU, busybox or the BSDs. Those for
Windows call .NET, whose methods take paths as they are; PowerShell's own commands are of many versions.

Proxmox VE breaks the agent's JSON with characters above U+00FF: for it a command line is made of ASCII alone
(`as_ascii`).
"""

import base64
import ntpath
import posixpath
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

Command = list[str]
"""The arguments to give to the agent."""

SHELL: Final = "/bin/sh"
POWERSHELL: Final = "powershell.exe"

OTHER_BYTES: Final = 9
"""The exit code of `put` and `finish` when the file is not what it should be."""

NO_TOOL: Final = 127
"""Their exit code where the guest has no tool for SHA-256."""

CAN_NOT_START: Final = 126
"""The exit code where folder or files of a process can't be used, as shells have it."""

HIGHEST_ON_PROXMOX: Final = "\u00ff"

_windows_path = re.compile(r"[A-Za-z]:|\\\\")
_include = re.compile(r"^[ \t]*# include: (\S+)\n", re.MULTILINE)
_comment = re.compile(r"^[ \t]*(?:#.*)?\n", re.MULTILINE)
_digest = re.compile(r"\\?([0-9a-f]{64})\b")


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A command, its folder and variables; `stdin`, `stdout` and `stderr` are paths of files in the guest."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None

    @property
    def is_plain(self) -> bool:
        """True if the agent can run it by itself."""
        return not self.env and not any((self.cwd, self.stdin, self.stdout, self.stderr))


@dataclass(frozen=True, slots=True)
class Attributes:
    """The permissions and time of a file that is written.

    Attributes:
        mode: None: those of the file that stands there, or the guest's own for a new one.
        mtime: seconds since the epoch; None: now.
        for_new: `mode` is for a new file: one that stands there keeps its own.
    """

    mode: int | None = None
    mtime: int | None = None
    for_new: bool = False

    @property
    def octal(self) -> str:
        """The mode as the scripts take it."""
        return "" if self.mode is None else f"{'-' if self.for_new else ''}{self.mode:o}"


class System(ABC):
    """One kind of guest. Paths are the guest's own.

    Every command may run twice, and prints to standard output what it is said to print.

    Attributes:
        temporary: how the paths of files begin that are soon removed.
        keeps_links: whether links, permissions and times of a tree can be made there.
    """

    temporary: str
    keeps_links: bool

    @abstractmethod
    def command(self, spec: CommandSpec) -> Command:
        """The arguments to give to the agent for a process."""

    @abstractmethod
    def split(self, path: str) -> tuple[str, str]:
        """A path's folder and its last name."""

    @abstractmethod
    def join(self, folder: str, name: str) -> str:
        """The path of what is below a folder; `name` may have slashes in it."""

    def beside(self, path: str, name: str) -> str:
        """The path of this name in the same folder."""
        folder, _ = self.split(path)
        return self.join(folder, name) if folder else name

    @abstractmethod
    def script(self, name: str, *arguments: str) -> Command:
        """The command that runs a script of this system with arguments."""

    @abstractmethod
    def timestamp(self, mtime: float | None) -> str:
        """A time as the scripts take it; `mtime` is in seconds since the epoch."""

    def exists(self, pid: int) -> Command:
        """Ends with 0 where a process of this id is there."""
        return self.script("exists", str(pid))

    # Writing

    def create(self, unfinished: str, path: str, *, keep: bool) -> Command:
        """Makes the unfinished file, or with `keep` leaves it as an earlier copy left it; prints its size."""
        return self.script("create", unfinished, path, "keep" if keep else "")

    def write(self, path: str, offset: int) -> Command:
        """Writes standard input at an offset, a multiple of 64 KiB, of a file that is there."""
        return self.script("write", path, str(offset))

    def finish(self, unfinished: str, path: str, digest: str, attributes: "Attributes") -> Command:
        """Puts the unfinished file in its place when its SHA-256 is `digest`; "" stands for any."""
        mode, time = attributes.octal, self.timestamp(attributes.mtime)
        return self.script("finish", unfinished, path, digest, mode, time)

    def put(self, unfinished: str, path: str, digest: str, attributes: "Attributes") -> Command:
        """Makes standard input the file `path`: `create`, `write` and `finish` in one."""
        return self.script("put", unfinished, path, digest, attributes.octal, self.timestamp(attributes.mtime))

    def append(self, path: str) -> Command:
        """Adds standard input to a file; one that was not there is for its owner alone, where the guest is a Unix."""
        return self.script("append", path)

    def concat(self, part: str, path: str) -> Command:
        """Adds a file to the end of another, and removes it; that fails as a whole."""
        return self.script("concat", part, path)

    def remove(self, path: str) -> Command:
        """Removes a file; one that is not there is gone already."""
        return self.script("remove", path)

    # Reading

    def sha256(self, path: str, size: int) -> Command:
        """Prints the SHA-256 of the first bytes of a file; see `digest_in`."""
        return self.script("sha256", path, str(size))

    def stat(self, path: str) -> Command:
        """Prints what stands at a path, links followed: kind (f, d or ?), size, permissions, time."""
        return self.script("stat", path)

    def size(self, path: str) -> Command:
        """Prints how many bytes a file has."""
        return self.script("size", path)

    def link(self, path: str, link: str) -> Command:
        """Makes a link to a path."""
        return self.script("link", path, link)

    # Folders

    def makedirs(self, paths: Sequence[str]) -> Command:
        """Makes folders, and those above them."""
        return self.script("makedirs", *paths)

    def listdir(self, path: str) -> Command:
        """Lists a folder: for each of its entries `KIND SIZE MODE TIME PATH` and a NUL.

        Of a Unix, behind that `UID:GID:OWNER:GROUP:TARGET` (see `scripts/unix/describe.sh`) and a NUL.
        """
        return self.script("listdir", path)

    def walk(self, path: str) -> Command:
        """Lists all below a folder as `listdir` does, paths relative to it, with slashes."""
        return self.script("walk", path)


class UnixSystem(System):
    """Any system with a shell by the standard (POSIX)."""

    temporary = "/tmp/"  # noqa: S108  # what it begins can't be guessed
    keeps_links = True

    def command(self, spec: CommandSpec) -> Command:
        """See `System.command`."""
        line = list(spec.argv)
        if spec.env:
            # `env` takes a program's name with an equals sign for one more variable: a shell starts such a one.
            program = [SHELL, "-c", 'exec "$@"', "sh", *line] if "=" in line[0] else line
            line = ["/usr/bin/env", "--", *(f"{name}={value}" for name, value in spec.env.items()), *program]
        places = (spec.cwd, spec.stdin, spec.stdout, spec.stderr)
        return self.script("start", *(place or "" for place in places), *line) if any(places) else line

    def split(self, path: str) -> tuple[str, str]:
        """See `System.split`."""
        return posixpath.split(path)

    def join(self, folder: str, name: str) -> str:
        """See `System.join`."""
        return posixpath.join(folder, name)

    def script(self, name: str, *arguments: str) -> Command:
        """See `System.script`."""
        return [SHELL, "-c", script_text(f"unix/{name}.sh"), "sh", *arguments]

    def timestamp(self, mtime: float | None) -> str:
        """As `TZ=UTC0 touch -t` takes it."""
        return "" if mtime is None else time.strftime("%Y%m%d%H%M.%S", time.gmtime(mtime))

    def walk(self, path: str) -> Command:
        """See `System.walk`. Where `find` can't print all by itself, it runs a script for the entries."""
        return self.script("walk", path, script_text("unix/walk_entries.sh"))

    # What there is for a Unix alone

    def symlinks(self, links: Sequence[tuple[str, str]]) -> Command:
        """Makes links: for each, where it leads, and its path."""
        return self.script("symlinks", *(word for link in links for word in link))

    def attributes(self, attributes: Sequence[tuple[str, str, str]]) -> Command:
        """Sets permissions and time: for each, permissions (octal), time (see `timestamp`) and path."""
        return self.script("attributes", *(word for one in attributes for word in one))

    def redirect(self, path: str, command: Command) -> Command:
        """A command whose standard output becomes a file."""
        return self.script("redirect", path, *command)

    def interrupt(self, pid: int) -> Command:
        """Sends SIGINT to a process and to those below it."""
        return self.signal(pid, "INT")

    def signal(self, pid: int, name: str) -> Command:
        """Sends a signal, as `kill -s` names it, to a process and to those below it."""
        return self.script("signal", name, str(pid))


class WindowsSystem(System):
    """Windows with PowerShell. Permissions are none of a Unix."""

    temporary = "C:\\Windows\\Temp\\"
    keeps_links = False

    def command(self, spec: CommandSpec) -> Command:
        """See `System.command`.

        PowerShell passes quotes and empty arguments on wrongly: the program is started by .NET, with its command line
        made here. A batch file reads its arguments by rules of its own, which no quoting satisfies: give `cmd /c` and
        one line instead.
        """
        if spec.is_plain and not needs_ascii(spec.argv):
            return list(spec.argv)
        program, *arguments = spec.argv
        places = (spec.cwd, spec.stdin, spec.stdout, spec.stderr)
        variables = (word for variable in spec.env.items() for word in variable)
        words = (program, windows_line(arguments), *(place or "" for place in places), *variables)
        return _powershell("start", words, failing=CAN_NOT_START)

    def split(self, path: str) -> tuple[str, str]:
        """See `System.split`."""
        return ntpath.split(path)

    def join(self, folder: str, name: str) -> str:
        """See `System.join`."""
        return ntpath.join(folder, name.replace("/", "\\"))

    def script(self, name: str, *arguments: str) -> Command:
        """See `System.script`."""
        return _powershell(name, arguments)

    def timestamp(self, mtime: float | None) -> str:
        """In seconds since the epoch."""
        return "" if mtime is None else str(int(mtime))


UNIX: Final = UnixSystem()
WINDOWS: Final = WindowsSystem()


def system_of(path: str) -> UnixSystem | WindowsSystem:
    r"""The system that a path belongs to: Windows' begin with a drive (`C:\`) or a server (`\\`).

    The guest need not be asked.
    """
    return WINDOWS if _windows_path.match(path) else UNIX


# Scripts


def assemble(name: str) -> str:
    """A script with what it includes; `name` is its path below `scripts/`."""
    from importlib.resources import files  # noqa: PLC0415  # few commands run a script, and wait for it

    folder, _, _ = name.rpartition("/")
    text = files("guestwire.agent").joinpath("scripts", name).read_text("utf-8")
    return _include.sub(lambda found: assemble(f"{folder}/{found[1]}"), text)


@cache
def script_text(name: str) -> str:
    """A script as it is sent: without comments."""
    return _comment.sub("", assemble(name))


@cache
def _in_frame(name: str) -> str:
    """A PowerShell script in its frame, which catches errors; arguments (`$a`, `$failing`) come before it."""
    frame = "windows/frame.ps1"
    return _comment.sub("", assemble(frame).replace("# SCRIPT\n", assemble(f"windows/{name}.ps1")))


def _powershell(name: str, arguments: Sequence[str], *, failing: int = 1) -> Command:
    """Runs a script in a Windows guest; sent encoded, so that nothing is quoted twice.

    An error ends it with exit code `failing`.
    """
    words = ", ".join(f"'{text.translate(_QUOTES)}'" for text in arguments)
    whole = f"$a = @({words})\n$failing = {failing}\n{_in_frame(name)}"
    encoded = base64.b64encode(whole.encode("utf-16-le", "surrogatepass")).decode()
    # Without -InputFormat None it would read the standard input that is meant for the script.
    return [
        POWERSHELL, "-NoProfile", "-NonInteractive", "-InputFormat", "None", "-OutputFormat", "Text",
        "-EncodedCommand", encoded,
    ]  # fmt: skip


_QUOTES: Final = {ord(quote): quote * 2 for quote in "'\u2018\u2019\u201a\u201b"}
"""PowerShell takes all of them for an end of a text; two are one that is meant."""


def windows_line(arguments: Sequence[str]) -> str:
    """Arguments as one text, which Windows programs take apart again by the rules of Microsoft's C runtime."""
    from subprocess import list2cmdline  # noqa: PLC0415  # Python's own, and few guests are Windows

    return list2cmdline(arguments)


def digest_in(output: str) -> str | None:
    """The SHA-256 in what a tool printed."""
    found = _digest.match(output)
    return found[1] if found else None


# What an API can carry


def needs_ascii(argv: Sequence[str]) -> bool:
    """True if Proxmox VE would break these arguments."""
    return any(argument and max(argument) > HIGHEST_ON_PROXMOX for argument in argv)


def is_undecodable(text: str) -> bool:
    """True if there are bytes in it that are not UTF-8 (surrogateescape): no API can carry them."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def as_ascii(argv: Sequence[str]) -> Command:
    """The same command line for a Unix guest, in ASCII: a shell makes the bytes again."""
    lines = []
    for number, argument in enumerate(argv, 1):
        octal = "".join(f"\\{byte:03o}" for byte in argument.encode("utf-8", "surrogateescape"))
        lines.append(f"a{number}=$(printf '{octal}x')")
    words = " ".join(f'"${{a{number}%x}}"' for number in range(1, len(argv) + 1))
    return [SHELL, "-c", "; ".join([*lines, f"exec {words}"])]
