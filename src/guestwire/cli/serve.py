"""`guestwire serve`: the server."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from guestwire.cli.main import USUAL
from guestwire.cli.quick import add


def register(app: typer.Typer) -> None:
    """Adds this command."""
    add(app, "serve", serve, "guestwire serve --config guestwire.toml")


def serve(config: Annotated[Path, typer.Option(help="The configuration file.", metavar="FILE")]) -> None:
    """Serve the guest agent API of Proxmox VE."""
    # Loading the server takes 0.3 s, which `--help` doesn't need to wait for.
    from guestwire.app import prepare  # noqa: PLC0415

    gc.set_threshold(*USUAL)  # a server lives long
    prepare.serve(config)
