"""The command line."""

from guestwire.cli.main import main

__all__ = ["main"]
