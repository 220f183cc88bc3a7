"""The fake guest does what its description says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from guestwire.testing import CLOSE, FakeGuest, Fault, faults
from guestwire.testing.fake import CommandError, Exchange

HOST_NAME = b'{"return": {"host-name": "fake"}, "id": 1}\n'


class Line:
    """A connection to an agent, a line at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, name: str, number: int | None = 1, **arguments: object) -> Any:
        self.send(name, number, **arguments)
        return json.loads(await self.line())

    def send(self, name: str, number: int | None = 1, **arguments: object) -> None:
        request: dict[str, Any] = {"execute": name} | ({"arguments": arguments} if arguments else {})
        self.writer.write(json.dumps(request | ({} if number is None else {"id": number})).encode() + b"\n")

    async def line(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readline()

    async def is_silent(self) -> bool:
        """Whether nothing comes, for a short while."""
        try:
            async with asyncio.timeout(0.1):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@contextlib.asynccontextmanager
async def line_to(path: Path) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def line(guest: FakeGuest) -> AsyncIterator[Line]:
    async with line_to(guest.path) as line:
        yield line


async def test_a_sync_is_answered_behind_the_byte_0xff_and_ids_are_echoed(line: Line) -> None:
    line.send("guest-sync-delimited", 7, id=42)

    assert await line.line() == b'\xff{"return": 42, "id": 7}\n'


async def test_an_agent_may_be_one_that_echoes_no_ids(line: Line, guest: FakeGuest) -> None:
    guest.echoes_ids = False

    assert await line.ask("guest-ping", 5) == {"return": {}}


async def test_a_byte_0xff_clears_what_came_before_and_is_complained_about_once(line: Line, guest: FakeGuest) -> None:
    line.writer.write(b'{"execute": "guest-sh\xff')
    line.send("guest-ping")

    assert json.loads(await line.line())["error"]["class"] == "GenericError"
    assert json.loads(await line.line()) == {"return": {}, "id": 1}
    assert guest.names() == ["guest-ping"]


async def test_replies_can_be_set_as_values_functions_and_errors(line: Line, guest: FakeGuest) -> None:
    def refuse(_: object) -> None:
        raise CommandError("GenericError", "no")

    guest.replies = {"value": [1, 2], "function": lambda arguments: arguments["a"], "error": refuse}

    assert await line.ask("value") == {"return": [1, 2], "id": 1}
    assert await line.ask("function", 2, a="b") == {"return": "b", "id": 2}
    assert await line.ask("error", 3) == {"error": {"class": "GenericError", "desc": "no"}, "id": 3}


async def test_mute_commands_get_no_answer(line: Line, guest: FakeGuest) -> None:
    line.send("guest-shutdown")

    assert await line.is_silent()
    assert guest.names() == ["guest-shutdown"]


async def test_an_answer_can_be_delayed(line: Line, guest: FakeGuest) -> None:
    guest.delay["guest-ping"] = 3600
    line.send("guest-ping")

    assert await line.is_silent()
    assert guest.names() == ["guest-ping"]


async def test_what_was_received_is_remembered_in_order(line: Line, guest: FakeGuest) -> None:
    line.send("guest-sync-delimited", 1, id=3)
    await line.line()
    await line.ask("guest-ping", 2)
    await line.ask("guest-get-host-name", 3)

    assert guest.received == [
        {"execute": "guest-sync-delimited", "id": 1, "arguments": {"id": 3}},
        {"execute": "guest-ping", "id": 2},
        {"execute": "guest-get-host-name", "id": 3},
    ]
    assert guest.names() == ["guest-ping", "guest-get-host-name"]


async def test_it_serves_one_client_at_a_time(line: Line, guest: FakeGuest) -> None:
    await line.ask("guest-ping")
    async with line_to(guest.path) as second:
        second.send("guest-ping")
        assert await second.is_silent()
        line.writer.close()

        assert json.loads(await second.line()) == {"return": {}, "id": 1}


async def test_it_serves_all_at_once_when_told_to(line: Line, guest: FakeGuest) -> None:
    guest.concurrent = True
    async with line_to(guest.path) as first, line_to(guest.path) as second:
        assert (await first.ask("guest-ping"), await second.ask("guest-ping")) == ({"return": {}, "id": 1},) * 2
        assert await line.ask("guest-ping")


async def test_handles_that_are_open_are_known(line: Line, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray(b"abc")
    handle = (await line.ask("guest-file-open", path="/f"))["return"]

    assert list(guest.open_handles) == [handle]
    await line.ask("guest-file-close", handle=handle)
    assert not guest.open_handles


async def test_what_is_no_base64_is_refused_in_the_agents_words(line: Line, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray()
    handle = (await line.ask("guest-file-open", path="/f"))["return"]
    refused = await line.ask("guest-file-write", None, **{"handle": handle, "buf-b64": "é"})

    assert refused["error"] == {"class": "GenericError", "desc": "Base64 data contains invalid characters"}
    assert (await line.ask("guest-file-write", None, **{"handle": handle, "buf-b64": "aGk="}))["return"]["count"] == 2


async def test_stopping_hangs_up_and_starting_serves_again(folder: Path) -> None:
    async with FakeGuest(folder / "qga") as guest, line_to(guest.path) as line:
        await line.ask("guest-ping")
        await guest.stop()
        assert await line.line() == b""
        assert not guest.path.exists()

        await guest.start()
        async with line_to(guest.path) as again:
            assert await again.ask("guest-ping") == {"return": {}, "id": 1}


# Faults

FAULTS: dict[str, tuple[Fault, bytes]] = {
    "says": (faults.says(b"hello\n"), b"hello\n"),
    "garbage": (faults.garbage(), b"hello, this is not JSON\n"),
    "floods": (faults.floods(b"ab", 3), b"ababab"),
    "nests": (faults.nests(2), b'{"return": [[]], "id": 1}\n'),
    "wrong_ids": (faults.wrong_ids(2), b'{"return": {}, "id": 3}\n'),
    "half_line": (faults.half_line(), HOST_NAME[: len(HOST_NAME) // 2]),
    "twice": (faults.twice(), HOST_NAME * 2),
}


@pytest.mark.parametrize(("fault", "sent"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_sends_what_it_says_and_no_more(line: Line, guest: FakeGuest, fault: Fault, sent: bytes) -> None:
    guest.fault = fault
    line.send("guest-get-host-name")

    async with asyncio.timeout(10):
        assert await line.reader.readexactly(len(sent)) == sent
    assert await line.is_silent()


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"garbage"}))
async def test_a_faults_syncs_are_answered_honestly(line: Line, guest: FakeGuest, name: str) -> None:
    guest.fault = FAULTS[name][0]
    line.send("guest-sync-delimited", 1, id=5)

    assert await line.line() == b'\xff{"return": 5, "id": 1}\n'


async def test_a_silent_guest_answers_nothing(line: Line, guest: FakeGuest) -> None:
    guest.fault = faults.silent()
    line.send("guest-sync-delimited", 1, id=5)
    line.send("guest-ping", 2)

    assert await line.is_silent()
    assert len(guest.received) == 2


async def test_a_hanging_guest_answers_syncs_until_its_first_command(line: Line, guest: FakeGuest) -> None:
    guest.fault = faults.hangs()
    line.send("guest-sync-delimited", 1, id=5)
    assert await line.line() == b'\xff{"return": 5, "id": 1}\n'

    line.send("guest-ping", 2)
    line.send("guest-sync-delimited", 3, id=6)
    assert await line.is_silent()


@pytest.mark.parametrize("position", [0, 1, 20, len(HOST_NAME)])
async def test_a_guest_can_hang_up_at_any_byte(line: Line, guest: FakeGuest, position: int) -> None:
    guest.fault = faults.closes_at(position)
    line.send("guest-get-host-name")

    async with asyncio.timeout(10):
        assert await line.reader.read() == HOST_NAME[:position]


async def test_a_guest_can_hang_up_when_it_is_synced(line: Line, guest: FakeGuest) -> None:
    guest.fault = faults.closes_on_sync()
    assert await line.ask("guest-ping") == {"return": {}, "id": 1}
    line.send("guest-sync-delimited", 1, id=5)

    assert await line.line() == b""


async def test_a_fault_of_ones_own_sees_number_request_and_honest_reply(line: Line, guest: FakeGuest) -> None:
    seen: list[Exchange] = []

    def fault(exchange: Exchange) -> list[Any]:
        seen.append(exchange)
        return [*exchange.honest, CLOSE] if exchange.number else exchange.honest

    guest.fault = fault
    await line.ask("guest-ping", 1)
    await line.ask("guest-ping", 2)

    assert await line.line() == b""
    assert [(exchange.number, exchange.is_sync, exchange.reply) for exchange in seen] == [
        (0, False, b'{"return": {}, "id": 1}\n'),
        (1, False, b'{"return": {}, "id": 2}\n'),
    ]
