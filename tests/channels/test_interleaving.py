"""Callers on one VM, thousands of calls mixed, some given up, some timed out, some cut off: nobody ever gets another's answer."""

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestwire.channels import UnixChannel
from guestwire.errors import GuestError
from guestwire.testing import FakeGuest, SandboxedAgent, faults
from guestwire.wire import Command

CALLS = 400


class Mixed:
    """A guest that echoes, sometimes slowly, and may hang up in the middle."""

    def __init__(self, guest: FakeGuest, channel: UnixChannel, chance: random.Random) -> None:
        self.guest = guest
        self.channel = channel
        self.chance = chance
        self.answers = 0
        guest.replies["echo"] = lambda arguments: arguments["text"]

    async def client(self, name: str) -> None:
        for number in range(CALLS):
            await self.call(f"{name}-{number}")
            if self.chance.random() < 0.02:
                self.guest.delay["echo"] = self.chance.choice([0, 0, 0.002, 0.02])
            if self.chance.random() < 0.005:
                self.guest.fault = faults.closes_at(self.chance.randrange(60))
            elif self.chance.random() < 0.5:
                self.guest.fault = lambda exchange: exchange.honest

    async def call(self, text: str) -> None:
        command = Command("echo", repeatable=self.chance.random() < 0.5, timeout=self.chance.choice([0.01, 1, 5]))
        try:
            async with asyncio.timeout(self.chance.choice([None, None, None, 0.001])):
                answer = await self.channel.execute(command, {"text": text})
        except (GuestError, TimeoutError):
            await asyncio.sleep(0.001)
        else:
            assert answer == f'"{text}"'.encode(), "somebody else's answer"
            self.answers += 1


@pytest.mark.slow
@given(seed=st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
async def test_nobody_gets_anothers_answer(seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        async with FakeGuest(Path(name) / "qga") as guest:
            channel = UnixChannel(guest.path, "VM 100")
            mixed = Mixed(guest, channel, random.Random(seed))
            await asyncio.gather(*(mixed.client(name) for name in ("a", "b", "c")))
            await channel.close()
    assert mixed.answers > CALLS / 4


async def test_two_programs_on_one_real_agent_never_see_each_others_answers(agent: SandboxedAgent) -> None:
    """Each reads its own file, over connections that take turns."""
    for name in ("a", "b"):
        (agent.home / name).write_bytes(name.encode() * 3)

    async def program(name: str) -> None:
        for _ in range(20):
            channel = UnixChannel(agent.socket, "VM 100")
            try:
                await asyncio.gather(*(read(channel, name) for _ in range(5)))
            finally:
                await channel.close()

    await asyncio.gather(program("a"), program("b"))


async def read(channel: UnixChannel, name: str) -> None:
    content = {"a": b"YWFh", "b": b"YmJi"}[name]
    handle = int(await execute(channel, "guest-file-open", {"path": f"/root/{name}"}))
    assert content in await execute(channel, "guest-file-read", {"handle": handle})
    await execute(channel, "guest-file-close", {"handle": handle})


async def execute(channel: UnixChannel, name: str, arguments: dict[str, Any]) -> bytes:
    return await channel.execute(Command(name, timeout=20), arguments)
