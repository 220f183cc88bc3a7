"""Questions to people: whether they mean it, and for passwords."""

import getpass
import sys
from typing import Final

import click

from guestwire.cli.output import visible
from guestwire.errors import RequestError

LONGEST_PASSWORD: Final = 4096
"""Bytes read from standard input: a file given by mistake is not read to its end."""

yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def confirm(question: str, *, yes: bool) -> None:
    """Asks on the terminal, unless `yes` was given.

    Raises:
        RequestError: the answer is not yes, or there is no terminal to ask on.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise RequestError(f"{question} There is no terminal to ask on: give --yes if you mean it")
    print(f"{visible(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RequestError("nothing was changed")


def new_password(userid: str, *, from_stdin: bool) -> str:
    """A new password: typed twice on the terminal, unseen, or the first line of standard input.

    It is never an argument, for every user of the machine can see those.

    Raises:
        RequestError: two different ones, none, no UTF-8, or there is no terminal to ask on.
    """
    if from_stdin:
        return _first_line()
    if not sys.stdin.isatty():
        raise RequestError("there is no terminal to ask for the password on: give it on standard input, with --stdin")
    password = ask_password(f"New password for {visible(userid)}: ")
    if ask_password("The same again: ") != password:
        raise RequestError("these are two different passwords; nothing was changed")
    return password


def ask_password(question: str) -> str:
    """A password, typed on the terminal, unseen.

    Raises:
        RequestError: none was typed.
    """
    try:
        return getpass.getpass(question, sys.stderr)
    except EOFError:
        raise RequestError("no password was given; nothing was changed") from None


def _first_line() -> str:
    line = sys.stdin.buffer.readline(LONGEST_PASSWORD)
    try:
        password = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise RequestError("the password on standard input is not UTF-8 text") from None
    if not password:
        raise RequestError("there is no password on standard input")
    return password
