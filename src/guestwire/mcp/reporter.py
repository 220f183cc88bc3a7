"""Tells the client how a call goes on: progress and log lines, sent beside the call and in their order."""

import asyncio
import contextlib
from typing import Any, Final, Self

from mcp.server.connection import allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp_types import LoggingMessageNotification, LoggingMessageNotificationParams

MOST_WAITING: Final = 100
LAST_WORDS: Final = 1.0
"""Seconds that an answer waits for what was told before it."""


class Reporter:
    """`async with` sends while it is open; what can't be sent is left out: the call goes on."""

    def __init__(self, context: ServerRequestContext[Any]) -> None:
        self._context = context
        self._waiting: asyncio.Queue[tuple[float, float | None, str | None] | str] = asyncio.Queue(MOST_WAITING)
        self._may_log = "info" in allowed_log_levels(context.protocol_version, context.meta)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._send_all(), name="reporter")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._task is not None  # noqa: S101  # it was entered
        if kind is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self._waiting.join()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    @property
    def is_heard(self) -> bool:
        """True if the client has asked for progress."""
        return "progress_token" in (self._context.meta or {})

    def progress(self, done: float, total: float | None, text: str | None = None) -> None:
        """So much is done; `text` is what has come meanwhile."""
        self._put((done, total, text))

    def note(self, text: str) -> None:
        """A line for the client's log."""
        if self._may_log:
            self._put(text)

    def _put(self, what: tuple[float, float | None, str | None] | str) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(what)

    async def _send_all(self) -> None:
        while True:
            what = await self._waiting.get()
            await self._send(what)
            self._waiting.task_done()

    async def _send(self, what: tuple[float, float | None, str | None] | str) -> None:
        if isinstance(what, str):
            params = LoggingMessageNotificationParams(level="info", logger="guestwire", data=what)
            await self._context.session.send_notification(
                LoggingMessageNotification(params=params), self._context.request_id
            )
        else:
            await self._context.session.report_progress(*what)
