import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from waiting import until, until_succeeds

from guestwire.channels import ChannelState, GuestEvent, UnixChannel
from guestwire.channels.link import MAX_WAITING, Phase
from guestwire.errors import AgentError, AgentNotRunning, CommandFailed, CommandTimeout, GuestError
from guestwire.testing import CLOSE, Exchange, FakeGuest, Fault, faults
from guestwire.testing.fake import Action
from guestwire.wire import Command, Reply

PING = Command("guest-ping", repeatable=True)
CHANGE = Command("guest-set-time")
SHUTDOWN = Command("guest-shutdown", answers=False)
OPEN = Command("guest-file-open", timeout=0.2)


async def test_a_call_connects_syncs_and_returns_the_json_behind_return(channel: UnixChannel, guest: FakeGuest) -> None:
    assert json.loads(await channel.execute(Command("guest-get-host-name"))) == {"host-name": "fake"}
    assert [request["execute"] for request in guest.received] == ["guest-sync-delimited", "guest-get-host-name"]
    assert channel.state is ChannelState.UP


async def test_what_is_overdue_is_done_on_uvloop_too(guest: FakeGuest) -> None:
    """Its handle of a time that has come already does not say when that was."""

    async def overdue() -> None:
        channel = UnixChannel(guest.path, "VM 100")
        for wake_at in (0.0, -1.0):
            channel.link.wake_at = wake_at
            channel._schedule()
        await channel.execute(PING)
        await channel.close()

    await asyncio.to_thread(uvloop.run, overdue())


async def test_one_connection_serves_many_calls(channel: UnixChannel, guest: FakeGuest) -> None:
    for _ in range(20):
        await channel.execute(PING)

    assert sum(request["execute"] == "guest-sync-delimited" for request in guest.received) == 1


async def test_the_agents_error_is_handed_on_as_it_is(channel: UnixChannel) -> None:
    with pytest.raises(AgentError) as caught:
        await channel.execute(Command("guest-frobnicate"))

    assert (caught.value.error_class, caught.value.description) == (
        "CommandNotFound",
        "The command guest-frobnicate has not been found",
    )


