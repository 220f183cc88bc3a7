"""The MCP server: guests for AI assistants, as tools, resources and prompts; what they may do is decided before anything happens."""
