"""`guestwire completion`: what a shell needs to complete commands, options and the names of guests."""

from typing import Final

import click

from guestwire.cli.output import examples

NAME: Final = "guestwire"
VARIABLE: Final = "_GUESTWIRE_COMPLETE"
"""The environment variable by which a shell asks for completions; click answers in place of the command."""


@click.command(
    "completion",
    epilog=examples(
        "guestwire completion bash > ~/.local/share/bash-completion/completions/guestwire",
        'eval "$(guestwire completion zsh)"',
        "guestwire completion fish > ~/.config/fish/completions/guestwire.fish",
    ),
)
@click.argument("shell", help="Your shell.", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Write the script that completes commands in your shell.

    It completes commands, options and the names of guests: those on the host of the command line, of GUESTWIRE_HOST or
    of the profile.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415  # only this command needs it

    kind = get_completion_class(shell)
    assert kind  # noqa: S101  # click has it for each of the three
    print(kind(context.find_root().command, {}, NAME, VARIABLE).source())
