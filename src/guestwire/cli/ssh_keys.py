"""`guestwire ssh-key`: the SSH keys that may log in as a user of a guest."""

import re
import sys
from pathlib import Path
from typing import Final

import click

from guestwire.cli.connecting import guest_argument, on_guest, plain
from guestwire.cli.output import Group, examples, json_option, report, to_json, visible
from guestwire.counting import counted
from guestwire.errors import RequestError

LONGEST: Final = 256 * 1024
"""Bytes of a file with keys: one that was named by mistake is not read to its end."""

_key: Final = re.compile(r"(^|[\s,])(ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+\s+AAAA[A-Za-z0-9+/]+={0,3}(\s|$)")
"""The kind and the key itself; options may stand before, and a comment behind."""

user_argument = click.argument("user", metavar="USER", help="A user in the guest.")
file_argument = click.argument(
    "file", metavar="FILE", help="Public keys, one a line, as ~/.ssh/id_ed25519.pub; - is standard input."
)


@click.group("ssh-key", cls=Group, epilog=examples("guestwire ssh-key push web root ~/.ssh/id_ed25519.pub"))
def ssh_key() -> None:
    """Show and change the SSH keys that may log in."""


@ssh_key.command("list", epilog=examples("guestwire ssh-key list web root"))
@guest_argument
@user_argument
@json_option
@click.pass_context
def list_keys(context: click.Context, guest: str, user: str, *, json: bool) -> None:
    """Show a user's keys, one a line."""
    found = on_guest(context, guest, lambda one: one.ssh_get_authorized_keys(user))
    if json:
        print(to_json(plain(found), indent=2))
    else:
        for key in found.keys:
            print(visible(key))


@ssh_key.command(
    "push",
    epilog=examples(
        "guestwire ssh-key push web root ~/.ssh/id_ed25519.pub", "guestwire ssh-key push --only web root - < team.keys"
    ),
)
@guest_argument
@user_argument
@file_argument
@click.option("--only", help="Remove the user's other keys.", is_flag=True)
@json_option
@click.pass_context
def push(context: click.Context, guest: str, user: str, file: str, *, only: bool, json: bool) -> None:
    """Let keys log in as a user."""
    keys = public_keys_in(file)
    for number, key in enumerate(keys, 1):
        if not _key.search(key):  # the agent writes whatever it gets
            raise RequestError(f"{file}: key {number} of {len(keys)} is no public key: nothing was sent")
    on_guest(context, guest, lambda one: one.ssh_add_authorized_keys(user, keys, reset=only))
    words = f"{guest}: {counted(len(keys), 'key')} may log in as {user}{', and no other' if only else ''}"
    report({}, words, as_json=json)


@ssh_key.command("remove", epilog=examples("guestwire ssh-key remove web root old.pub"))
@guest_argument
@user_argument
@file_argument
@json_option
@click.pass_context
def remove(context: click.Context, guest: str, user: str, file: str, *, json: bool) -> None:
    """Let keys log in as a user no more."""
    keys = public_keys_in(file)
    on_guest(context, guest, lambda one: one.ssh_remove_authorized_keys(user, keys))
    report({}, f"{guest}: {counted(len(keys), 'key')} can't log in as {user} any more", as_json=json)


def public_keys_in(file: str) -> list[str]:
    """The keys of a file, without comments.

    Raises:
        RequestError: there are none, or it is no such file. A private key is never sent.
        OSError: it can't be read.
    """
    if file == "-":
        data = sys.stdin.buffer.read(LONGEST + 1)
    else:
        with Path(file).open("rb") as source:
            data = source.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise RequestError(f"{file}: this is no file of public keys: it has more than {LONGEST} bytes")
    if b"PRIVATE KEY" in data:
        raise RequestError(f"{file}: this is a private key: nothing was sent; name the file with .pub at its end")
    try:
        lines = [line.strip() for line in data.decode().splitlines()]
    except UnicodeDecodeError:
        raise RequestError(f"{file}: this is no file of public keys") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise RequestError(f"{file}: there is no key in it")
    return keys
