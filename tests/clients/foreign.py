"""Programs of others that work with Proxmox VE, as their registries have them: they must not notice the difference."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import site, vm
from serving import Serving

from guestwire.testing import SandboxedAgent

CLIENTS = Path(__file__).parent.parent.parent / ".tools" / "clients"
ENDS_WITHIN = 180.0

DETAILS = """tags = ["prod", "web-tier"]
description = '{"groups": ["shop"]}'
"""


def installed(place: str) -> pytest.MarkDecorator:
    """Skips what `./dev test` could not install."""
    there = (CLIENTS / place / "installed").exists()
    return pytest.mark.skipif(not there, reason=f"`./dev test` installs {place}, from its registry")


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Serving]:
    """One VM that runs, with a real agent, and one that does not and has no name."""
    vms = (vm(100, "web") + DETAILS, vm(101, running="false"))
    async with Serving.of(site(*vms)) as server, SandboxedAgent(server.folder / "100.qga", name="inside"):
        yield server


def token_of(server: Serving) -> tuple[str, str, str]:
    """User, name and secret of the administrator's token."""
    user, _, token = server.token.partition("!")
    name, _, secret = token.partition("=")
    return user, name, secret


async def run(*command: object, folder: Path, **environment: str) -> str:
    """What a program prints; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=folder, env=os.environ | environment,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(ENDS_WITHIN):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{output.decode()}\n{errors.decode()}"
    return output.decode()
