"""The log: a line a record to standard error, where systemd or a file takes it up."""

import asyncio
import logging
import sys
import time
from typing import Final, TextIO

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


class _AtTheEndOfATurn(logging.StreamHandler[TextIO]):
    """Writes what one turn of the event loop has to say at once, when the answers are out."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one record."""
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(self.format(record))

    def flush(self) -> None:
        """Writes what is there."""
        lines, self._lines = self._lines, []
        if lines:
            self.stream.write("\n".join(lines) + "\n")
        super().flush()


def log_to_stderr() -> None:
    """Sets logging up for the whole process.

    A record's thread, process and place in the code are not shown, so they are not looked up: one line for each request
    costs half as much then (Python's logging HOWTO, "Optimization").
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # the HOWTO's own words
    handler, of_requests = logging.StreamHandler(sys.stderr), _AtTheEndOfATurn()
    handler.setFormatter(_Formatter())
    of_requests.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    requests = logging.getLogger("guestwire.requests")
    requests.addHandler(of_requests)
    requests.propagate = False
