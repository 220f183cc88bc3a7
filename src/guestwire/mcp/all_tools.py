"""Every tool."""

from typing import Final

from guestwire.mcp.tool import Registry
from guestwire.mcp.tools import endpoints, files, guests, processes

TOOLS: Final = Registry(guests.tools, processes.tools, files.tools, endpoints.tools)
