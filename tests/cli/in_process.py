"""`guestwire` run inside this process: a test that is not about starting, signals or terminals need not wait for a new Python."""

import asyncio
import contextlib
import gc
import io
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from unittest.mock import patch

from guestwire.cli import main

ONE_AT_A_TIME = threading.Lock()
"""Streams, arguments and environment are the whole process's."""


class Outcome(NamedTuple):
    """How a command ended, and the bytes that it wrote."""

    code: int
    output: bytes
    errors: bytes


async def run(arguments: Sequence[str], *, stdin: bytes = b"", env: Mapping[str, str] = os.environ) -> Outcome:
    """Runs the command to its end, in a thread, with its own environment and standard streams, and without a terminal."""
    return await asyncio.to_thread(_run, arguments, stdin, dict(env))


def _run(arguments: Sequence[str], stdin: bytes, env: Mapping[str, str]) -> Outcome:
    streams = [io.BytesIO(), io.BytesIO()]
    output, errors = (io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in streams)
    # Standard input is a real file: `cp -` reads its descriptor.
    with ONE_AT_A_TIME, tempfile.TemporaryFile() as given, io.TextIOWrapper(given, "utf-8") as text:
        given.write(stdin)
        given.seek(0)
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
            patch.object(sys, "stdin", text),
            patch.object(sys, "argv", ["guestwire", *arguments]),
            patch.dict(os.environ, env, clear=True),
        ):
            code = _exit_code()
            _forget_connections()
        return Outcome(code, *(stream.getvalue() for stream in streams))


def _forget_connections() -> None:
    """A process ends here, and with it sockets whose TLS had no time to end; Python would complain of them in the midst of other tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect(1)


def _exit_code() -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
