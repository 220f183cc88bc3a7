"""A guest that speaks the guest agent's real bytes on a UNIX socket, and can do what a real one never should.

As the real agent, it serves one client at a time, answers in order, echoes ids, begins the answer to
guest-sync-delimited with 0xFF, and complains once about a 0xFF it was sent. A `Fault` stands between a request and its
answer (`faults.py` has them).
"""

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

LIMIT: Final = 64 * 1024 * 1024
STRAY: Final = {"error": {"class": "GenericError", "desc": "JSON parse error, stray '\ufffd'"}}


class Close(Enum):
    """Instead of more bytes: hang up."""

    CLOSE = "close"


CLOSE: Final = Close.CLOSE

Action = bytes | Close


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, its number on this connection (from 0), and the honest reply as bytes (None: no reply)."""

    number: int
    request: dict[str, Any]
    reply: bytes | None

    @property
    def is_sync(self) -> bool:
        """True if it is a guest-sync-delimited."""
        return self.request.get("execute") == "guest-sync-delimited"

    @property
    def honest(self) -> list[Action]:
        """The actions of an honest agent."""
        return [self.reply] if self.reply is not None else []


Fault = Callable[[Exchange], Iterable[Action]]
"""Turns an exchange into what is sent; `exchange.honest` is no fault at all."""


def honest(exchange: Exchange) -> Iterable[Action]:
    """No fault."""
    return exchange.honest


class CommandError(Exception):
    """The fake agent's own error: class and description."""


@dataclass(slots=True)
class _Open:
    path: str
    position: int = 0


@dataclass
class FakeGuest:
    """`async with` serves it at `path`.

    Attributes:
        path: the socket.
        fault: see `Fault`; may be changed at any time.
        echoes_ids: as agents do; False for one that does not.
        concurrent: serve every connection at once, as no agent does.
        replies: answers to commands, by name: a value, or a function of the arguments.
        no_reply: commands that get no answer.
        delay: seconds before each answer, by command.
        files: the guest's files.
        received: every request, in order.
        open_handles: file handles that were opened and not closed.
    """

    path: Path
    fault: Fault = honest
    echoes_ids: bool = True
    concurrent: bool = False
    replies: dict[str, Any] = field(default_factory=dict)
    no_reply: set[str] = field(default_factory=lambda: {"guest-shutdown", "guest-suspend-ram", "guest-suspend-disk"})
    delay: dict[str, float] = field(default_factory=dict)
    files: dict[str, bytearray] = field(default_factory=dict)
    received: list[dict[str, Any]] = field(default_factory=list)
    open_handles: dict[int, _Open] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._handles = itertools.count(1000)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begins to listen."""
        self._server = await asyncio.start_unix_server(self._serve_connection, self.path, limit=LIMIT)

    async def stop(self) -> None:
        """Closes the socket and every connection, as if the agent had ended."""
        if self._server:
            self._server.close()
        await self.kill()
        self.path.unlink(missing_ok=True)

    async def kill(self) -> None:
        """Ends every connection at once, as if the agent had been killed and started again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def pause(self) -> None:
        """Stops where it is: it reads and answers nothing."""
        self._goes_on.clear()

    def resume(self) -> None:
        """Goes on."""
        self._goes_on.set()

    @property
    def connections(self) -> int:
        """How many clients are connected, those that wait for their turn counted in."""
        return len(self._tasks)

    def names(self) -> list[str]:
        """The names of the commands that were received, syncs left out."""
        return [str(request["execute"]) for request in self.received if request["execute"] != "guest-sync-delimited"]

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101  # start_unix_server runs this in a task
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                async with contextlib.nullcontext() if self.concurrent else self._turn:
                    await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        numbers = itertools.count()
        while line := await reader.readline():
            if b"\xff" in line:
                line = line.rpartition(b"\xff")[2]
                writer.write(_line(STRAY))
            if not line.strip():
                continue
            await self._goes_on.wait()
            request = json.loads(line)
            self.received.append(request)
            await asyncio.sleep(self.delay.get(request["execute"], 0))
            for action in self.fault(Exchange(next(numbers), request, self._reply(request))):
                if isinstance(action, Close):
                    return
                writer.write(action)
                await writer.drain()

    def _reply(self, request: dict[str, Any]) -> bytes | None:
        name, arguments = request["execute"], request.get("arguments", {})
        if name in self.no_reply:
            return None
        try:
            reply: dict[str, Any] = {"return": self._execute(name, arguments)}
        except CommandError as error:
            reply = {"error": {"class": error.args[0], "desc": error.args[1]}}
        if self.echoes_ids and "id" in request:
            reply["id"] = request["id"]
        return (b"\xff" if name == "guest-sync-delimited" else b"") + _line(reply)

    def _execute(self, name: str, arguments: dict[str, Any]) -> Any:
        if name in self.replies:
            reply = self.replies[name]
            return reply(arguments) if callable(reply) else reply
        known: dict[str, Callable[[], Any]] = {
            "guest-sync-delimited": lambda: arguments["id"],
            "guest-sync": lambda: arguments["id"],
            "guest-ping": dict,
            "guest-get-host-name": lambda: {"host-name": "fake"},
            "guest-file-open": lambda: self._open(arguments["path"], arguments.get("mode", "r")),
            "guest-file-read": lambda: self._read(arguments["handle"], arguments.get("count", 4096)),
            "guest-file-write": lambda: self._write(arguments["handle"], _decoded(arguments["buf-b64"])),
            "guest-file-seek": lambda: self._seek(arguments["handle"], arguments["offset"]),
            "guest-file-close": lambda: self._close(arguments["handle"]),
        }
        if name not in known:
            raise CommandError("CommandNotFound", f"The command {name} has not been found")
        return known[name]()

    def _open(self, path: str, mode: str) -> int:
        if mode.startswith("w"):
            self.files[path] = bytearray()
        if path not in self.files:
            raise CommandError(
                "GenericError", f"failed to open file '{path}' (mode: '{mode}'): No such file or directory"
            )
        handle = next(self._handles)
        self.open_handles[handle] = _Open(path)
        return handle

    def _handle(self, handle: int) -> _Open:
        if handle not in self.open_handles:
            raise CommandError("GenericError", f"handle '{handle}' has not been found")
        return self.open_handles[handle]

    def _read(self, handle: int, count: int) -> dict[str, Any]:
        found = self._handle(handle)
        data = bytes(self.files[found.path][found.position : found.position + count])
        found.position += len(data)
        return {"count": len(data), "buf-b64": base64.b64encode(data).decode(), "eof": len(data) < count}

    def _write(self, handle: int, data: bytes) -> dict[str, Any]:
        found = self._handle(handle)
        self.files[found.path][found.position :] = data
        found.position += len(data)
        return {"count": len(data), "eof": False}

    def _seek(self, handle: int, offset: int) -> dict[str, Any]:
        self._handle(handle).position = offset
        return {"position": offset, "eof": False}

    def _close(self, handle: int) -> dict[str, Any]:
        self._handle(handle)
        del self.open_handles[handle]
        return {}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        raise CommandError("GenericError", "Base64 data contains invalid characters") from None


def _line(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode() + b"\n"
