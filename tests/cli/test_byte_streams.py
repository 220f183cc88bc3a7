"""Bytes between two ends, where the one in the guest can't be told that no more comes."""

import asyncio
import socket

import pytest

from guestwire.cli import byte_streams
from guestwire.cli.byte_streams import SocketEnd, carry


class Deaf(SocketEnd):
    """As a connection that bash made."""

    can_write_eof = False


async def test_silence_behind_the_end_of_the_input_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_streams, "LINGER", 0.5)
    pairs = socket.socketpair(), socket.socketpair()
    (client, client_writer), (here, here_writer), (guest, guest_writer), (server, server_writer) = [
        await asyncio.open_connection(sock=one) for pair in pairs for one in pair
    ]

    async def answer() -> None:
        assert await server.readexactly(5) == b"hello"
        for _ in range(4):  # longer than the silence, together
            server_writer.write(b"x")
            await asyncio.sleep(0.2)

    client_writer.write(b"hello")
    client_writer.write_eof()
    async with asyncio.timeout(20):
        answering = asyncio.create_task(answer())
        await carry(SocketEnd(here, here_writer), Deaf(guest, guest_writer), until_guest_ends=False)
        await answering
        here_writer.close()
        assert await client.read() == b"xxxx"

    for writer in (client_writer, guest_writer, server_writer):
        writer.close()
