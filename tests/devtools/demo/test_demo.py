"""The demo, as somebody runs it who sees the project for the first time."""

import asyncio
import os
import signal
import sys

import pytest

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
