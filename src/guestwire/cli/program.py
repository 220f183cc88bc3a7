"""`guestwire`, the command."""

import contextlib
import os
import sys
from typing import Final

import click
from click.exceptions import NoArgsIsHelpError

from guestwire.cli.completion import NAME, VARIABLE
from guestwire.cli.lazy_group import LazyGroup
from guestwire.cli.options import EXIT_CODES, Given
from guestwire.cli.output import examples, note
from guestwire.errors import GuestwireError, InvalidParameters

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as shells have it."""

EXAMPLES: Final = examples(
    "guestwire --host https://pve1:8006 --token-file token ls",
    "guestwire --host unix:/run/vm/100.qga exec web -- uname -a",
)


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  # click's callback
    if wanted and not context.resilient_parsing:
        from guestwire import __version__  # noqa: PLC0415  # it is read from metadata, whose modules are slow to load

        print(f"guestwire {__version__}")
        context.exit()


@click.group(
    NAME,
    cls=LazyGroup,
    no_args_is_help=True,
    epilog=f"{EXAMPLES}\n\n{EXIT_CODES}",
    context_settings={"max_content_width": 120, "show_default": True},
)
@click.option(
    "--host",
    metavar="TARGET",
    help="https://HOST:8006 (Proxmox VE or guestwire) or unix:/PATH/TO.qga; or GUESTWIRE_HOST.",
)
@click.option("--profile", metavar="P", help="A table in ~/.config/guestwire/config.toml; or GUESTWIRE_PROFILE.")
@click.option("--token-file", metavar="F", help="Holds an API token; or GUESTWIRE_TOKEN_FILE, or GUESTWIRE_TOKEN.")
@click.option("--ca", metavar="F", help="The CA whose certificates are trusted; or GUESTWIRE_CA.")
@click.option(
    "--fingerprint", metavar="F", help="SHA-256 of the certificate that is trusted; or GUESTWIRE_FINGERPRINT."
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Accept any certificate (insecure: a man in the middle can read and change everything).",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.pass_context
def guestwire(
    context: click.Context,
    *,
    host: str | None,
    profile: str | None,
    token_file: str | None,
    ca: str | None,
    fingerprint: str | None,
    insecure: bool,
) -> None:
    """Reach inside QEMU virtual machines through their guest agents."""
    context.obj = Given(host, profile, token_file, ca, fingerprint, insecure)


def run() -> None:
    """Runs the command; an error is one line and the exit code of its kind."""
    try:
        code = guestwire.main(prog_name=NAME, complete_var=VARIABLE, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except GuestwireError as error:
        _fail(_one_line(error), error.exit_code)
    except NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_usage(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does.
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


def _usage(error: click.ClickException) -> str:
    """What was wrong with the words of the command, and where the right ones stand."""
    text = " ".join(error.format_message().split())
    text += "." if text and not text.endswith((".", "?")) else ""
    context = getattr(error, "ctx", None)
    return f"{text} See '{context.command_path if context else NAME} --help'." if text else ""
