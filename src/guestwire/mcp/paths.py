"""Paths in a guest under a policy: resolved there, so that no link and no `..` leads around a rule."""

from typing import Final

from guestwire.client import CallFailed, Guest
from guestwire.client.errors import AgentRefused, PrivilegeMissing
from guestwire.mcp.policy import Refused, Rule

LONGEST: Final = 4096


async def to_read(guest: Guest, rule: Rule, path: str) -> str:
    """The path itself where all may be read; else what it leads to, which is checked.

    Raises:
        Refused: it may not be read, or can't be resolved.
        CallFailed: see `client.errors`.
    """
    if rule.read is None:
        return path
    resolved = await _resolved(guest, path)
    rule.check_read(resolved)
    return resolved


async def to_list(guest: Guest, rule: Rule, path: str) -> str:
    """As `to_read`, for a folder: a rule for all below it is one for the folder."""
    if rule.read is None:
        return path
    resolved = await _resolved(guest, path)
    rule.check_read(resolved.rstrip("/") + "/")
    return resolved


async def to_write(guest: Guest, rule: Rule, path: str) -> str:
    """As `to_read`, for a file that is written; it need not be there, its folder must."""
    if rule.write is None:
        return path
    resolved = await _resolved(guest, path)
    rule.check_write(resolved)
    return resolved


async def still(guest: Guest, resolved: str, *, restricted: bool) -> None:
    """Refuses what was read when the path leads elsewhere by now: somebody moved folders about meanwhile.

    Raises:
        Refused: it does.
    """
    if restricted and await _resolved(guest, resolved) != resolved:
        raise Refused("the path leads elsewhere since it was checked; nothing of it is shown")


async def _resolved(guest: Guest, path: str) -> str:
    if not path.startswith("/") or "\0" in path or len(path) > LONGEST:
        raise Refused(
            "where only some paths may be used, a path is absolute: /… (in Windows guests none can be checked)"
        )
    try:
        ended = await guest.run(["readlink", "-f", "--", path])
    except PrivilegeMissing as error:
        raise Refused(f"paths are restricted, and links can't be resolved in the guest: {error.words}") from error
    except AgentRefused as error:
        raise Refused("paths are restricted, and this guest has no `readlink` to resolve links with") from error
    if not ended.ok or not ended.stdout.startswith(b"/"):
        raise CallFailed(guest.place, f"{path}: no such file, or its folder is not there")
    try:
        return ended.stdout.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise Refused("where only some paths may be used, a path is UTF-8; this one leads to one that is not") from None
