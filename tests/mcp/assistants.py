"""An assistant's side: the official SDK's client, with the real command behind it."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult

from guestwire.mcp.call_log import refused_path

ALL = ("--allow", "all", "--tools", "every")


@dataclass
class Assistant:
    """A client that is connected; `records` is what the server wrote about its calls."""

    client: Client
    path: Path

    async def __call__(self, tool: str, **arguments: Any) -> CallToolResult:
        return await self.client.call_tool(tool, arguments)

    async def did(self, tool: str, **arguments: Any) -> Any:
        """The structured result of a call that goes well."""
        result = await self(tool, **arguments)
        assert not result.is_error, text_of(result)
        return result.structured_content

    async def refused(self, tool: str, **arguments: Any) -> str:
        """What is said of a call that does not."""
        result = await self(tool, **arguments)
        assert result.is_error, result.structured_content
        return text_of(result)

    async def names(self) -> list[str]:
        return [tool.name for tool in (await self.client.list_tools()).tools]

    @property
    def errors(self) -> str:
        """What the server wrote to standard error."""
        return (self.path.parent / "errors").read_text()

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of all calls, in order: those of what was done, and those of what was refused or asked."""
        files = [path for path in (self.path, refused_path(self.path)) if path.exists()]
        found = [json.loads(line) for path in files for line in path.read_text().splitlines()]
        return sorted(found, key=lambda record: str(record["time"]))


def text_of(result: CallToolResult) -> str:
    return "".join(getattr(item, "text", "") for item in result.content)


@asynccontextmanager
async def assistant(folder: Path, target: list[str], *options: str, **client: Any) -> AsyncIterator[Assistant]:
    """Connected over standard input and output; `target` is what stands before the command."""
    records = folder / "records.jsonl"
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "guestwire", *target, "mcp", "--records", str(records), *options]
    )
    with (folder / "errors").open("w") as errors:
        async with Client(stdio_client(parameters, errors), **client) as connected:
            yield Assistant(connected, records)
