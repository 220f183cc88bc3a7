"""Audit records as lines of JSON, beside the store: to standard error, where systemd hands them to its journal, or to a file."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from guestwire.dispatch.audit import Sink
from guestwire.errors import ConfigurationError
from guestwire.inventory import AuditConfig
from guestwire.inventory.config import STDERR
from guestwire.stores import AuditRecord

MODE: Final = 0o600


def sink_of(config: AuditConfig) -> Sink | None:
    """Where `[audit] lines` sends records; None: nowhere.

    Raises:
        ConfigurationError: the file can't be written.
    """
    if config.lines is None:
        return None
    if config.lines == STDERR:
        return lambda records: _write(sys.stderr.fileno(), records)
    path = Path(config.lines)
    try:
        _append(path, [])
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; audit records should go there ('lines')") from error
    return lambda records: _append(path, records)


def _append(path: Path, records: Sequence[AuditRecord]) -> None:
    """Opens the file each time, so that it can be moved away at any time."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, MODE)
    try:
        _write(descriptor, records)
    finally:
        os.close(descriptor)


def _write(descriptor: int, records: Sequence[AuditRecord]) -> None:
    data = memoryview(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    while data:
        data = data[os.write(descriptor, data) :]
