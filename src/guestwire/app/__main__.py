"""The service's own process: `python -m guestwire.app [FILE]`; `guestwire serve` starts it."""

import sys
from pathlib import Path

from guestwire.app.service import run
from guestwire.errors import GuestwireError

try:
    run(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
except GuestwireError as error:
    print(f"guestwire: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
