"""Files through a channel that is slow, and beside it a port of our own for large ones.

Nothing says at first how large a file is that is read or written piece by piece. So a relay (`piece_relay.py`) is
started when so much has been moved that it pays, beside the work that goes on; from when it is up, pieces go its way. It
ends when no piece has come for a while. What it does not carry, or fails to, is done by the agent, again where it must
be, whose reasons count: each piece may be read and written twice.
"""

import asyncio
import binascii
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from guestwire.agent.agent_client import AgentClient
from guestwire.agent.files import Contents, Files
from guestwire.agent.piece_relay import NotCarried, PieceRelay, piece_relay
from guestwire.channels.own_port import OwnPorts
from guestwire.errors import GuestError

log = logging.getLogger("guestwire.agent")

T = TypeVar("T")

LARGE: Final = 512 * 1024
"""Bytes that are moved before a relay is started."""

FORGOTTEN_AFTER: Final = 10.0
"""Seconds after which what was moved before is of another work."""

IDLE: Final = 3.0
"""Seconds without a piece, after which it is ended."""

AGAIN_AFTER: Final = 300.0
"""Seconds until it is tried again where it could not be had, or broke off."""


class LargeFiles(Files):
    """Reads and writes one guest's files; see `Files`. `end_relay` must be called while the agent is open."""

    def __init__(self, agent: AgentClient, ports: OwnPorts) -> None:
        super().__init__(agent)
        self._ports = ports
        self._moved = 0
        self._moved_at = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._relay: PieceRelay | None = None
        self._users = 0
        self._not_before = 0.0

    async def read(self, path: str, *, offset: int = 0, count: int) -> Contents:
        """See `Files.read`."""
        with contextlib.suppress(NotCarried):
            return await self._by_relay(lambda relay: _read(relay, path, offset, count))
        contents = await super().read(path, offset=offset, count=count)
        self._note(contents.size)
        return contents

    async def write_piece(self, path: str, content: str, size: int, *, at: int) -> None:
        """See `Files.write_piece`."""
        with contextlib.suppress(NotCarried):
            await self._by_relay(lambda relay: relay.write(path, binascii.a2b_base64(content), offset=at))
            return
        await super().write_piece(path, content, size, at=at)
        self._note(size)

    async def end_relay(self) -> None:
        """Ends the relay, and returns when nothing is left of it; what is on its way there is done by the agent.

        Before a freeze, too: a relay that writes would not come to its end.
        """
        if keeper := self._keeper:
            self._relay = None
            keeper.cancel()
            await asyncio.wait([keeper])
            # What goes on by the agent meanwhile must not start another one at once.
            self._not_before = time.monotonic() + IDLE

    async def _by_relay(self, work: Callable[[PieceRelay], Awaitable[T]]) -> T:
        relay = self._relay
        if relay is None:
            raise NotCarried
        self._users += 1
        try:
            return await work(relay)
        finally:
            self._users -= 1
            self._moved_at = time.monotonic()

    def _note(self, size: int) -> None:
        """Adds to what was moved by the agent."""
        now = time.monotonic()
        self._moved = size + (self._moved if now - self._moved_at < FORGOTTEN_AFTER else 0)
        self._moved_at = now
        if self._moved >= LARGE and self._keeper is None and now >= self._not_before:
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"port of {self._agent.guest}")

    async def _keep(self) -> None:
        """Has a relay for as long as it is used."""
        self._not_before = time.monotonic() + AGAIN_AFTER
        try:
            async with piece_relay(self._agent, self._ports) as relay:
                log.debug("%s: pieces of files go by a port of our own", self._agent.guest)
                self._relay = relay
                while not relay.failed.is_set() and (self._users or time.monotonic() - self._moved_at < IDLE):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(IDLE / 4):
                            await relay.failed.wait()
                if not relay.failed.is_set() or relay.has_refused:
                    self._not_before = 0.0
        except GuestError as error:
            log.debug("pieces of files go by the agent's own channel: %s", error)
        except Exception:
            log.exception("%s: unexpected error with a port of our own", self._agent.guest)
        finally:
            self._relay = self._keeper = None
            self._moved = 0


async def _read(relay: PieceRelay, path: str, offset: int, count: int) -> Contents:
    return Contents([await relay.read(path, offset=offset, count=count)], truncated=True)
