"""Private parts of libraries that guestwire uses: each in one file, there in what is installed, and with an upper bound on the version."""

import logging
import re
import tomllib
from pathlib import Path

import aiohttp

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "guestwire"

USED = {
    "app/logs.py": {"logging._srcfile"},
    "client/carriers/https.py": {"self._session._retry_connection"},
    "client/sync.py": {"Stream._chunks_left"},
}
"""By file; `Stream` is our own."""

BOUNDED = ("aiohttp", "mcp")
"""Libraries of which private parts are used, here or in `mcp/sdk_imports.py`, which has its own test."""


def test_no_other_file_uses_any() -> None:
    found = {}
    for path in SOURCE.rglob("*.py"):
        lines = [line for line in path.read_text().splitlines() if "SLF001" in line]
        if lines:
            found[path.relative_to(SOURCE).as_posix()] = {
                name for line in lines for name in re.findall(r"[\w.]+\._\w+", line.partition("#")[0])
            }
    assert found == USED


async def test_they_are_there() -> None:
    assert isinstance(logging._srcfile, str | None)
    async with aiohttp.ClientSession() as session:
        assert session._retry_connection is True


def test_the_versions_of_their_libraries_are_bounded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for name in BOUNDED:
        assert any(re.match(rf"{name}[><=\d., ]*,<", one) for one in needed), name
