"""The conformance check of channels, without a test framework.

Each check raises `AssertionError` where the channel fails.

    for check in channel_checks():
        async with SandboxedAgent(path) as agent:
            await check(lambda: MyChannel(path), agent)

The agent may be a real one or the fake one; it answers when a check begins, and when it ends. Nothing in the guest is
changed.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from guestwire.channels.channel import Channel, ChannelState
from guestwire.errors import AgentError, CommandTimeout, GuestError
from guestwire.wire import Command, Reply

WITHIN: Final = 15.0
"""How many seconds a check waits for what comes by itself."""

ECHO: Final = Command("guest-sync", repeatable=True, timeout=10.0)
"""Returns the number that it is given, so that a reply shows whose it is."""

CHANGING_ECHO: Final = Command("guest-sync", timeout=10.0)
SHORT_ECHO: Final = Command("guest-sync", timeout=0.2)
RELEASING_ECHO: Final = Command("guest-sync", timeout=10.0, releases=True)
UNKNOWN: Final = Command("guest-no-such-command")


class AgentControl(Protocol):
    """The actions of a check on the agent; `SandboxedAgent` and `FakeGuest` have it."""

    def pause(self) -> None:
        """Stops the agent where it is; its socket stays."""
        ...

    def resume(self) -> None:
        """Lets it go on."""
        ...

    async def kill(self) -> None:
        """Ends its connections at once; it answers again soon."""
        ...


MakeChannel = Callable[[], Channel]
ChannelCheck = Callable[[MakeChannel, AgentControl], Coroutine[Any, Any, None]]

_checks: list[ChannelCheck] = []


def channel_checks() -> Sequence[ChannelCheck]:
    """All checks; the name of each is a sentence."""
    return tuple(_checks)


async def check_channel(make_channel: MakeChannel, agent: AgentControl) -> None:
    """Runs all checks, one after the other.

    Raises:
        AssertionError: a channel does not what it must.
    """
    for check in _checks:
        await check(make_channel, agent)


def _check(check: Callable[[Channel, AgentControl], Coroutine[Any, Any, None]]) -> ChannelCheck:
    """Registers a check, which is given a new channel that has answered once."""

    async def with_channel(make_channel: MakeChannel, agent: AgentControl) -> None:
        channel = make_channel()
        try:
            await _until_it_answers(channel)
            await check(channel, agent)
        finally:
            await channel.close()

    with_channel.__name__ = check.__name__.lstrip("_")
    _checks.append(with_channel)
    return with_channel


@_check
async def _replies_are_never_mixed_up(channel: Channel, agent: AgentControl) -> None:  # noqa: ARG001  # as all checks
    numbers = range(200)
    unknown = [channel.execute(UNKNOWN) for _ in range(3)]
    *errors, answers = await asyncio.gather(
        *unknown, asyncio.gather(*(_echo(channel, number) for number in numbers)), return_exceptions=True
    )
    _expect(answers == list(numbers), "each of many calls at once gets its own reply")
    _expect(all(isinstance(error, AgentError) for error in errors), "and its own error")
    _expect(channel.state is ChannelState.UP, "an agent that answers is up")


@_check
async def _an_error_of_the_agent_is_handed_on(channel: Channel, agent: AgentControl) -> None:  # noqa: ARG001  # as all checks
    error = await _expect_error(AgentError, channel.execute(UNKNOWN))
    _expect(isinstance(error, AgentError) and error.error_class == "CommandNotFound", "the error has its class")
    _expect(UNKNOWN.name in str(error), "the error has its description")
    _expect(await _echo(channel, 1) == 1, "the next call is not harmed")


@_check
async def _a_call_without_an_answer_times_out(channel: Channel, agent: AgentControl) -> None:
    with _pause(agent):
        await _expect_error(CommandTimeout, channel.execute(SHORT_ECHO, {"id": 2}))
        await _until(lambda: channel.state is not ChannelState.UP, "an agent that does not answer is not up")
        await _expect_error(GuestError, channel.execute(SHORT_ECHO, {"id": 3}))
    await _until_it_answers(channel)


@_check
async def _a_late_reply_is_handed_on_once(channel: Channel, agent: AgentControl) -> None:
    late: list[Reply] = []
    with _pause(agent):
        await _expect_error(CommandTimeout, channel.execute(SHORT_ECHO, {"id": 2}, on_late_reply=late.append))
    await _until_it_answers(channel)
    await _until(lambda: bool(late), "a late reply is handed on")
    _expect([_number(reply) for reply in late] == [2], "the late reply is the call's own, and there is one")


@_check
async def _a_call_that_is_cancelled_leaves_its_reply_to_no_other(channel: Channel, agent: AgentControl) -> None:
    leaving, staying = range(100, 120), range(200, 220)
    late: list[Reply] = []
    with _pause(agent):
        left = [
            asyncio.ensure_future(channel.execute(ECHO, {"id": number}, on_late_reply=late.append))
            for number in leaving
        ]
        stayed = [asyncio.ensure_future(_echo(channel, number)) for number in staying]
        await asyncio.sleep(0)  # each has begun
        for call in left:
            call.cancel()
        outcomes = await asyncio.gather(*left, return_exceptions=True)
        _expect(all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), "a cancelled call ends so")
    _expect(await asyncio.gather(*stayed) == list(staying), "the others get their own replies")
    _expect({_number(reply) for reply in late} <= set(leaving), "late replies are the cancelled calls' own")


@_check
async def _a_hang_up_ends_what_was_under_way_and_no_more(channel: Channel, agent: AgentControl) -> None:
    with _pause(agent):
        call = asyncio.ensure_future(channel.execute(CHANGING_ECHO, {"id": 2}))
        await asyncio.sleep(0)  # it has begun
        await agent.kill()
        await _expect_error(GuestError, call)
    await _until_it_answers(channel)


@_check
async def _closing_ends_every_call(channel: Channel, agent: AgentControl) -> None:
    with _pause(agent):
        calls = [asyncio.ensure_future(_echo(channel, number)) for number in range(50)]
        await asyncio.sleep(0)  # each has begun
        await channel.close()
        async with asyncio.timeout(WITHIN):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
    _expect(all(isinstance(outcome, GuestError) for outcome in outcomes), "closing ends calls, sent and waiting ones")
    await _expect_error(GuestError, _echo(channel, 1))


@_check
async def _what_an_answer_to_nobody_gives_is_released_while_it_closes(channel: Channel, agent: AgentControl) -> None:
    releases: list[asyncio.Future[bytes]] = []

    def release(reply: Reply) -> None:
        arguments = {"id": (_number(reply) or 0) + 1}
        releases.append(asyncio.ensure_future(channel.execute(RELEASING_ECHO, arguments)))

    with _pause(agent):
        call = asyncio.ensure_future(channel.execute(CHANGING_ECHO, {"id": 2}, on_late_reply=release))
        await asyncio.sleep(0.1)  # it is on its way
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        closing = asyncio.ensure_future(channel.close())
        await asyncio.sleep(0)  # it has begun
        await _expect_error(GuestError, _echo(channel, 1))
    await closing
    outcomes = await asyncio.gather(*releases, return_exceptions=True)
    _expect(outcomes == [b"3"], "a channel that is closing still carries what gives something back")


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise AssertionError(what)


async def _echo(channel: Channel, number: int) -> int:
    return msgspec.json.decode(await channel.execute(ECHO, {"id": number}), type=int)


def _number(reply: Reply) -> int | None:
    return None if reply.value is msgspec.UNSET else msgspec.json.decode(reply.value, type=int)


@contextlib.contextmanager
def _pause(agent: AgentControl) -> Iterator[None]:
    agent.pause()
    try:
        yield
    finally:
        agent.resume()


async def _expect_error(expected: type[GuestError], call: Awaitable[object]) -> GuestError:
    try:
        async with asyncio.timeout(WITHIN):
            await call
    except expected as error:
        return error
    raise AssertionError(f"{expected.__name__} was to be raised")


async def _until(holds: Callable[[], bool], what: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WITHIN):
            while not holds():  # noqa: ASYNC110  # only asking tells
                await asyncio.sleep(0.01)
            return
    raise AssertionError(what)


async def _until_it_answers(channel: Channel) -> None:
    number = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WITHIN):
            while True:
                number += 1
                with contextlib.suppress(GuestError):
                    _expect(await _echo(channel, number) == number, "each call gets its own reply")
                    return
                await asyncio.sleep(0.02)
    raise AssertionError("an agent that is there is found")
