"""The demo's folder, with its server's token; and those of demos that were killed, which could not remove them."""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "gw-demo-"
LOCK: Final = "lock"
"""A file that a demo holds locked as long as it lives: the kernel unlocks it however the demo ends."""


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder, removed at the end; those that dead demos left are removed first."""
    remove_left(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = Path(name)
        with (folder / "unlocked").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Under its name it was never unlocked: another demo that starts now leaves it alone.
            (folder / "unlocked").rename(folder / LOCK)
            yield folder


def remove_left(temporary: Path) -> None:
    """Removes this user's folders whose demos are dead."""
    for folder in temporary.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # no lock in it, somebody else's, or its demo lives
            facts = folder.lstat()
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid():
                with (folder / LOCK).open() as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
