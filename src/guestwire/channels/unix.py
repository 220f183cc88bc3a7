"""A UNIX socket: QEMU's virtio-serial chardev, or a guest agent that listens itself."""

import asyncio
import socket
from pathlib import Path

from guestwire.channels.budget import ReadBudget
from guestwire.channels.stream import ProtocolFactory, StreamChannel


class UnixChannel(StreamChannel):
    """Must be made where an event loop runs, and closed.

    Args:
        path: the socket.
        guest: how messages name the guest, for example `VM 100`.
        budget: see `StreamChannel`.
    """

    def __init__(self, path: Path, guest: str, *, budget: ReadBudget | None = None) -> None:
        async def connect(factory: ProtocolFactory) -> None:
            await asyncio.get_running_loop().create_unix_connection(factory, sock=connected_socket(path))

        super().__init__(connect, guest, budget=budget)


def is_served(path: Path) -> bool | None:
    """True if a program listens on the socket; None where it may not be opened."""
    try:
        connected_socket(path).close()
    except ConnectionError as error:
        match error.__cause__:
            case BlockingIOError():  # so many wait for it already
                return True
            case PermissionError():
                return None
        return False
    return True


def connected_socket(path: Path) -> socket.socket:
    """On a UNIX socket that takes no time, so a full backlog (EAGAIN) is an error; asyncio's own connecting takes it for success.

    Raises:
        OSError: there is no socket, or nobody listens; the text begins with the path.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(0)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise ConnectionError(f"{path}: {error.strerror or error}") from error
    return sock
