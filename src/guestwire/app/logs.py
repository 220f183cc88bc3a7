"""The log: a line a record to standard error, where systemd or a file takes it up."""

import asyncio
import logging
import sys
import time
from typing import Final, TextIO

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"

WRITTEN_WITHIN: Final = 0.02
"""Seconds from a request's answer to its line."""


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


class _Together(logging.StreamHandler[TextIO]):
    """Writes the lines of many requests at once: what is written for each alone costs more than the line itself."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one record; its arguments are texts and numbers, so that it may be formatted later."""
        if not self._records:
            asyncio.get_running_loop().call_later(WRITTEN_WITHIN, self.flush)
        self._records.append(record)

    def flush(self) -> None:
        """Writes what is there; the end of the process does that, too."""
        records, self._records = self._records, []
        if records:
            self.stream.write("".join(f"{self.format(record)}\n" for record in records))
        super().flush()


def log_to_stderr() -> None:
    """Sets logging up for the whole process.

    A record's thread, process and place in the code are not shown, so they are not looked up: one line for each request
    costs half as much then (Python's logging HOWTO, "Optimization").
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # the HOWTO's own words
    handler, of_requests = logging.StreamHandler(sys.stderr), _Together()
    handler.setFormatter(_Formatter())
    of_requests.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    requests = logging.getLogger("guestwire.requests")
    requests.addHandler(of_requests)
    requests.propagate = False
