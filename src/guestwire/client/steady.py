"""Calls that may be made twice, made until they succeed: what copying stands on when connections and agents break off."""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, TypeVar

from guestwire.client import scripts
from guestwire.client.commands import HIGHEST_ON_PROXMOX, SHELL, is_no_text
from guestwire.client.ending import surely
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import (
    AgentNotThere,
    AgentTookTooLong,
    CallFailed,
    NotTrusted,
    Place,
    Unreachable,
    advice_for,
    no_nul,
)
from guestwire.client.parts import HostOfGuest
from guestwire.client.processes import REMOVED_WITHIN, Ended, Processes
from guestwire.client.systems import UNIX, System, system_of

T = TypeVar("T")

ATTEMPTS: Final = 8
FIRST_PAUSE: Final = 0.2
"""Seconds; each pause is twice the one before: 51 seconds in all."""

LONGEST_LIST: Final = 256 * 1024 * 1024

LONGEST_WORDS: Final = 300


class FileRefused(CallFailed):
    """The guest can't read or write the file."""

    def __init__(self, place: Place, words: str) -> None:
        super().__init__(place, words, advice=advice_for(words))


class Steady:
    """Calls and scripts in one guest. What worked once is tried again when it breaks off; what never did fails at once."""

    def __init__(self, calls: Endpoints, processes: Processes, host: HostOfGuest) -> None:
        self._calls = calls
        self._processes = processes
        self._host = host
        self._worked = False

    @property
    def place(self) -> Place:
        """Which guest on which host, for messages."""
        return self._calls.place

    async def again(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call that may be made twice."""
        for pause in _pauses() if self._worked else ():
            try:
                return await call()
            except CallFailed as error:
                if not _passes(error):
                    raise
                await asyncio.sleep(pause)
        result = await call()
        self._worked = True
        return result

    async def sh(self, command: scripts.Command, data: bytes | None = None) -> Ended:
        """How a command ended that may run twice; `data` is its standard input."""
        return await self.again(lambda: self._processes.run(command, input=data))

    async def done(self, command: scripts.Command, data: bytes | None = None) -> Ended:
        """The same; it must succeed.

        Raises:
            FileRefused: it did not, in its own words.
        """
        return self.succeeded(await self.sh(command, data))

    def succeeded(self, ended: Ended) -> Ended:
        """Checks how a command ended.

        Raises:
            FileRefused: not well.
        """
        if ended.ok:
            return ended
        words = ended.errors.strip().partition("\n")[0] or f"'{ended.argv[0]}' ended with {ended.code or ended.signal}"
        raise FileRefused(self.place, _said.sub("", words)[:LONGEST_WORDS])

    async def output(self, command: scripts.Command) -> str:
        """What a command printed, of any length: Proxmox VE loses more than 2.5 MB, and the agent cuts off what is over 16 MiB."""
        of_unix = command[0] == SHELL
        if not of_unix or await self._host.is_guestwire():
            ended = await self.done(command)
            if not ended.stdout_truncated:
                return ended.output
            if not of_unix:
                raise FileRefused(self.place, "the list is longer than the agent keeps; list a folder below it")
        path = _temporary()
        try:
            await self.done(scripts.into(path, command))
            return (await self._whole(path)).decode("utf-8", "surrogateescape")
        finally:
            await surely(self.remove_quietly(path))

    async def _whole(self, path: str) -> bytes:
        data = b""
        while len(data) <= LONGEST_LIST:
            found = await self.again(lambda: self._calls.file_read(path, offset=len(data)))  # noqa: B023  # awaited at once
            data += found.content.encode("latin-1")
            if not found.truncated:
                return data
        raise FileRefused(self.place, f"its list is longer than {LONGEST_LIST} bytes; take a folder below it")

    async def remove(self, path: str) -> None:
        """Removes a file; one that is not there is gone already."""
        await self.done(system_of(path).remove(path))

    async def remove_quietly(self, path: str) -> None:
        """The same, where there is another error to tell of, and nobody wants to wait long."""
        with contextlib.suppress(CallFailed, TimeoutError):
            async with asyncio.timeout(REMOVED_WITHIN):
                await self.remove(path)

    @contextlib.asynccontextmanager
    async def nameable(self, path: str) -> AsyncIterator[str]:
        """A path as the API can carry it: a link to it, where the name is no text, or of letters that Proxmox VE breaks."""
        no_nul(self.place, path)
        wide = max(path, default="") > HIGHEST_ON_PROXMOX and not await self._host.is_guestwire()
        if not wide and not is_no_text(path):
            yield path
            return
        link = _temporary(system_of(path))
        await self.done(system_of(path).alias(path, link))
        try:
            yield link
        finally:
            await surely(self.remove_quietly(link))


_passing = re.compile(r"qga command '.*' failed|Handle '\d+' has not been found|Invalid parameter 'pid'|PID \d+ does")
_said = re.compile(r"^(?:/bin/)?(?:sh|dd|rm|mv|cat|chmod): (?:line |)?(?:\d+: )?")


def _passes(error: CallFailed) -> bool:
    """Whether the same call may succeed a little later: connection or agent broke off."""
    if isinstance(error, (Unreachable, AgentNotThere, AgentTookTooLong)):
        return not isinstance(error, NotTrusted)
    return bool(_passing.search(error.words))


def _temporary(system: System = UNIX) -> str:
    return f"{system.temporary}guestwire-{uuid.uuid4().hex}"  # it can't be guessed


def _pauses() -> Iterable[float]:
    return (FIRST_PAUSE * 2**attempt for attempt in range(ATTEMPTS))
