"""The log: a line a record to standard error, where systemd or a file takes it up."""

import asyncio
import contextlib
import logging
import sys
import time
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"


class _Formatter(logging.Formatter):
    """The usual time stamp, put together once a second and not once a line."""

    def __init__(self) -> None:
        super().__init__(FORMAT)
        self._second = -1
        self._text = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        """As `2026-11-25 02:03:21,500`."""
        second = int(record.created)
        if second != self._second:
            self._second, self._text = (
                second,
                time.strftime(datefmt or self.default_time_format, time.localtime(second)),
            )
        return f"{self._text},{int(record.msecs):03d}"


class _Handler(logging.Handler):
    """Writes what a turn of the event loop has to say at once, at its end; outside of a loop each record by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one record."""
        self._lines.append(self.format(record))
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:
            self.flush()

    def flush(self) -> None:
        """Writes what is there."""
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
            if lines:
                sys.stderr.write("\n".join(lines) + "\n")
                sys.stderr.flush()


def log_to_stderr() -> None:
    """Sets logging up for the whole process.

    A record's thread, process and place in the code are not shown, so they are not looked up: one line for each request costs
    half as much then (Python's logging HOWTO, "Optimization").
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # the HOWTO's own words
    handler = _Handler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
