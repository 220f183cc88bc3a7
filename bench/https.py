"""The smallest HTTPS client that keeps its connection: a request written in one piece, an answer read to its length.

It blocks, for an event loop would add its own time to every call.
"""

import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.errors import BenchError

NODE: Final = "bench"
TIMEOUT: Final = 60.0

_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service is, and what it takes to be let in."""

    port: int
    token: str
    certificate: Path

    def request(self, method: str, vmid: int, call: str, *headers: str) -> bytes:
        """The bytes that ask for `call` (`ping`, `file-read?file=/root/x`) below the VM's agent."""
        more = "".join(f"{header}\r\n" for header in headers)
        return (
            f"{method} /api2/json/nodes/{NODE}/qemu/{vmid}/agent/{call} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: PVEAPIToken={self.token}\r\n{more}\r\n"
        ).encode()

    def ping(self, vmid: int) -> bytes:
        """The bytes that ask for a ping."""
        return self.request("POST", vmid, "ping")


class Https:
    """One connection, open from the beginning; `with` closes it."""

    def __init__(self, address: Address) -> None:
        context = ssl.create_default_context(cafile=address.certificate)
        plain = socket.create_connection(("127.0.0.1", address.port), TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname="127.0.0.1")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """For epoll."""
        return self._socket.fileno()

    def call(self, request: bytes) -> bytes | bytearray:
        """Sends `request`; returns the answer's body."""
        self.send(request)
        return self.receive()

    def send(self, request: bytes) -> None:
        """Sends `request` and does not wait."""
        self._socket.sendall(request)

    def receive(self) -> bytes | bytearray:
        """The body of the next answer.

        Raises:
            BenchError: its status is not 200.
        """
        data = self._some()
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._some()
        found = _length.search(data, 0, end)
        if not data.startswith(b"HTTP/1.1 200 ") or not found:
            raise BenchError(f"the service answered: {data[:200].decode('latin-1')}")
        body = data[end + 4 :]
        length = int(found[1])
        return body if len(body) == length else self._rest(body, length)

    def _rest(self, begin: bytes, length: int) -> bytearray:
        body = bytearray(length)
        body[: len(begin)] = begin
        view = memoryview(body)
        have = len(begin)
        while have < length:
            got = self._socket.recv_into(view[have:])
            if not got:
                raise BenchError("the service hung up")
            have += got
        return body

    def _some(self) -> bytes:
        data = self._socket.recv(16384)
        if not data:
            raise BenchError("the service hung up")
        return data
