"""The MCP server: how soon it is ready, what a call costs above the client's own, and how much room its answers take."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from bench.results import ASSISTANTS, Row
from bench.timing import Effort, Samples, timed_async
from guestwire.client import Guest, connect
from guestwire.testing.sandbox import SandboxedAgent

READY: Final = 600
"""Milliseconds from the start of the process until it has answered `initialize`."""

MORE: Final = 5.0
"""Milliseconds of a call beyond the client's own."""

MOST: Final = {"few": 12_000, "every": 40_000, "overview": 2_500}
"""Characters."""

EVERY: Final = ("--allow", "all", "--tools", "every")
LEAST: Final = """
import asyncio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

async def main():
    server = Server("least")
    async with stdio_server() as (reads, writes):
        await server.run(reads, writes, server.create_initialization_options())

asyncio.run(main())
"""
"""A server on the same SDK that has nothing."""


async def measure(effort: Effort) -> list[Row]:
    """Starts agents and servers, measures, and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="gw-bench-") as name:
        folder = Path(name)
        async with SandboxedAgent(folder / "web.qga") as agent, SandboxedAgent(folder / "own.qga") as own:
            server = _server(folder, "-m", "guestwire", "--host", f"unix:{agent.socket}", "mcp")
            return [
                await _ready(folder, server, effort),
                *await _sizes(server),
                *await _calls(_with(server, "--policy", str(_policy(folder))), f"unix:{own.socket}", effort),
            ]


def _policy(folder: Path) -> Path:
    path = folder / "policy.toml"
    path.write_text('allow = ["all"]\n[limits]\ncalls_per_minute = 1000000\n')
    return path


def _server(folder: Path, *words: str) -> StdioServerParameters:
    """Compiled files are there, as where guestwire is installed; the first start makes them."""
    kept = {word: value for word, value in os.environ.items() if not word.startswith(("PYTHON", "GUESTWIRE"))}
    environment = {**kept, "PYTHONPYCACHEPREFIX": str(folder / "compiled"), "XDG_STATE_HOME": str(folder)}
    return StdioServerParameters(command=sys.executable, args=list(words), env=environment)


def _with(server: StdioServerParameters, *words: str) -> StdioServerParameters:
    return server.model_copy(update={"args": [*server.args, *words]})


async def _ready(folder: Path, server: StdioServerParameters, effort: Effort) -> Row:
    least, found = [], []
    for number in range(2 * effort.rounds + 1):
        pair = await _start(_server(folder, "-c", LEAST)), await _start(server)
        if number:
            least.append(pair[0])
            found.append(pair[1])
    one, other = Samples(least).median, Samples(found).median
    name = "ready on standard input and output, median (raw: an empty server on the same SDK)"
    return Row(ASSISTANTS, name, "ms", one, other, f"under {READY} ms", other < READY)


async def _start(server: StdioServerParameters) -> float:
    began = time.perf_counter()
    async with Client(server):
        return (time.perf_counter() - began) * 1000


async def _sizes(server: StdioServerParameters) -> list[Row]:
    async with Client(_with(server, *EVERY, "--copy-folder", "/tmp")) as client:  # nothing is copied
        every = await _listed(client)
    async with Client(server) as client:
        few = await _listed(client)
        overview = await client.call_tool("guest_overview", {"guest": "web"})
    said = sum(len(getattr(item, "text", "")) for item in overview.content)
    return [
        _size("the list of tools", few, "few"),
        _size("the list of all tools", every, "every"),
        _size("an answer to guest_overview", said, "overview"),
    ]


async def _listed(client: Client) -> int:
    tools = (await client.list_tools()).tools
    return len(json.dumps([tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]))


def _size(name: str, found: int, most: str) -> Row:
    return Row(ASSISTANTS, name, "characters", None, found, f"under {MOST[most]}", found < MOST[most])


async def _calls(server: StdioServerParameters, own: str, effort: Effort) -> list[Row]:
    async with Client(server) as client, await connect(own) as host:
        guest = await host.guest("own")
        return [
            await _compared(name, effort, alone, partial(client.call_tool, name, {"guest": "web"} | words))
            for name, words, alone in _pairs(guest)
        ]


def _pairs(guest: Guest) -> list[tuple[str, dict[str, Any], Callable[[], Awaitable[object]]]]:
    """A tool with its parameters, and the same without the server between."""
    return [
        ("ping", {}, guest.ping),
        ("get_osinfo", {}, guest.get_osinfo),
        ("run_command", {"command": ["true"]}, lambda: guest.run(["true"])),
        ("read_text_file", {"path": "/etc/hostname"}, lambda: guest.read_file("/etc/hostname")),
    ]


async def _compared(
    name: str, effort: Effort, alone: Callable[[], Awaitable[object]], call: Callable[[], Awaitable[object]]
) -> Row:
    direct, found = [], []
    for _ in range(effort.rounds):
        direct += await timed_async(effort.calls // 10, alone)
        found += await timed_async(effort.calls // 10, call)
        await asyncio.sleep(0)
    one, other = Samples(direct).median, Samples(found).median
    name = f"{name}, median (raw: the client's own call)"
    return Row(ASSISTANTS, name, "ms", one, other, f"at most {MORE:g} ms more", other <= one + MORE)
