"""Times as people give them and as they are shown: in this machine's time zone."""

import re
import time
from datetime import datetime
from typing import Final

from guestwire.errors import InvalidParameters

NEVER: Final = "never"
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

_ago = re.compile(r"([0-9]{1,9})([smhdw])")
_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?)?")
_seconds = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


def expiry(text: str | None) -> int | None:
    """Seconds since the epoch of `never` (0), a date (when its day begins), a date and time, or seconds; None for None.

    Raises:
        InvalidParameters: it is none of them.
    """
    if text is None:
        return None
    if text == NEVER:
        return 0
    found = _moment(text)
    if found is None:
        raise InvalidParameters(
            {"expire": f"'{text}' is not YYYY-MM-DD, YYYY-MM-DDTHH:MM, seconds since the epoch, or '{NEVER}'"}
        )
    return int(found)


def moment(name: str, text: str | None) -> int | None:
    """Seconds since the epoch of a date, a date and time, seconds, or an age; None for None.

    An age is `90s`, `30m`, `2h`, `7d` or `4w`.

    Raises:
        InvalidParameters: of the parameter `name`: it is none of them.
    """
    if text is None:
        return None
    if ago := _ago.fullmatch(text):
        return max(int(time.time()) - int(ago[1]) * UNITS[ago[2]], 0)
    found = _moment(text)
    if found is None:
        raise InvalidParameters(
            {
                name: f"'{text}' is not YYYY-MM-DD, YYYY-MM-DDTHH:MM, seconds since the epoch, or how long ago: 30m, 2h, 7d"
            }
        )
    return int(found)


def _moment(text: str) -> float | None:
    if _seconds.fullmatch(text):
        return float(text)
    if not _date.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):  # the 31st of February, the year 0
        return None


def day_and_time(seconds: float) -> str:
    """As `2026-11-25 02:03:21`."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # further than calendars go
        return str(seconds)


def expires(seconds: int) -> str:
    """When something expires."""
    if not seconds:
        return NEVER
    return f"{day_and_time(seconds)}{' (expired)' if seconds < time.time() else ''}"
