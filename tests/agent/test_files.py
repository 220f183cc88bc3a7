import asyncio
import base64
import os
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import until

from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.files import PIECE, decode_leniently, decoded_size
from guestwire.agent.guest import GuestAgent
from guestwire.channels import UnixChannel
from guestwire.channels.qmp import Monitor
from guestwire.channels.qmp_ports import QmpPorts
from guestwire.errors import AgentError, CommandFailed, GuestError
from guestwire.testing import FakeGuest, SandboxedAgent

MANY = 2**30


async def test_reads_a_whole_file(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray(os.urandom(3 * PIECE + 7))
    contents = await fake_agent.files.read("/f", count=MANY)

    assert b"".join(contents.pieces) == guest.files["/f"]
    assert not contents.truncated
    assert contents.size == 3 * PIECE + 7


@pytest.mark.parametrize(
    ("offset", "count", "expected", "truncated"),
    [(0, 3, b"012", True), (4, 3, b"456", True), (8, 5, b"89", False), (8, 2, b"89", True), (100, 5, b"", False)],
)
async def test_reads_a_part(
    fake_agent: GuestAgent, guest: FakeGuest, offset: int, count: int, expected: bytes, truncated: bool
) -> None:
    guest.files["/f"] = bytearray(b"0123456789")
    contents = await fake_agent.files.read("/f", offset=offset, count=count)

    assert (b"".join(contents.pieces), contents.truncated) == (expected, truncated)


async def test_a_guest_that_gives_less_than_asked_is_asked_again(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray(range(200))
    give = guest._read
    guest.replies["guest-file-read"] = lambda arguments: (
        give(arguments["handle"], min(arguments["count"], 30)) | {"eof": False}
    )

    contents = await fake_agent.files.read("/f", count=100)

    assert b"".join(contents.pieces) == bytes(range(100))


async def test_a_guest_that_gives_more_than_asked_is_not_believed(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray(10)
    guest.replies["guest-file-read"] = {"count": 5, "buf-b64": "AAAAAAA=", "eof": True}

    with pytest.raises(CommandFailed, match="5 bytes where 2 were asked for"):
        await fake_agent.files.read("/f", count=2)


@pytest.mark.parametrize(
    "answer",
    ["text", None, {"count": 3}, {"count": 3, "buf-b64": "?", "eof": False}, {"count": 3, "buf-b64": 3, "eof": 1}],
)
async def test_an_answer_of_another_shape_is_an_error(fake_agent: GuestAgent, guest: FakeGuest, answer: object) -> None:
    guest.files["/f"] = bytearray(10)
    guest.replies["guest-file-read"] = answer

    with pytest.raises(CommandFailed, match="unexpected answer"):
        await fake_agent.files.read("/f", count=100)
    await until(lambda: not guest.open_handles)


async def test_writes_all_of_it_also_when_the_guest_takes_a_little_at_a_time(
    fake_agent: GuestAgent, guest: FakeGuest
) -> None:
    take = guest._write
    guest.replies["guest-file-write"] = lambda arguments: take(
        arguments["handle"], base64.b64decode(arguments["buf-b64"])[:7]
    )
    await fake_agent.files.write("/f", bytes(range(100)))

    assert guest.files["/f"] == bytes(range(100))


async def test_a_guest_that_takes_nothing_is_an_error_that_says_what_is_missing(
    fake_agent: GuestAgent, guest: FakeGuest
) -> None:
    guest.replies["guest-file-write"] = {"count": 0, "eof": False}

    with pytest.raises(AgentError, match="5 bytes are missing in '/f'"):
        await fake_agent.files.write("/f", b"12345")
    await until(lambda: not guest.open_handles)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5000])
@pytest.mark.parametrize("wrap", [False, True])
async def test_base64_that_is_taken_a_little_at_a_time_is_written_whole(
    fake_agent: GuestAgent, guest: FakeGuest, size: int, wrap: bool
) -> None:
    data = os.urandom(size)
    content = base64.encodebytes(data) if wrap else base64.b64encode(data)
    take = guest._write
    guest.replies["guest-file-write"] = lambda arguments: take(
        arguments["handle"], decode_leniently(arguments["buf-b64"])[:1000]
    )
    await fake_agent.files.write_encoded("/f", content.decode())

    assert guest.files["/f"] == data


@pytest.mark.parametrize("count", [-1, 6, 2**62])
async def test_a_count_that_can_not_be_is_an_error(fake_agent: GuestAgent, guest: FakeGuest, count: int) -> None:
    guest.replies["guest-file-write"] = {"count": count, "eof": False}

    for writing in (fake_agent.files.write("/f", b"12345"), fake_agent.files.write_encoded("/f", "MTIzNDU=")):
        with pytest.raises(CommandFailed, match=f"{count} bytes written of 5"):
            await writing
    await until(lambda: not guest.open_handles)


async def test_bytes_and_their_number_must_agree(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray(10)
    guest.replies["guest-file-read"] = {"count": 2, "buf-b64": "AAAA", "eof": True}

    with pytest.raises(CommandFailed, match="3 bytes, and its count is 2"):
        await fake_agent.files.read("/f", count=100)


async def test_a_seek_to_another_place_is_an_error(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray(10)
    guest.replies["guest-file-seek"] = {"position": 3, "eof": False}

    with pytest.raises(CommandFailed, match="position 3 where 4 was asked for"):
        await fake_agent.files.read("/f", offset=4, count=1)
    with pytest.raises(CommandFailed, match="position 3 where 4 was asked for"):
        await fake_agent.files.write_piece("/f", "AAAA", 3, at=4)
    assert guest.files["/f"] == bytes(10)


async def test_an_empty_file_is_written_too(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    await fake_agent.files.write("/f", b"")

    assert guest.files["/f"] == b""


async def test_a_handle_is_closed_when_its_reader_goes_away(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray(10 * PIECE)
    guest.delay["guest-file-read"] = 0.05
    reading = asyncio.create_task(fake_agent.files.read("/f", count=MANY))
    await until(lambda: bool(guest.open_handles))
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading

    await until(lambda: not guest.open_handles)


async def test_a_handle_is_closed_when_its_number_comes_late(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    await fake_agent.files.write("/f", b"")
    guest.delay["guest-file-open"] = 0.2
    reading = asyncio.create_task(fake_agent.files.read("/f", count=1))
    await until(lambda: guest.names().count("guest-file-open") == 2)
    reading.cancel()

    await until(lambda: guest.names().count("guest-file-close") == 2)
    assert not guest.open_handles


@pytest.mark.parametrize("has_ports", [False, True])
async def test_closing_the_agent_waits_for_handles_that_are_just_being_closed(
    channel: UnixChannel, guest: FakeGuest, folder: Path, has_ports: bool
) -> None:
    """In the agent they would stay open until that ends."""
    guest.files["/f"] = bytearray(10)
    monitor = Monitor(folder / "none.qmp", "VM 100", None, None)
    agent = GuestAgent(channel, "VM 100", ExitStatusCache(), QmpPorts(monitor, "VM 100") if has_ports else None)
    (await agent.files.open("/f", "r")).close()

    await agent.close()
    await monitor.close()

    assert guest.names() == ["guest-file-open", "guest-file-close"]
    assert not guest.open_handles


async def test_closing_the_agent_ends_what_is_still_under_way(fake_agent: GuestAgent, guest: FakeGuest) -> None:
    guest.fault = lambda exchange: [] if exchange.request["execute"] == "guest-file-read" else exchange.honest
    guest.files["/f"] = bytearray(10)
    reading = asyncio.create_task(fake_agent.files.read("/f", count=1))
    await until(lambda: "guest-file-read" in guest.names())
    await fake_agent.close()

    with pytest.raises((GuestError, asyncio.CancelledError)):
        await reading


@pytest.mark.agent
async def test_a_real_guests_file_is_read_and_written(real_agent: GuestAgent, agent: SandboxedAgent) -> None:
    content = os.urandom(2**20 + 1)
    await real_agent.files.write("/root/f", content)
    contents = await real_agent.files.read("/root/f", count=MANY)

    assert b"".join(contents.pieces) == content == await asyncio.to_thread((agent.home / "f").read_bytes)


@pytest.mark.agent
@pytest.mark.parametrize(
    "content",
    ["", "a", "YQ", "YWI", "YQ==", "YWI=", "YWJj", "YWJjZ", "YW\nJj\nZA==\n", "YQ==YWJj", "YW=j", "Y===", "====", "a=b=", "/+9="],
)  # fmt: skip
async def test_base64_is_decoded_as_a_real_agent_does(
    real_agent: GuestAgent, agent: SandboxedAgent, content: str
) -> None:
    await real_agent.files.write_encoded("/root/f", content)

    assert await asyncio.to_thread((agent.home / "f").read_bytes) == decode_leniently(content)
    assert decoded_size(content) == len(decode_leniently(content))


@pytest.mark.agent
async def test_what_is_no_base64_is_the_real_agents_error(real_agent: GuestAgent) -> None:
    with pytest.raises(AgentError, match="Base64"):
        await real_agent.files.write_encoded("/root/f", "?!")


@pytest.mark.agent
async def test_after_errors_no_handle_is_open_in_a_real_guest(real_agent: GuestAgent, agent: SandboxedAgent) -> None:
    (agent.home / "dir").mkdir(exist_ok=True)
    with pytest.raises(AgentError):
        await real_agent.files.read("/root/dir", count=10)
    with pytest.raises(AgentError):
        await real_agent.files.write_encoded("/root/f", "no base64")
    await real_agent.files.write("/root/g", bytes(8 * PIECE))
    for _ in range(5):
        reading = asyncio.create_task(real_agent.files.read("/root/g", count=MANY))
        await asyncio.sleep(0.003)
        reading.cancel()
    with pytest.raises(AgentError):
        await real_agent.files.read("/root/g", offset=2**63 - 1, count=10)

    await until(lambda: not agent.handles())


@pytest.mark.agent
async def test_a_handle_is_closed_when_a_real_agent_was_stopped_and_goes_on(
    real_agent: GuestAgent, agent: SandboxedAgent
) -> None:
    await real_agent.files.write("/root/g", bytes(20 * PIECE))
    reading = asyncio.create_task(real_agent.files.read("/root/g", count=MANY))
    await until(lambda: agent.handles() == ["/root/g"])
    agent.pause()
    reading.cancel()
    await asyncio.wait([reading])
    assert agent.handles() == ["/root/g"]
    agent.resume()

    await until(lambda: not agent.handles(), within=10)


@pytest.mark.agent
@pytest.mark.parametrize("ends_with_agent", [False, True])
async def test_a_handle_whose_number_comes_while_all_is_closed_stays_in_no_real_agent(
    agent: SandboxedAgent, ends_with_agent: bool
) -> None:
    (agent.home / "g").write_bytes(b"here")
    channel = UnixChannel(agent.socket, "VM 100")
    typed = GuestAgent(channel, "VM 100", ExitStatusCache())
    await typed.files.read("/root/g", count=1)
    reading = typed.files.read("/root/g", count=1)
    agent.pause()
    caller = typed.spawn(reading) if ends_with_agent else asyncio.create_task(reading)
    await until(lambda: channel.link.in_flight == 1)
    if not ends_with_agent:
        caller.cancel()
    await typed.close()
    closing = asyncio.create_task(channel.close())
    await asyncio.sleep(0)  # it has begun
    agent.resume()
    await closing
    await asyncio.gather(caller, return_exceptions=True)

    assert agent.handles() == []


@pytest.mark.agent
async def test_an_open_handle_would_be_seen(real_agent: GuestAgent, agent: SandboxedAgent) -> None:
    """The check above can fail."""
    await real_agent.files.write("/root/g", bytes(20 * PIECE))
    reading = asyncio.create_task(real_agent.files.read("/root/g", count=MANY))
    await until(lambda: agent.handles() == ["/root/g"])
    await reading
