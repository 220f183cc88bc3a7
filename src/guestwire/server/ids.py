"""Ids of requests: what the log, the audit trail and an internal error have in common. Unique for as long as a log is kept."""

import itertools
import secrets
from typing import Final

_process: Final = secrets.token_hex(3)
_numbers: Final = itertools.count(1)


def next_id() -> str:
    """The next request's."""
    return f"{_process}{next(_numbers):06x}"
