"""vsock: an agent in a guest that listens on a port of its own, without a network between.

QEMU has it as a device, and Python as a family of sockets. Cloud Hypervisor and Firecracker have a UNIX socket on the
host instead ("hybrid vsock"), where each connection says first which port of the guest it is for.
"""

import asyncio
import errno
import os
import socket
from typing import Final

from guestwire.addresses import HybridVsockAddress, VsockAddress
from guestwire.channels.budget import ReadBudget
from guestwire.channels.stream import ProtocolFactory, StreamChannel
from guestwire.channels.unix import connected_socket

GREETING_WITHIN: Final = 5.0
"""Seconds; a VM that is paused answers nothing."""

LONGEST_GREETING: Final = 64
"""Bytes of `OK PORT` at most."""


class VsockChannel(StreamChannel):
    """Must be made where an event loop runs, and closed; as `UnixChannel`."""

    def __init__(self, address: VsockAddress, guest: str, *, budget: ReadBudget | None = None) -> None:
        async def connect(factory: ProtocolFactory) -> None:
            family = getattr(socket, "AF_VSOCK", None)
            if family is None:
                raise OSError("this system's Python knows no vsock")
            sock = socket.socket(family, socket.SOCK_STREAM)
            await _connect(sock, (address.cid, address.port), factory)

        super().__init__(connect, guest, budget=budget)


class HybridVsockChannel(StreamChannel):
    """Must be made where an event loop runs, and closed; as `UnixChannel`."""

    def __init__(self, address: HybridVsockAddress, guest: str, *, budget: ReadBudget | None = None) -> None:
        async def connect(factory: ProtocolFactory) -> None:
            sock = connected_socket(address.path)
            try:
                async with asyncio.timeout(GREETING_WITHIN):
                    await _choose_port(sock, address)
            except TimeoutError:
                sock.close()
                raise ConnectionError(f"{address}: no answer in {GREETING_WITHIN:g} seconds") from None
            except BaseException:
                sock.close()
                raise
            await asyncio.get_running_loop().create_unix_connection(factory, sock=sock)

        super().__init__(connect, guest, budget=budget)


async def _connect(sock: socket.socket, address: tuple[int, int], factory: ProtocolFactory) -> None:
    """By hand: uvloop takes whatever is no UNIX socket for TCP, and looks the address up as a host's name."""
    loop = asyncio.get_running_loop()
    try:
        sock.setblocking(False)  # noqa: FBT003
        if (error := sock.connect_ex(address)) == errno.EINPROGRESS:
            writable = asyncio.Event()
            loop.add_writer(sock, writable.set)
            try:
                await writable.wait()
            finally:
                loop.remove_writer(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        sock.close()
        raise
    if error:
        sock.close()
        raise OSError(error, os.strerror(error))
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sock.detach())
    await loop.create_unix_connection(factory, sock=stream)


async def _choose_port(sock: socket.socket, address: HybridVsockAddress) -> None:
    """Source: Firecracker's and Cloud Hypervisor's documentation of vsock.

    Raises:
        ConnectionError: nobody listens on the port, which ends the connection, or the answer is another one.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, f"CONNECT {address.port}\n".encode())
    answer = b""
    while not answer.endswith(b"\n"):
        # One byte at a time: what follows the line is the agent's.
        byte = await loop.sock_recv(sock, 1)
        if not byte:
            raise ConnectionError(f"{address}: nobody listens on this port of the guest")
        answer += byte
        if len(answer) > LONGEST_GREETING:
            raise ConnectionError(f"{address}: this is no hybrid vsock: it answers {answer[:16]!r}")
    if not answer.startswith(b"OK "):
        raise ConnectionError(f"{address}: port refused: {answer.strip()[:32]!r}")
