"""Errors of the client for an assistant: whose words they are, and what to do next, with tools in place of commands."""

import re
from typing import Final

from guestwire.client import CallFailed
from guestwire.client.errors import (
    AgentTookTooLong,
    AgentUnavailable,
    GuestStopped,
    LocalFile,
    LoginFailed,
    NoSuchEndpoint,
    NoSuchGuest,
    PrivilegeMissing,
    Unreachable,
    WrongParameters,
)
from guestwire.mcp.display import delimit, sanitize

LONGEST: Final = 800

HOST_ERRORS: Final = (
    AgentUnavailable, AgentTookTooLong, GuestStopped, LocalFile, LoginFailed, NoSuchEndpoint, NoSuchGuest, PrivilegeMissing,
    Unreachable, WrongParameters,
)  # fmt: skip
"""Errors in the host's words, or our own. In all others may be words of the guest."""

TOOLS: Final = {
    "agent": "diagnose",
    "api": "agent_index",
    "cat": "read_text_file",
    "df": "get_fsinfo",
    "doctor": "diagnose",
    "edit": "write_text_file",
    "exec": "run_command",
    "ls": "list_guests",
    "ssh-key": "ssh_add_authorized_keys",
    "status": "exec_status",
    "thaw": "fsfreeze_thaw",
    "trim": "fstrim",
    "vcpus": "get_vcpus",
}
"""By the command that does the same."""

_command = re.compile(r"`?guestwire (?P<name>[a-z-]+)(?P<words>[^`;,]*)`?")


def describe_error(error: CallFailed) -> str:
    """Tells an error: the place, the event in the words of its source, and the next step."""
    where, words = sanitize(str(error.context)), sanitize(error.message)[:LONGEST]
    if isinstance(error, HOST_ERRORS):
        return f"{where}: {words}" + (f"; {advice(error)}" if error.hint else "")
    return f"{delimit(words, where)}" + (f"\nNext: {advice(error)}" if error.hint else "")


def advice(error: CallFailed) -> str:
    """The next step, for a caller who has tools and no command line."""
    return _command.sub(_tool, error.hint.removesuffix(", or copy all of it with `guestwire cp -r`"))


def _tool(command: re.Match[str]) -> str:
    if command["name"] == "ls" and ":" in command["words"]:
        return "list_directory"
    return TOOLS.get(command["name"], command[0])