async def test_calls_at_once_are_all_answered_in_order(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.replies["echo"] = lambda arguments: arguments["n"]
    answers = await asyncio.gather(*(channel.execute(Command("echo"), {"n": number}) for number in range(200)))

    assert [int(answer) for answer in answers] == list(range(200))


async def test_a_command_that_says_nothing_on_success_travels_alone(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.fault = lambda exchange: [CLOSE] if exchange.request["execute"] == "guest-shutdown" else exchange.honest
    results = await asyncio.gather(*(channel.execute(command) for command in (PING, PING, SHUTDOWN, PING, PING)))

    assert results == [b"{}", b"{}", b"null", b"{}", b"{}"]


async def test_a_command_that_says_nothing_on_success_is_done_when_its_time_is_up(channel: UnixChannel) -> None:
    assert await channel.execute(Command("guest-suspend-ram", answers=False, timeout=0.1)) == b"null"
    assert await channel.execute(PING) == b"{}"


@pytest.mark.parametrize("event", [GuestEvent.SUSPENDED, GuestEvent.STOPPED])
async def test_qmp_tells_that_such_a_command_is_done(channel: UnixChannel, guest: FakeGuest, event: GuestEvent) -> None:
    call = asyncio.create_task(channel.execute(Command("guest-suspend-ram", answers=False, timeout=60)))
    await until(lambda: "guest-suspend-ram" in guest.names())
    channel.notify(event)

    assert await asyncio.wait_for(call, 5) == b"null"


async def test_such_a_command_may_still_fail(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.no_reply.clear()

    with pytest.raises(AgentError, match="has not been found"):
        await channel.execute(SHUTDOWN)


async def test_a_command_that_reads_is_sent_again_when_the_agent_hung_up(
    channel: UnixChannel, guest: FakeGuest
) -> None:
    guest.fault = hangs_up_once()

    assert await channel.execute(PING) == b"{}"
    assert guest.names() == ["guest-ping", "guest-ping"]


async def test_a_command_that_changes_is_never_sent_twice(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.fault = hangs_up_once()

    with pytest.raises(CommandFailed, match="VM 100 qga command 'guest-set-time' failed"):
        await channel.execute(CHANGE)
    assert guest.names() == ["guest-set-time"]
    assert await channel.execute(PING) == b"{}"


async def test_a_command_that_reads_is_not_sent_a_third_time(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.fault = faults.closes_at(0)

    with pytest.raises(CommandFailed):
        await channel.execute(PING)
    assert guest.names() == ["guest-ping", "guest-ping"]


def hangs_up_once() -> Fault:
    """Hangs up on the first command, and is honest from then on."""
    commands: list[Exchange] = []

    def fault(exchange: Exchange) -> Iterable[Action]:
        commands.append(exchange)
        return [CLOSE] if len(commands) == 1 else exchange.honest

    return faults.on_commands(fault)


async def test_a_command_has_its_own_time_out(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.replies["guest-set-time"] = {}
    await channel.execute(PING)
    guest.pause()

    with pytest.raises(CommandTimeout, match="VM 100 qga command 'guest-set-time' failed - got timeout"):
        await channel.execute(Command("guest-set-time", timeout=0.1))
    guest.resume()
    await until_succeeds(lambda: channel.execute(PING))


async def test_bytes_of_a_long_answer_extend_the_time(channel: UnixChannel, guest: FakeGuest) -> None:
    """That it is done with the right times is shown with a clock in test_link.py; here, that bytes of a socket count."""
    release = asyncio.Event()
    await channel.execute(PING)

    async def go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'\xff{"return": %d, "id": %d}\n' % ((channel.link._session.next_id - 1,) * 2))
        request = json.loads(await reader.readline())
        writer.write(b'{"return": "')
        while not release.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.01)  # a byte now and then
        writer.write(b'", "id": %d}\n' % request["id"])
        await reader.read()
        writer.close()

    await guest.stop()
    server = await asyncio.start_unix_server(go_on, guest.path)
    call = asyncio.create_task(channel.execute(Command("guest-get-host-name", timeout=0.3)))
    await until(lambda: any(sent.extensions for sent in channel.link._sent.values()))
    release.set()
    assert b"xxx" in await call
    await channel.close()
    server.close()


async def test_a_caller_that_goes_away_leaves_its_reply_to_nobody_else(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.replies |= {"guest-get-time": "the one who left", "guest-get-users": "mine"}
    await channel.execute(PING)
    guest.pause()
    leaving = asyncio.create_task(channel.execute(Command("guest-get-time")))
    await until(lambda: channel.link.in_flight == 1)
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    guest.resume()

    assert await channel.execute(Command("guest-get-users")) == b'"mine"'


async def test_a_late_reply_is_handed_to_whoever_cares(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray()
    guest.delay["guest-file-open"] = 0.4
    seen: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    with pytest.raises(CommandTimeout):
        await channel.execute(OPEN, {"path": "/f"}, on_late_reply=seen.set_result)
    reply = await asyncio.wait_for(seen, 5)

    assert json.loads(bytes(reply.value)) in guest.open_handles  # type: ignore[arg-type]


async def test_without_a_socket_a_call_fails_at_once(folder: Path) -> None:
    channel = UnixChannel(folder / "missing", "VM 100")
    try:
        with pytest.raises(AgentNotRunning, match="QEMU guest agent is not running") as caught:
            await channel.execute(PING)
        assert "No such file" in caught.value.why
        assert channel.state is ChannelState.GONE
    finally:
        await channel.close()


async def test_an_agent_that_comes_up_later_is_found(folder: Path) -> None:
    guest = FakeGuest(folder / "late.qga")
    channel = UnixChannel(guest.path, "VM 100")
    with pytest.raises(AgentNotRunning):
        await channel.execute(PING)
    async with guest:
        assert await channel.execute(PING) == b"{}"
        await channel.close()


async def test_an_agent_that_was_restarted_is_found_without_anybody_asking(
    channel: UnixChannel, guest: FakeGuest
) -> None:
    await channel.execute(PING)
    await guest.stop()
    await guest.start()
    await until(lambda: channel.state is ChannelState.UP and len(guest.received) > 2)

    assert [request["execute"] for request in guest.received][2:] == ["guest-sync-delimited"]


@pytest.mark.parametrize("event", [GuestEvent.RESET, GuestEvent.PORT_CLOSED])
async def test_a_vm_that_was_reset_has_lost_what_it_was_asked(
    channel: UnixChannel, guest: FakeGuest, event: GuestEvent
) -> None:
    await channel.execute(PING)
    guest.fault = faults.on_commands(lambda _: [])
    call = asyncio.create_task(channel.execute(Command("guest-fstrim", timeout=600)))
    await until(lambda: "guest-fstrim" in guest.names())
    channel.notify(event)

    with pytest.raises(CommandFailed, match=event.value):
        await asyncio.wait_for(call, 5)


async def test_half_a_line_of_another_client_does_no_harm(guest: FakeGuest) -> None:
    _, writer = await asyncio.open_unix_connection(guest.path)
    writer.write(b'{"execute": "guest-get-host-name", "arg')
    await writer.drain()
    channel = UnixChannel(guest.path, "VM 100")
    call = asyncio.create_task(channel.execute(PING))
    await until(lambda: channel.link.phase is Phase.SYNCING)
    writer.close()

    assert await asyncio.wait_for(call, 5) == b"{}"
    await channel.close()


async def test_too_many_waiting_calls_are_refused(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.fault = faults.silent()
    calls = [asyncio.create_task(channel.execute(PING)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)  # each has begun

    with pytest.raises(GuestError):
        await asyncio.wait_for(channel.execute(PING), 1)
    await channel.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, GuestError) for result in results)


async def test_closing_ends_every_call(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.fault = faults.silent()
    calls = [asyncio.create_task(channel.execute(PING)) for _ in range(10)]
    await until(lambda: guest.received != [])
    await channel.close()

    assert all(isinstance(result, GuestError) for result in await asyncio.gather(*calls, return_exceptions=True))
    with pytest.raises(GuestError):
        await channel.execute(PING)


async def test_an_agent_that_is_answering_is_waited_for_before_its_host_goes(folder: Path) -> None:
    """One that could not write its answer would try again and again, until there is a host."""
    happened: list[str] = []
    was_asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sync = json.loads((await reader.readline()).lstrip(b"\xff"))
        writer.write(b'\xff{"return": %d}\n' % sync["arguments"]["id"])
        await reader.readline()
        was_asked.set()
        await asyncio.sleep(0.2)
        happened.append("answer")
        writer.write(b'{"return": {}}\n')
        await reader.read()
        happened.append("hang-up")
        writer.close()

    async with await asyncio.start_unix_server(serve, folder / "agent"):
        channel = UnixChannel(folder / "agent", "web")
        call = asyncio.create_task(channel.execute(PING))
        await was_asked.wait()
        call.cancel()
        await channel.close()
        async with asyncio.timeout(5):
            while len(happened) < 2:
                await asyncio.sleep(0.01)

    assert happened == ["answer", "hang-up"]


async def test_no_call_is_begun_while_it_closes(folder: Path) -> None:
    """Its answer would be owed when the host goes."""
    asked = 0
    was_asked, has_gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        sync = json.loads((await reader.readline()).lstrip(b"\xff"))
        writer.write(b'\xff{"return": %d}\n' % sync["arguments"]["id"])
        while await reader.readline():
            asked += 1
            was_asked.set()
            await asyncio.sleep(0.05)
            writer.write(b'{"return": {}}\n')
        has_gone.set()
        writer.close()

    async def call_again_and_again() -> None:
        while True:
            await channel.execute(PING)

    async with await asyncio.start_unix_server(serve, folder / "agent"):
        channel = UnixChannel(folder / "agent", "web")
        calling = [asyncio.create_task(call_again_and_again()) for _ in range(10)]
        await was_asked.wait()
        sent = channel.link.in_flight
        await channel.close()
        results = await asyncio.gather(*calling, return_exceptions=True)
        await asyncio.wait_for(has_gone.wait(), 5)

    assert all(isinstance(result, AgentNotRunning) for result in results)
    assert asked == sent


async def test_a_close_that_is_cancelled_has_closed_all_the_same(channel: UnixChannel, guest: FakeGuest) -> None:
    guest.fault = faults.silent()
    call = asyncio.create_task(channel.execute(PING))
    await until(lambda: guest.received != [])
    closing = asyncio.create_task(channel.close())
    await asyncio.sleep(0)  # it has begun
    closing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await closing
    assert channel.link.phase is Phase.CLOSED
    with pytest.raises(GuestError):
        await call
