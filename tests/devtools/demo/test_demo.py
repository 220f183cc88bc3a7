"""The demo, as somebody runs it who sees the project for the first time."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from devtools.demo.folder import remove_left
from devtools.guests import GuestImage

ENDS_WITHIN = 180.0
ROUTES = 27


@pytest.mark.guest
async def test_every_route_does_what_it_should_in_a_real_guest(image: GuestImage) -> None:
    """The image is there before, so that building it takes none of the time."""
    assert image.agent_version
    code, output = await run(sys.executable, "-m", "devtools.demo", "--once")

    assert code == 0, output
    assert f"{ROUTES} of {ROUTES} routes did what they should." in output
    rows = [line for line in output.splitlines() if line.strip(" │┃").startswith(("GET agent", "POST agent"))]
    assert len(rows) == ROUTES, output


async def run(*command: str) -> tuple[int, str]:
    """Runs a program to its end, with all that it starts."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True
    )
    try:
        async with asyncio.timeout(ENDS_WITHIN):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, output.decode()


AT_WORK = " up after "
WITH_TWO_GUESTS = " ssh --push-key root@debian "


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", [AT_WORK, WITH_TWO_GUESTS])
async def test_every_end_of_the_demo_ends_its_server_and_its_guests(
    image: GuestImage, debian_image: GuestImage, folder: Path, moment: str, signum: signal.Signals
) -> None:
    """In the middle of its work; and when it stays, and the lines that it shows for another guest work."""
    assert image.agent_version
    assert debian_image.disk  # it is there, so that building it takes none of the time
    stays = moment == WITH_TWO_GUESTS
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "devtools.demo", *(["--serve"] if stays else []),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    assert process.stdout
    async with asyncio.timeout(ENDS_WITHIN):
        while moment not in (line := (await process.stdout.readline()).decode()):
            assert line, "the demo has ended"
        if stays:
            assert await run("sh", "-c", f"{line.strip()} -o BatchMode=yes uname -n") == (0, "debian\n")
        while len(children := [int(pid) for pid in children_of(process.pid)]) < (3 if stays else 2):
            await asyncio.sleep(0.05)
        process.send_signal(signum)
        await process.stdout.read()
        await process.wait()
        while any(Path(f"/proc/{pid}").exists() for pid in children):  # nobody tells
            await asyncio.sleep(0.05)
    remove_left(folder)  # as the next demo does
    assert list(folder.iterdir()) == []


def children_of(pid: int) -> list[str]:
    return " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
