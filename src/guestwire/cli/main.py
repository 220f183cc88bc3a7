"""`guestwire`, the command."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from guestwire import __version__
from guestwire.cli import access, audit
from guestwire.cli.output import note
from guestwire.errors import GuestwireError, InvalidParameters

NAME: Final = "guestwire"

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as shells have it."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


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
    # Loading the server takes 0.3 s, which the other commands don't need to wait for.
    from guestwire.app import prepare  # noqa: PLC0415

    prepare.serve(config)


app.add_typer(access.app, name="access")
app.command("audit")(audit.audit)


def main() -> None:
    """Runs the command; an error is one line and the exit code of its kind."""
    try:
        sys.exit(app(prog_name=NAME, standalone_mode=False))
    except GuestwireError as error:
        _fail(_one_line(error), error.exit_code)
    except typer.TyperException as error:
        _fail(_usage(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read has gone, as `head` does. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(text: str, code: int) -> None:
    if text:
        note(f"{NAME}: {text}")
    sys.exit(code)


def _one_line(error: GuestwireError) -> str:
    if isinstance(error, InvalidParameters):
        return "; ".join(f"{name}: {text.strip()}" for name, text in error.errors.items())
    return str(error)


def _usage(error: typer.TyperException) -> str:
    """What was wrong with the words of the command, and where the right ones stand."""
    text = error.format_message()
    context = getattr(error, "ctx", None)
    return f"{text} See '{context.command_path if context else NAME} --help'." if text else ""
