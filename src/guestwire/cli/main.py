"""`guestwire`, the command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from guestwire import __version__
from guestwire.app import prepare
from guestwire.errors import GuestwireError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:  # noqa: FBT001  # typer's callback
    if wanted:
        typer.echo(f"guestwire {__version__}")
        raise typer.Exit


@app.callback()
def guestwire(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Reach inside QEMU virtual machines through their guest agents."""


@app.command()
def serve(config: Annotated[Path, typer.Option(help="The configuration file.", metavar="FILE")]) -> None:
    """Serve the guest agent API of Proxmox VE."""
    prepare.serve(config)


def main() -> None:
    """Runs the command; an error is one line and the exit code of its kind."""
    try:
        app()
    except GuestwireError as error:
        print(f"guestwire: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
