"""`guestwire`, the command."""

import contextlib
import os
import sys
from typing import Annotated, Final

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]  # without __all__

from guestwire import __version__
from guestwire.cli.options import EXIT_CODES, Given
from guestwire.cli.output import examples, note
from guestwire.cli.quick import LazyGroup
from guestwire.errors import GuestwireError, InvalidParameters

NAME: Final = "guestwire"
COMPLETE: Final = "_GUESTWIRE_COMPLETE"
"""By which a shell asks for completions."""

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as shells have it."""

EXAMPLES: Final = examples(
    "guestwire --host https://pve1:8006 --token-file token ls",
    "guestwire --host unix:/run/vm/100.qga exec web -- uname -a",
)

# Help without rich: it takes a tenth of a second less.
app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, context_settings={"max_content_width": 120}
)


def _version(wanted: bool) -> None:  # noqa: FBT001  # typer's callback
    if wanted:
        typer.echo(f"guestwire {__version__}")
        raise typer.Exit


@app.callback(cls=LazyGroup, epilog=f"{EXAMPLES}\n\n{EXIT_CODES}")
def guestwire(
    context: typer.Context,
    *,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="https://HOST:8006 (Proxmox VE or guestwire) or unix:/PATH/TO.qga; or GUESTWIRE_HOST.",
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="P", help="A table in ~/.config/guestwire/config.toml; or GUESTWIRE_PROFILE.")
    ] = None,
    token_file: Annotated[
        str | None, typer.Option(metavar="F", help="Holds an API token; or GUESTWIRE_TOKEN_FILE, or GUESTWIRE_TOKEN.")
    ] = None,
    ca: Annotated[
        str | None, typer.Option(metavar="F", help="The CA whose certificates are taken; or GUESTWIRE_CA.")
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(metavar="F", help="SHA-256 of the certificate that is taken; or GUESTWIRE_FINGERPRINT."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Take any certificate: whoever stands between can read and change all.")
    ] = False,
    version: Annotated[  # noqa: ARG001  # its callback acts on it
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Reach inside QEMU virtual machines through their guest agents."""
    context.obj = Given(host, profile, token_file, ca, fingerprint, insecure)


def run() -> None:
    """Runs the command; an error is one line and the exit code of its kind."""
    if COMPLETE in os.environ:
        completion_init()
    try:
        code = app(prog_name=NAME, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except GuestwireError as error:
        _fail(_one_line(error), error.exit_code)
    except typer.TyperException as error:
        _help_if_nothing_was_said(error)
        _fail(_usage(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read has gone, as `head` does.
        _forget_output()
        sys.exit(1)
    except OSError as error:
        _forget_output()
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; check files and standard streams on this machine", 1)


def _forget_output() -> None:
    """Python would complain once more when it flushes at the end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, code: int) -> None:
    if text:
        note(f"{NAME}: {text}")
    sys.exit(code)


def _one_line(error: GuestwireError) -> str:
    if isinstance(error, InvalidParameters):
        return "; ".join(f"{name}: {text.strip()}" for name, text in error.errors.items())
    return str(error)


def _help_if_nothing_was_said(error: typer.TyperException) -> None:
    """Commands that have others below them need one of those; without, the error's text is their help."""
    context = getattr(error, "ctx", None)
    if context and error.format_message() == context.get_help():
        print(context.get_help(), file=sys.stderr)
        sys.exit(error.exit_code)


def _usage(error: typer.TyperException) -> str:
    """What was wrong with the words of the command, and where the right ones stand."""
    text = " ".join(error.format_message().replace("Value error, ", "").split())
    text += "." if text and not text.endswith((".", "?")) else ""
    context = getattr(error, "ctx", None)
    return f"{text} See '{context.command_path if context else NAME} --help'." if text else ""
