"""Tools by what they are about; all of them together are `mcp.all_tools.TOOLS`."""
