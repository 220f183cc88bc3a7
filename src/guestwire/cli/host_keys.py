"""A guest's name for OpenSSH, and its SSH host keys, read through its agent: what the agent says needs no question of trust."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from guestwire.errors import GuestwireError, RequestError

if TYPE_CHECKING:
    from guestwire.client import Guest

FILES: Final = tuple(f"/etc/ssh/ssh_host_{kind}_key.pub" for kind in ("ed25519", "ecdsa", "rsa"))
"""Where OpenSSH's server has them unless its configuration says something else."""

SUFFIX: Final = ".guest"
"""Ends the names of guests in `~/.ssh/config`."""

LONGEST: Final = 16 * 1024
"""Bytes of a file with one key: a guest may give a file of any length."""

_odd: Final = re.compile(r"[^\w.-]|\A-")
_node_and_id: Final = re.compile(r"([A-Za-z0-9-]+)[/+]([1-9][0-9]{2,8})")
"""With a plus for ssh: a slash would make a path of it for scp, and a dot another VM's name, as `release.2024`."""

_key: Final = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) +(AAAA[A-Za-z0-9+/]+={0,3})(?:\s|\Z)")
"""The kind and the key itself. Nothing else of the guest's gets into a file that OpenSSH reads."""


class NoHostKeys(GuestwireError):
    """The guest has no SSH server, or its host keys are not where they should be."""

    exit_code = 3


def ssh_name(guest: str) -> str:
    """A guest's name as ssh takes it: `pve1+100.guest` for `pve1/100`, `my_vm.guest` for `my vm`."""
    found = _node_and_id.fullmatch(guest)
    return (f"{found[1]}+{found[2]}" if found else _odd.sub("_", guest)) + SUFFIX


def guest_of(name: str) -> str:
    """The guest that somebody means who says this name to ssh: `web` by `web.guest`, `pve1/100` by `pve1+100.guest`.

    Raises:
        RequestError: it is no guest's, or would lead to a file elsewhere.
    """
    guest = name.removesuffix(SUFFIX)
    if guest in ("", name) or "/" in name:
        raise RequestError(f"'{name}' is no guest's name for ssh; write web{SUFFIX}, 100{SUFFIX} or pve1+100{SUFFIX}")
    found = _node_and_id.fullmatch(guest)
    return f"{found[1]}/{found[2]}" if found else guest


async def read_host_keys(guest: "Guest") -> list[str]:
    """The public host keys, each as its kind and its key.

    Raises:
        NoHostKeys: there are none.
        CallFailed: they can't be read; see `client.errors`.
    """
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    contents = await asyncio.gather(*(_content(guest, path) for path in FILES))
    matches = filter(None, (_key.match(data.decode("ascii", "replace")) for data in contents))
    found = [f"{match[1]} {match[2]}" for match in matches]
    if not found:
        raise NoHostKeys(
            f"{guest.context}: no SSH host keys in /etc/ssh; install an SSH server in the guest, as openssh-server"
        )
    return found


async def _content(guest: "Guest", path: str) -> bytes:
    """The beginning of a file; nothing of one that is not there."""
    from guestwire.client.errors import CallFailed, is_no_such_file  # noqa: PLC0415  # as above

    try:
        async with guest.open(path) as file:
            return await file.read(LONGEST)
    except CallFailed as error:
        if not is_no_such_file(error):
            raise
        return b""


async def write_known_hosts(guest: "Guest", alias: str, path: Path) -> None:
    """Writes the host keys to a file of its own, under the name that `ssh` looks for.

    Others may read the file at the same time: they find the old one or the new one, and it is whole.

    Raises:
        NoHostKeys: see `read_host_keys`.
        OSError: the file can't be written.
    """
    text = "".join(f"{alias} {key}\n" for key in await read_host_keys(guest))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    beside.replace(path)
