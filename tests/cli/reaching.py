"""The command `guestwire` against guests: by way of their agents' sockets, and of a server with HTTPS and a token."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calling import ANSWERS_WITHIN, site, vm
from in_process import run
from serving import Serving

from guestwire.testing import FakeGuest, SandboxedAgent

BLOCKED = "guest-get-disks"
TAKES_SIGNALS = {"exec", "forward", "logs", "mcp", "proxy", "shell", "ssh"}
"""Commands that run in a process of their own."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        return self.output.decode()

    @property
    def json(self) -> Any:
        """The one value of a command that must have succeeded."""
        assert self.code == 0, self
        return json.loads(self.output)

    @property
    def line(self) -> str:
        """The one line of a command that must have failed, and shown nothing."""
        assert self.code, self
        assert (self.output, self.errors.count("\n")) == (b"", 1), self
        assert self.errors.startswith("guestwire: "), self
        return self.errors.removeprefix("guestwire: ").rstrip("\n")


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's, without what it says of hosts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUESTWIRE_")}
    return {**kept, "XDG_CONFIG_HOME": str(home), **more}


async def started(*arguments: str, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    """The command, running."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guestwire", *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(env)
    )


@contextlib.asynccontextmanager
async def running(*arguments: str, env: Mapping[str, str], within: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command while it runs, for so many seconds at most; it is killed where it has not ended by then."""
    process = await started(*arguments, env=env)
    try:
        async with asyncio.timeout(within):
            yield process
    finally:
        await _kill(process)


async def line_of(process: asyncio.subprocess.Process) -> bytes:
    """The next line of its output; b"" when that has ended."""
    assert process.stdout
    return await process.stdout.readline()


async def ended(process: asyncio.subprocess.Process, stdin: bytes = b"") -> Done:
    """How it ends."""
    try:
        async with asyncio.timeout(ANSWERS_WITHIN):
            output, errors = await process.communicate(stdin)
    finally:
        await _kill(process)
    return Done(process.returncode or 0, output, errors.decode("utf-8", "replace"))


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


async def guestwire(*arguments: str, env: Mapping[str, str], stdin: bytes = b"") -> Done:
    """Runs the command to its end: in this process, unless it takes Ctrl-C, which Python gives to main threads alone."""
    if TAKES_SIGNALS & set(arguments):
        return await ended(await started(*arguments, env=env), stdin)
    code, output, errors = await run(arguments, stdin=stdin, env=env)
    return Done(code, output, errors.decode("utf-8", "replace"))


@dataclass
class Lab:
    """A real guest `web`, a fake one `fake`, and `gone`, whose agent is not there; all reached in one way.

    Attributes:
        kind: `unix` or `https`.
        folder: of the sockets.
        home: where configuration is.
        options: before the command, for each guest.
        agent: the real guest's.
        fake: the fake guest's.
        server: of `https`.
    """

    kind: str
    folder: Path
    home: Path
    options: dict[str, list[str]]
    agent: SandboxedAgent
    fake: FakeGuest
    server: Serving | None = None

    @property
    def env(self) -> dict[str, str]:
        return environment(self.home)

    async def __call__(self, guest: str, *arguments: str, stdin: bytes = b"") -> Done:
        """Runs a command as `guestwire`, at the host of this guest."""
        await self._comes_back()
        return await guestwire(*self.options[guest], *arguments, env=self.env, stdin=stdin)

    async def start(self, guest: str, *arguments: str) -> asyncio.subprocess.Process:
        """Starts a command."""
        await self._comes_back()
        return await started(*self.options[guest], *arguments, env=self.env)

    async def _comes_back(self) -> None:
        """An agent on its own socket ends with a client that hung up in mid-answer; one that is busy with another is there."""
        if self.kind == "unix":
            await self.agent.answers(within=1.0)


@contextlib.contextmanager
def faked(path: Path) -> Iterator[FakeGuest]:
    """A fake guest in a thread of its own: a server may stay connected to it from one test to the next."""
    loop, fake = asyncio.new_event_loop(), FakeGuest(path)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fake.start(), loop).result()
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(fake.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.asynccontextmanager
async def over_sockets() -> AsyncIterator[Lab]:
    """Each guest by its agent's socket."""
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        folder = Path(name)
        options = {guest: ["--host", f"unix:{folder}/{guest}.qga"] for guest in ("web", "fake", "gone")}
        async with SandboxedAgent(folder / "web.qga", name="web", blocked=[BLOCKED]) as agent:
            with faked(folder / "fake.qga") as fake:
                yield Lab("unix", folder, folder / "config", options, agent, fake)


@contextlib.asynccontextmanager
async def over_https(*, limited: bool = False) -> AsyncIterator[Lab]:
    """All guests by one server; `limited` to what Proxmox VE has."""
    vms = (vm(100, "web"), vm(101, "fake"), vm(102, "off", running="false"), vm(103, "gone"))
    async with (
        Serving.of(site(*vms), limited=limited) as server,
        SandboxedAgent(server.folder / "100.qga", name="web", blocked=[BLOCKED]) as agent,
    ):
        folder = server.folder
        state = folder / "state"
        words = ["--host", f"https://127.0.0.1:{server.port}", "--token-file", f"{state}/admin-token"]
        options = {guest: [*words, "--ca", f"{state}/server.pem"] for guest in ("web", "fake", "off", "gone")}
        with faked(folder / "101.qga") as fake:
            yield Lab("https", folder, folder / "config", options, agent, fake, server)


def over_limited() -> contextlib.AbstractAsyncContextManager[Lab]:
    """As over HTTPS, from a server that has what Proxmox VE has and no more."""
    return over_https(limited=True)


WAYS: Mapping[str, Callable[[], contextlib.AbstractAsyncContextManager[Lab]]] = {
    "unix": over_sockets,
    "https": over_https,
    "limited": over_limited,
}
