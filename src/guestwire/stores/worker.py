"""One thread for what blocks: it does one job after the other, and looks around between them."""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from guestwire.errors import StoreBusy, StoreError

T = TypeVar("T")

STOP: Final = None

log = logging.getLogger(__name__)

Job = tuple["Future[Any]", Callable[[], Any]]


class Worker:
    """Runs jobs in a thread of its own; `look` at least every `interval` seconds, also when there are many jobs.

    The thread is a daemon: a process that ends without a word ends it as a kill would, which a store must bear anyway.
    """

    def __init__(self, name: str, look: Callable[[], None], interval: float) -> None:
        self._look = look
        self._interval = interval
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, job: Callable[[], T], within: float) -> T:
        """What `job` returns or raises.

        Raises:
            StoreBusy: it took longer than `within` seconds. A job that had not begun will not be done.
            StoreError: the worker was stopped.
        """
        if self._closed:
            raise StoreError("the store is closed")
        future: Future[T] = Future()
        self._jobs.put((future, job))
        try:
            async with asyncio.timeout(within):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise StoreBusy(f"the store did not answer in {within:g} s") from None

    async def stop(self, last: Callable[[], None], within: float) -> None:
        """Does the jobs that are waiting, then `last`; takes no more."""
        if self._closed:
            return
        done = self.call(last, within)
        try:
            await done
        finally:
            self._closed = True
            self._jobs.put(STOP)

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while True:
            with contextlib.suppress(queue.Empty):
                job = self._jobs.get(timeout=max(due - time.monotonic(), 0.0))
                if job is STOP:
                    return
                _do(*job)
            if time.monotonic() >= due:
                self._look_around()
                due = time.monotonic() + self._interval

    def _look_around(self) -> None:
        try:
            self._look()
        except Exception:
            # Nobody waits for this, and the thread must go on for those who do wait.
            log.exception("%s", self._thread.name)


def _do(future: "Future[Any]", job: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except BaseException as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
        future.set_exception(error)
