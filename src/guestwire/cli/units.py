"""Sizes and the like, as people read them."""

import math
import stat
from collections.abc import Mapping
from typing import Any, Final

import click

STEP: Final = 1024
LARGEST: Final = STEP**8
KINDS: Final = {"f": "-", "d": "d", "l": "l"}


def size(count: float) -> str:
    """Bytes, as `1.5 GiB`; what a guest says may be any number."""
    if count >= LARGEST:
        return "over 1 YiB"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < STEP:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= STEP
    return f"{count:.1f} EiB"


def offset(seconds: int) -> str:
    """Seconds east of UTC, as `+01:00`."""
    hours, minutes = divmod(abs(seconds) // 60, 60)
    return f"{'-' if seconds < 0 else '+'}{hours:02}:{minutes:02}"


def mode_words(entry: Mapping[str, Any]) -> str:
    """Kind and permissions of a file, as `drwxr-xr-x`."""
    return KINDS.get(entry["kind"], "?") + stat.filemode(entry["mode"])[1:]


class Seconds(click.FloatRange):
    """A number of seconds from 0 on. NaN, which is within any limits, would be waited for without end."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return found
