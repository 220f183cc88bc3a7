"""Every kind of channel passes the public checks, on a real agent and on the fake one."""

import asyncio

import pytest
from forwarding import PORT, hybrid_vsock, tcp_port

from guestwire.addresses import HybridVsockAddress
from guestwire.channels import (
    Channel,
    ChannelState,
    GuestEvent,
    Limits,
    OnLateReply,
    ReadBudget,
    StreamChannel,
    UnixChannel,
    open_channel,
)
from guestwire.channels.stream import ProtocolFactory
from guestwire.errors import AgentNotRunning
from guestwire.testing import FakeGuest, SandboxedAgent, channel_checks, check_channel
from guestwire.testing.channels import ChannelCheck
from guestwire.wire import Command

each_check = pytest.mark.parametrize("check", channel_checks(), ids=lambda check: check.__name__)


def tcp_channel(port: int) -> StreamChannel:
    async def connect(factory: ProtocolFactory) -> None:
        await asyncio.get_running_loop().create_connection(factory, "127.0.0.1", port)

    return StreamChannel(connect, "VM 100")


@each_check
async def test_a_unix_channel_on_the_fake_guest(check: ChannelCheck, guest: FakeGuest) -> None:
    await check(lambda: UnixChannel(guest.path, "VM 100"), guest)


@pytest.mark.agent
async def test_a_unix_channel_on_a_real_agent(agent: SandboxedAgent) -> None:
    await check_channel(lambda: UnixChannel(agent.socket, "VM 100"), agent)


@each_check
async def test_a_tcp_channel_on_the_fake_guest(check: ChannelCheck, guest: FakeGuest) -> None:
    async with tcp_port(guest.path) as port:
        await check(lambda: tcp_channel(port), guest)


@pytest.mark.agent
async def test_a_tcp_channel_on_a_real_agent(agent: SandboxedAgent) -> None:
    async with tcp_port(agent.socket) as port:
        await check_channel(lambda: tcp_channel(port), agent)


@each_check
async def test_a_hybrid_vsock_channel_on_the_fake_guest(check: ChannelCheck, guest: FakeGuest) -> None:
    async with hybrid_vsock(guest.path) as path:
        await check(lambda: open_channel(HybridVsockAddress(path, PORT), "VM 100"), guest)


@pytest.mark.agent
async def test_a_hybrid_vsock_channel_on_a_real_agent(agent: SandboxedAgent) -> None:
    async with hybrid_vsock(agent.socket) as path:
        await check_channel(lambda: open_channel(HybridVsockAddress(path, PORT), "VM 100"), agent)


@each_check
async def test_a_channel_with_hardly_any_budget(check: ChannelCheck, guest: FakeGuest) -> None:
    await check(lambda: UnixChannel(guest.path, "VM 100", budget=ReadBudget(memory=0, turn=0.0)), guest)


# The checks can fail


class Naive:
    """A channel with one fault: it gives each reply to the call that has waited longest for any, or swallows what is late, or never times out."""

    limits = Limits()

    def __init__(self, inner: Channel, fault: str) -> None:
        self.inner = inner
        self.fault = fault
        self.swapped: asyncio.Future[bytes] | None = None

    @property
    def state(self) -> ChannelState:
        return ChannelState.UP if self.fault == "is always up" else self.inner.state

    async def execute(
        self, command: Command, arguments: dict[str, object] | None = None, *, on_late_reply: OnLateReply | None = None
    ) -> bytes:
        late = None if self.fault == "forgets late replies" else on_late_reply
        if self.fault == "releases nothing" and command.releases:
            raise AgentNotRunning("VM 100", "it is closed")
        answer = await self.inner.execute(command, arguments, on_late_reply=late)
        if self.fault == "mixes up" and arguments:
            mine, self.swapped = self.swapped, asyncio.get_running_loop().create_future()
            self.swapped.set_result(answer)
            return mine.result() if mine else answer
        return answer

    def notify(self, event: GuestEvent) -> None:
        self.inner.notify(event)

    async def close(self) -> None:
        if self.fault != "does not close":
            await self.inner.close()


@pytest.mark.parametrize(
    "fault", ["mixes up", "forgets late replies", "is always up", "does not close", "releases nothing"]
)
async def test_a_channel_with_a_fault_does_not_pass(
    guest: FakeGuest, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guestwire.testing.channels.WITHIN", 0.5)
    inner: list[UnixChannel] = []

    def faulty() -> Naive:
        inner.append(UnixChannel(guest.path, "VM 100"))
        return Naive(inner[-1], fault)

    try:
        with pytest.raises(AssertionError):
            await check_channel(faulty, guest)
    finally:
        for channel in inner:
            await channel.close()
