"""The MCP server: guests for AI assistants, as tools, resources and prompts.

A policy decides what they may do before anything happens.
"""
