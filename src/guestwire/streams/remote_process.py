"""The seam between what uses a program that runs in a guest and the ways its bytes take there and back.

A carrier gives a `RemoteProcess`; the server's WebSocket, the Python client and the command line take one, and can't tell
carriers apart.
"""

import signal
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

STDOUT: Final = 1
STDERR: Final = 2
Output = Literal[1, 2]
"""The number of an output, as a shell has it. A terminal has only the first."""

MOST_AT_ONCE: Final = 64 * 1024
"""Bytes that `receive` gives at most, and that users of `send` should give it at most, at once."""


class WindowSize(NamedTuple):
    """The size of a terminal, in characters."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program ended; one of the two is set.

    Attributes:
        code: its exit code.
        signal: the number of the signal that ended it.
    """

    code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What is to be started.

    Attributes:
        argv: program and arguments; no shell is between.
        tty: the window, where it gets a terminal; None: three pipes.
        env: more variables.
        cwd: its working directory in the guest.
        user: the guest's user it runs as; None: the agent's own.
        merge: standard error goes where standard output goes.
        input: it has a standard input; without, that ends at once.
        connection: it serves one connection on its standard streams, as `sshd -i` does. The end of its input is that of the
            connection, and so of its output; what it writes to standard error may come when it has ended, and that is when
            none of what it has started writes there any more; its end by a signal may be an exit code of 128 and more.
            Where it can be, it gets a port at once.
    """

    argv: tuple[str, ...]
    tty: WindowSize | None = None
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    user: str | None = None
    merge: bool = False
    input: bool = True
    connection: bool = False


class RemoteProcess(Protocol):
    """A program in a guest whose bytes go both ways. Every method may be called while others wait; each output has one reader.

    A method that finds the stream broken raises `StreamBroken`, which says what became of the program.

    Attributes:
        pid: its id in the guest.
        way: how its bytes go: `port`, `agent`, `api`, or `server`; for messages, may change while it runs.
    """

    pid: int
    way: str

    async def send(self, data: bytes) -> None:
        """Writes to its standard input; waits while the guest does not take it.

        Raises:
            BrokenPipeError: it reads no more.
        """
        ...

    async def send_eof(self) -> None:
        """Ends its standard input, after what was sent. Once more is nothing."""
        ...

    async def receive(self, output: Output) -> bytes:
        """What comes next on an output, as soon as there is something; `b""` at its end, and then always."""
        ...

    async def resize(self, size: WindowSize) -> None:
        """Tells its terminal how large the window is; where it has none, nothing."""
        ...

    async def kill(self, number: signal.Signals) -> None:
        """Sends it, and what it started, a signal; once it has ended, nothing."""
        ...

    async def wait(self) -> Exit:
        """Waits for its end, not for that of its outputs; any number of callers, and again later."""
        ...

    async def leave(self) -> None:
        """Lets it run on without its stream: its input ends, and what it writes from now on is lost. Instead of `close`.

        A terminal and a connection by a port can't be left: this is `close` then.
        """
        ...

    async def close(self) -> None:
        """Ends it (SIGHUP, then SIGKILL) where it still runs, and leaves nothing of the stream in the guest or on the host."""
        ...
