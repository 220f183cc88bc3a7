"""The agent's own socket, used as directly as can be: what the service is compared with."""

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from bench.errors import BenchError
from guestwire.wire import encode_command, encode_sync
from guestwire.wire.frames import SENTINEL

PING: Final = encode_command(1, "guest-ping", {})
OSINFO: Final = encode_command(1, "guest-get-osinfo", {})

IN_FLIGHT: Final = 4
"""Commands ahead of their replies: two to four give the highest rate."""

TIMEOUT: Final = 60.0
HUNG_UP: Final = "the agent hung up"
BUFFER: Final = 1024 * 1024


class _Piece(msgspec.Struct):
    """What guest-file-read returns; msgspec decodes the base64."""

    content: bytes = msgspec.field(name="buf-b64")
    eof: bool


class _Reply(msgspec.Struct):
    value: msgspec.Raw = msgspec.field(name="return")


class AgentSocket:
    """One connection, synchronised when it opens; `with` closes it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb", BUFFER)
        self._socket.sendall(encode_sync(1))
        while not self._line().startswith(SENTINEL):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()

    def call(self, command: bytes) -> bytes:
        """Sends one command; returns the line that answers it."""
        self._socket.sendall(command)
        return self._line()

    def read_file(self, path: str, piece: int) -> bytes:
        """A whole file, `piece` bytes a command."""
        handle = self.ask("guest-file-open", {"path": path, "mode": "r"}, int)
        command = encode_command(1, "guest-file-read", {"handle": handle, "count": piece})
        pieces = []
        while True:
            read = self._decode(self.call(command), _Piece)
            pieces.append(read.content)
            if read.eof:
                break
        self.ask("guest-file-close", {"handle": handle}, Any)
        return b"".join(pieces)

    def write_file(self, path: str, content: bytes, piece: int) -> None:
        """A whole file, `piece` bytes a command."""
        handle = self.ask("guest-file-open", {"path": path, "mode": "wb"}, int)
        for start in range(0, len(content), piece):
            self.ask("guest-file-write", {"handle": handle, "buf-b64": content[start : start + piece]}, Any)
        self.ask("guest-file-close", {"handle": handle}, Any)

    def ping_rate(self, seconds: float) -> float:
        """Pings a second with `IN_FLIGHT` of them ahead."""
        self._socket.sendall(PING * IN_FLIGHT)
        done = 0
        began = now = time.perf_counter()
        while now < began + seconds:
            data = self._socket.recv(65536)
            if not data:
                raise BenchError(HUNG_UP)
            answered = data.count(b"\n")
            self._socket.sendall(PING * answered)
            done += answered
            now = time.perf_counter()
        for _ in range(IN_FLIGHT):
            self._line()
        return done / (now - began)

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line:
            raise BenchError(HUNG_UP)
        return line

    def ask(self, name: str, arguments: dict[str, Any], shape: Any) -> Any:
        """What a command returns, in this shape."""
        return self._decode(self.call(encode_command(1, name, arguments)), shape)

    def _decode(self, line: bytes, shape: Any) -> Any:
        return msgspec.json.decode(msgspec.json.decode(line, type=_Reply).value, type=shape)
