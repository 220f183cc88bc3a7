"""`python -m devtools.sanity`: `ansible-test sanity` over the collection, all of it, in environments that it makes itself.

It fetches the script that puts pip into an environment from an address of its own, which need not be reached here:
Python's own `ensurepip` does the same.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

COLLECTION: Final = Path(__file__).parent.parent / "ansible"

OFFLINE: Final = (
    "action-plugin-docs", "compile", "empty-init", "ignores", "line-endings", "no-assert", "no-get-exception",
    "no-illegal-filenames", "no-smart-quotes", "replace-urlopen", "shebang", "symlinks", "use-argspec-type-path", "use-compat-six",
)  # fmt: skip
"""Those that need no packages from the network."""

PIP: Final = """import subprocess, sys
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"])
wanted = [word for word in sys.argv[1:] if not word.startswith("--no-")]
subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", *wanted])
"""
PIP_NAMES: Final = ("get_pip_24_2.py", "get_pip_25_3.py", "get_pip_26_1.py")
"""As ansible-test calls the script, in versions of its own."""

WITHIN: Final = 900


def sanity(folder: Path, tests: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs these tests, or all, over a copy of the collection in an empty folder."""
    place = folder / "ansible_collections" / "guestwire" / "guestwire"
    shutil.copytree(COLLECTION, place, ignore=shutil.ignore_patterns("__pycache__"))
    cache = folder / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True)
    for name in PIP_NAMES:
        (cache / name).write_text(PIP)
    programs = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    chosen = [word for name in tests for word in ("--test", name)]
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-test"), "sanity", "--color", "no", "--python", "default", *(chosen or ["--requirements"])],
        cwd=place, env=os.environ | {"PATH": programs, "HOME": str(folder), "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip


def main() -> None:
    """Runs all of them, and prints what they say."""
    with tempfile.TemporaryDirectory(prefix="gw-sanity-") as name:
        done = sanity(Path(name))
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith(("Running sanity test", "ERROR", "FATAL", "See documentation")):
            print(line)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
