"""Where the fake guest answers, it answers as a real agent does: the same questions to both."""

import asyncio
import base64
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guestwire.channels import UnixChannel
from guestwire.errors import AgentError, GuestError
from guestwire.testing import FakeGuest, SandboxedAgent
from guestwire.wire import Command

CONTENT = bytes(range(256)) * 20


@dataclass
class Asked:
    """An agent, of one kind or the other, and a file that it has."""

    socket: Path
    channel: UnixChannel
    folder: str

    async def __call__(self, name: str, **arguments: object) -> Any:
        command = Command(name, timeout=10.0)
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        return msgspec.json.decode(await self.channel.execute(command, given))

    async def refusal(self, name: str, **arguments: object) -> tuple[str, str]:
        """The class and description of its error."""
        with pytest.raises(AgentError) as error:
            await self(name, **arguments)
        return error.value.error_class, error.value.description.replace(self.folder, "FOLDER")

    async def open(self, name: str = "f", mode: str = "r") -> int:
        return int(await self("guest-file-open", path=f"{self.folder}/{name}", mode=mode))

    async def content(self, name: str) -> bytes:
        handle = await self.open(name)
        found = await self("guest-file-read", handle=handle, count=100_000)
        await self("guest-file-close", handle=handle)
        return base64.b64decode(found["buf-b64"])


@contextlib.asynccontextmanager
async def fake() -> AsyncIterator[tuple[Path, str]]:
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        async with FakeGuest(Path(name) / "fake.qga", files={"/guest/f": bytearray(CONTENT)}) as guest:
            guest.replies["guest-get-host-name"] = {"host-name": "guest100"}
            yield guest.path, "/guest"


@contextlib.asynccontextmanager
async def real(agent: SandboxedAgent) -> AsyncIterator[tuple[Path, str]]:
    (agent.home / "f").write_bytes(CONTENT)
    yield agent.socket, "/root"


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.agent)])
async def asked(request: pytest.FixtureRequest, agent: SandboxedAgent) -> AsyncIterator[Asked]:
    async with fake() if request.param == "fake" else real(agent) as (socket, folder):
        channel = UnixChannel(socket, "VM 100")
        yield Asked(socket, channel, folder)
        await channel.close()


async def test_ping_and_host_name(asked: Asked) -> None:
    assert await asked("guest-ping") == {}
    assert await asked("guest-get-host-name") == {"host-name": "guest100"}


async def test_a_sync_returns_its_number(asked: Asked) -> None:
    await asked("guest-ping")

    assert asked.channel.state.value == "up"


async def test_an_unknown_command(asked: Asked) -> None:
    kind, text = await asked.refusal("guest-none")

    assert (kind, text) == ("CommandNotFound", "The command guest-none has not been found")


async def test_a_file_is_read_in_pieces_to_its_end(asked: Asked) -> None:
    handle = await asked.open()
    pieces = [await asked("guest-file-read", handle=handle, count=2000) for _ in range(4)]

    assert [(piece["count"], piece["eof"]) for piece in pieces] == [
        (2000, False),
        (2000, False),
        (1120, True),
        (0, True),
    ]
    assert b"".join(base64.b64decode(piece["buf-b64"]) for piece in pieces) == CONTENT
    assert await asked("guest-file-close", handle=handle) == {}


async def test_a_read_of_exactly_the_rest_does_not_see_the_end(asked: Asked) -> None:
    handle = await asked.open()

    assert (await asked("guest-file-read", handle=handle, count=len(CONTENT)))["eof"] is False
    assert (await asked("guest-file-read", handle=handle, count=1))["eof"] is True
    await asked("guest-file-close", handle=handle)


async def test_without_a_count_4096_bytes_are_read(asked: Asked) -> None:
    handle = await asked.open()

    assert (await asked("guest-file-read", handle=handle))["count"] == 4096
    await asked("guest-file-close", handle=handle)


async def test_a_seek_moves_the_position(asked: Asked) -> None:
    handle = await asked.open()

    assert await asked("guest-file-seek", handle=handle, offset=5000, whence=0) == {"position": 5000, "eof": False}
    assert base64.b64decode((await asked("guest-file-read", handle=handle, count=50))["buf-b64"]) == CONTENT[5000:5050]
    await asked("guest-file-close", handle=handle)


async def test_what_is_written_can_be_read(asked: Asked) -> None:
    handle = await asked.open("new", "wb")
    for part in (b"one", b"two"):
        assert await asked("guest-file-write", handle=handle, buf_b64=base64.b64encode(part).decode()) == {
            "count": 3,
            "eof": False,
        }
    await asked("guest-file-close", handle=handle)

    assert await asked.content("new") == b"onetwo"


async def test_opening_for_writing_empties_the_file(asked: Asked) -> None:
    for _ in range(2):
        await asked("guest-file-close", handle=await asked.open("emptied", "w"))

    assert await asked.content("emptied") == b""


async def test_handles_are_numbers_that_never_come_again(asked: Asked) -> None:
    handles = []
    for _ in range(5):
        handles.append(await asked.open())
        await asked("guest-file-close", handle=handles[-1])

    assert handles == sorted(set(handles))


async def test_a_file_that_is_not_there(asked: Asked) -> None:
    kind, text = await asked.refusal("guest-file-open", path=f"{asked.folder}/none", mode="r")

    assert (kind, text) == ("GenericError", "failed to open file 'FOLDER/none' (mode: 'r'): No such file or directory")


@pytest.mark.parametrize("name", ["guest-file-read", "guest-file-close", "guest-file-seek", "guest-file-write"])
async def test_a_handle_that_is_not_open(asked: Asked, name: str) -> None:
    more: dict[str, object] = {"guest-file-seek": {"offset": 0, "whence": 0}, "guest-file-write": {"buf_b64": ""}}.get(
        name, {}
    )  # type: ignore[assignment]  # two kinds of values

    assert await asked.refusal(name, handle=3, **more) == ("GenericError", "handle '3' has not been found")


async def test_commands_sent_ahead_are_answered_in_order(asked: Asked) -> None:
    answers = await asyncio.gather(*(asked("guest-ping") for _ in range(50)), asked("guest-get-host-name"))

    assert answers == [{}] * 50 + [{"host-name": "guest100"}]


async def test_the_next_client_finds_it_ready_when_one_left_half_a_line(asked: Asked) -> None:
    await asked("guest-ping")
    await asked.channel.close()
    _, writer = await asyncio.open_unix_connection(asked.socket)
    writer.write(b'{"execute": "guest-pi')
    await writer.drain()
    writer.close()
    channel = UnixChannel(asked.socket, "VM 100")
    try:
        async with asyncio.timeout(10):
            while not await pings(channel):
                await asyncio.sleep(0.05)
    finally:
        await channel.close()


async def pings(channel: UnixChannel) -> bool:
    try:
        return await channel.execute(Command("guest-ping", repeatable=True)) == b"{}"
    except GuestError:
        return False
