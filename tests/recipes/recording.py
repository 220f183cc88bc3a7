"""A recipe that runs, a guest that writes meanwhile, and what is in an image of its disk."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from serving import Serving
from ways import ca_of

from devtools.guests import Machine

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
RECIPES = PAGE.with_suffix("")
ENDS_WITHIN = 60.0
"""Seconds for a recipe, and for a guest to go on."""

PATH = f"{RECIPES}:{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
FROZEN = "frozen until"
"""In what `guestwire freeze` says when it runs its command."""

# Each record is on the disk before its number is noted, in memory.
RECORDER = (
    'n=0; while :; do n=$((n + 1)); echo "record $n" | dd of=$1/records oflag=append conv=notrunc,fsync 2>/dev/null'
    " && echo $n >$2.new && mv $2.new $2; usleep 20000; done"
)


class Recorder:
    """A process in a guest that writes numbered records to a file system, each to the disk."""

    def __init__(self, shell: Callable[[str], Awaitable[str]], mountpoint: str = "/mnt/data") -> None:
        self._shell = shell
        self._mountpoint = mountpoint
        self._note = f"/run/recorded{mountpoint.replace('/', '-')}"

    async def __aenter__(self) -> Self:
        start = f"sh -c '{RECORDER}' recorder {self._mountpoint} {self._note} </dev/null >/dev/null 2>&1 & echo $! >{self._note}.pid"
        await self._shell(f"rm -f {self._mountpoint}/records {self._note}; {start}")
        await self.goes_on()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._shell(f"kill $(cat {self._note}.pid); rm -f {self._note}*")

    async def written(self) -> int:
        """Records that are on the disk."""
        return int(await self._shell(f"cat {self._note} 2>/dev/null || echo 0"))

    async def goes_on(self, within: float = ENDS_WITHIN) -> None:
        """Waits until there is one more: its file system is not frozen."""
        before = await self.written()
        async with asyncio.timeout(within):
            while await self.written() == before:
                await asyncio.sleep(0.05)


def environment(**more: str) -> dict[str, str]:
    """Of a recipe."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUESTWIRE_")}
    return {**kept, "PATH": PATH, **more}


def by_socket(machine: Machine) -> dict[str, str]:
    """The environment of a recipe that reaches a guest by its agent's socket."""
    return environment(GUESTWIRE_HOST=f"unix:{machine.agent_socket}")


def by_server(server: Serving) -> dict[str, str]:
    """The environment of a recipe that reaches a guest by a server."""
    return environment(
        GUESTWIRE_HOST=f"https://127.0.0.1:{server.port}",
        GUESTWIRE_TOKEN_FILE=str(server.folder / "state" / "admin-token"),
        GUESTWIRE_CA=ca_of(server),
    )


class Recipe:
    """A recipe that runs, in a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder

    @property
    def output(self) -> str:
        return (self._folder / "output").read_text()

    @property
    def errors(self) -> str:
        return (self._folder / "errors").read_text()

    async def says(self, words: str) -> None:
        """Waits until these stand in what it says."""
        async with asyncio.timeout(ENDS_WITHIN):
            while words not in self.errors:
                assert self._process.returncode is None, self.errors
                await asyncio.sleep(0.01)

    async def ends(self) -> int:
        """Waits for the end; its exit code."""
        async with asyncio.timeout(ENDS_WITHIN):
            return await self._process.wait()

    def kill(self) -> None:
        """Ends it and all that it started, as the host's end does."""
        os.killpg(self._process.pid, signal.SIGKILL)


def blocks(section: str, here: Mapping[str, object]) -> list[str]:
    """The commands of a section of the page, with the names that are theirs `here`."""
    text = PAGE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for old, new in here.items():
        assert old in text, old
        found = [block.replace(old, str(new)) for block in found]
    return found


@contextlib.asynccontextmanager
async def begun(folder: Path, env: Mapping[str, str], *command: str | Path) -> AsyncIterator[Recipe]:
    """A recipe that begins; `folder` is for what it says."""
    with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=errors, env=dict(env),
            start_new_session=True,
        )  # fmt: skip
    recipe = Recipe(process, folder)
    try:
        yield recipe
    finally:
        with contextlib.suppress(ProcessLookupError):
            recipe.kill()
        await process.wait()


async def done(folder: Path, env: Mapping[str, str], *command: str | Path) -> Recipe:
    """A recipe that must succeed."""
    async with begun(folder, env, *command) as recipe:
        assert await recipe.ends() == 0, recipe.errors
    return recipe


async def tool(*command: str | Path, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code of a program and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=env or environment(),
    )  # fmt: skip
    async with asyncio.timeout(ENDS_WITHIN):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def is_consistent(image: Path) -> bool:
    """True for a raw image whose file system is whole as it is, with nothing left to be done from its journal."""
    code, output = await tool("e2fsck", "-f", "-n", image)
    header = (await tool("dumpe2fs", "-h", image))[1]
    assert "Filesystem features:" in header, header
    return code == 0 and "needs_recovery" not in header and "skipping journal recovery" not in output


async def records_in(image: Path) -> int:
    """How many there are in a raw image that is consistent; none is missing."""
    assert await is_consistent(image)
    plain = image.with_suffix(".records")
    code, output = await tool("debugfs", "-R", f"dump /records {plain}", image)
    assert code == 0, output
    lines = plain.read_text().splitlines()
    assert lines == [f"record {number}" for number in range(1, len(lines) + 1)]
    return len(lines)
