"""The entry of `guestwire`.

Most of a short command's time is loading, which makes no garbage. Python's search for garbage while modules load, and
at the end, would cost 5 % to 15 % more CPU time: 250 ms became 282 ms for `ping` over HTTPS (median of 15 runs). So it
is rare here; servers set it back (`USUAL`).
"""

import atexit
import gc
import io
import os
import sys
from typing import Final

from guestwire.errors import INTERRUPTED

USUAL: Final = gc.get_threshold()
RARELY: Final = 50_000
"""Objects that may be made before Python looks for garbage among them."""


def main() -> None:
    """Runs the command, and exits."""
    gc.set_threshold(RARELY, *USUAL[1:])
    _open_standard_streams()
    atexit.register(gc.freeze)
    try:
        from guestwire.cli.program import run  # noqa: PLC0415  # it loads all that a command needs

        run()
    except KeyboardInterrupt:
        # While modules were loaded, or a second one while the first was told of.
        os._exit(INTERRUPTED)


def _open_standard_streams() -> None:
    """Opens those that the parent process has closed (`<&-`), so that no other file gets their descriptors.

    What is written to standard output fails (EBADF), for it would be lost; standard error has no place to say so.
    """
    for name, access, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, access), mode))  # noqa: PTH123, SIM115  # as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding shows what it can, and the rest written out.
            stream.reconfigure(errors="backslashreplace")
