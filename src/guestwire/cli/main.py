"""What starts `guestwire`.

Half of a short command's time is loading. While that lasts, nothing is garbage: looking for some costs a tenth of it, here and at the end.
"""

import atexit
import gc
from typing import Final

USUAL: Final = gc.get_threshold()
RARELY: Final = 50_000
"""Objects that may be made before Python looks for garbage among them."""


def main() -> None:
    """Runs the command, and exits."""
    gc.set_threshold(RARELY, *USUAL[1:])
    atexit.register(gc.freeze)
    from guestwire.cli.program import run  # noqa: PLC0415  # it loads all that a command needs

    run()
