"""`guestwire completion`: what a shell needs to complete commands, options and the names of guests."""

from enum import StrEnum
from typing import Annotated, Final

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # without __all__

from guestwire.cli.quick import add

NAME: Final = "guestwire"
VARIABLE: Final = "_GUESTWIRE_COMPLETE"
"""By which a shell asks for completions; `main` answers."""


class Shell(StrEnum):
    """Shells that it is there for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def register(app: typer.Typer) -> None:
    """Adds this command."""
    add(
        app,
        "completion",
        completion,
        "guestwire completion bash > ~/.local/share/bash-completion/completions/guestwire",
        'eval "$(guestwire completion zsh)"',
        "guestwire completion fish > ~/.config/fish/completions/guestwire.fish",
    )


def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.", show_default=False)]) -> None:
    """Write the script that completes commands, options and names of guests in your shell.

    Names of guests are those on the host of the command line, of GUESTWIRE_HOST or of the profile.
    """
    print(get_completion_script(prog_name=NAME, complete_var=VARIABLE, shell=shell.value))
