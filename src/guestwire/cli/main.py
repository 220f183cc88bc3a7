"""What starts `guestwire`.

Half of a short command's time is loading. While that lasts, nothing is garbage: looking for some costs a tenth of it, here and at the end.
"""

import atexit
import gc
import os
import sys
from typing import Final

USUAL: Final = gc.get_threshold()
RARELY: Final = 50_000
"""Objects that may be made before Python looks for garbage among them."""


def main() -> None:
    """Runs the command, and exits."""
    gc.set_threshold(RARELY, *USUAL[1:])
    _open_standard_streams()
    atexit.register(gc.freeze)
    from guestwire.cli.program import run  # noqa: PLC0415  # it loads all that a command needs

    run()


def _open_standard_streams() -> None:
    """Whoever started us may have closed some of them (`<&-`); nothing else should be opened in their place, or stumble over them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  # as long as the process lives
