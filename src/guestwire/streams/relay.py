"""The relay in the guest (`agent/scripts/unix/stream.sh`), as the host sees it: how it is started, and why it was not."""

import re
import shlex
from collections.abc import Sequence
from typing import Final, NamedTuple

from guestwire.agent.systems import UNIX, Command, CommandSpec, script_text
from guestwire.errors import AgentError, GuestError
from guestwire.streams.remote_process import Output, StreamRequest

FOLDERS: Final = ("/run", "/dev/shm", "/tmp", "/var/tmp")  # noqa: S108  # the folder in it is for its owner alone
"""Where the relay makes a folder of its own: the first that it may write in."""

_name = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_by_env = re.compile(r"PATH|IFS|ENV|PPID|E?UID|OPTIND|BASH.*|SHELLOPTS|HOME|SHELL|USER|LOGNAME|(?:LD|PYTHON).*")
"""Variables that mean something to what starts the program (a shell, su, script): `env` sets them last. They hold no secrets."""

_mark = re.compile(rb"\x1e([0-9a-f-]{36}) (p?)\n")

FEW: Final = 300
"""Bytes that go as text: the relay's shell has them without another process."""

FEW_READS, MANY_READS = 4, 16
"""Reads of an output that make one part of a file, by one process: what goes over to a port does so behind one."""

NO_TERMINAL: Final = (
    "no terminal can be had: the guest has neither `script` (package bsdutils or util-linux) nor Python"
)
NO_FILES: Final = "no stream can be had: its agent does not allow all that is done with files"
REASONS: Final = {
    92: "no stream can be had: the guest has no folder that its agent may write in, of /run, /dev/shm, /tmp and /var/tmp",
    94: NO_TERMINAL,
    95: "no stream can be had: the guest lacks mkfifo, od, su, or a dd that knows iflag=fullblock",
}
"""Why there is no stream, by the exit code of the script."""

NO_USER, NO_FOLDER, NOT_EXECUTABLE, NOT_FOUND = 93, 96, 126, 127


def folders_of(stream: str) -> Sequence[str]:
    """Where the folder of the stream with this id may be."""
    return [f"{folder}/guestwire-stream-{stream}" for folder in FOLDERS]


def file_of(output: Output, number: int) -> str:
    """The name of a file of an output."""
    return f"{output}.{number}"


def input_frame(number: int, data: bytes) -> bytes:
    """Bytes of input, as the relay takes them; `number` grows."""
    if len(data) <= FEW:
        return b"t %d %s\n" % (number, b"".join(b"\\%03o" % byte for byte in data))
    return b"i %d %d\n" % (number, len(data)) + data


class RelayMark(NamedTuple):
    """What the file of a relay's mark holds.

    Attributes:
        digits: see `MarkScanner`.
        by_port: the program's terminal has its port.
    """

    digits: str
    by_port: bool


def mark_in(content: bytes) -> RelayMark | None:
    """The mark, in what its file holds; None: not all of it is there yet."""
    found = _mark.fullmatch(content)
    return RelayMark(found[1].decode(), bool(found[2])) if found else None


def starting(request: StreamRequest, stream: str, *, reads: int, port: str = "") -> Command:
    """The command that starts the relay of the stream with this id, and becomes the program; `port` is for its terminal."""
    size = f"{request.tty.rows} {request.tty.columns}" if request.tty else ""
    ours = {name: value for name, value in request.env if _name.fullmatch(name) and not _by_env.fullmatch(name)}
    others = {name: value for name, value in request.env if name not in ours}
    environment = "".join(f" {name}={shlex.quote(value)}" for name, value in ours.items())
    flags = "m" * request.merge + "n" * (not request.input)
    return UNIX.script(
        "stream", stream, script_text("unix/relay.sh"), size, request.user or "", flags,
        request.cwd or "", str(reads), request.argv[0], environment and f"export{environment}", port,
        *UNIX.command(CommandSpec(request.argv, others)),
    )  # fmt: skip


def clearing(folder: str) -> Command:
    """The command that clears a stream's folder where its relay was killed."""
    return UNIX.script("end_relay", folder)


def refusal(guest: str, request: StreamRequest, code: int | None) -> GuestError:
    """Why nothing was started, by the script's exit code; a program that can't be is refused as the agent itself does."""
    if code in (NOT_FOUND, NOT_EXECUTABLE):
        why = "No such file or directory" if code == NOT_FOUND else "Permission denied"
        return AgentError("GenericError", f'Failed to execute child process "{request.argv[0]}" ({why})')
    if code == NO_FOLDER:
        return AgentError("GenericError", f'Failed to change to directory "{request.cwd}" (No such file or directory)')
    if code == NO_USER:
        return AgentError("GenericError", f'Failed to run as "{request.user}" (no such user)')
    return GuestError(f"{guest}: {REASONS.get(code or 0, f'its shell ended with exit code {code} before it began')}")
