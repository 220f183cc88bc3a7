"""Each message that was seen has its advice, and each advice a message that was seen."""

import pytest

from guestwire.client import advice
from guestwire.client.advice import FROZEN, LOOK, MAKE_ROOM, NO_SUCH_PROCESS, SWITCHED_OFF, TOO_LONG, hint_for
from guestwire.client.errors import (
    LOCKED,
    AgentRefused,
    AgentTookTooLong,
    CallFailed,
    ErrorContext,
    GuestStopped,
    StillFrozen,
    failure,
)

CONTEXT = ErrorContext("pve1", "web (100)")

SEEN = {
    "Command guest-exec has been disabled: the agent is in frozen state": FROZEN,
    "Command guest-exec has been disabled: the command is not allowed": SWITCHED_OFF,
    "The command guest-get-load has not been found": SWITCHED_OFF,
    "The command guest-exec has been disabled for this instance": SWITCHED_OFF,
    "PID ld does not exist": NO_SUCH_PROCESS,
    "PID 4711 does not exist": NO_SUCH_PROCESS,
    "Invalid parameter 'pid'": NO_SUCH_PROCESS,
    "couldn't hold writes: fsfreeze is limited up to 10 seconds: (error: 80042314)": "Windows ends a freeze",
    "fsfreeze hook has failed with status 1": "fsfreeze-hook.d",
    "hook script has failed with status: 1": "fsfreeze-hook.d",
    "forbidden characters in username": "no ':'",
    "forbidden characters in raw password": "without a line end",
    "child process has failed to set user password: chpasswd: (user nobodyhere) pam_chauthtok() failed": "check that the guest has such a user",
    "suspend: cannot write to '/sys/power/state': Cannot allocate memory": "can't be suspended in this way",
    "unknown guest suspend mode": "can't be suspended in this way",
    "Base64 data contains invalid characters": "not base64",
    "Failed to execute child process “true” (Argument list too long)": TOO_LONG,
    "sh: 1: /bin/echo: Argument list too long": TOO_LONG,
    "Guest agent command failed, error was 'Failed to execute child process “/x” (Permission denied)'": "make it executable",
    "this agent (7.2.22) has no guest-get-load: there is one since QEMU 10.0": "install a newer qemu-guest-agent",
    "this agent can't merge outputs: one can since QEMU 8.0 (Invalid parameter type)": "install a newer qemu-guest-agent",
    "guest-get-disks is switched off in the guest, by the policy of its agent (7.2.22)": "--block-rpcs",
    "no agent of this system (debian) has guest-get-devices": "another system's agents",
    "guest-get-disks can't be used while the agent is in frozen state": "guestwire thaw",
    "failed to read '/home/alice/.ssh/authorized_keys': Failed to open file “/home/alice/.ssh/authorized_keys”: No such file or directory": "has no keys yet",
    "failed to lookup user 'nobodyhere': Success": "has such a user",
    "invalid OpenSSH public key: 'a\nb'": "one line of a .pub file",
    "child process has failed to set hardware clock to system time: failed to exec '/sbin/hwclock': No such file or directory": "lacks hwclock",
    "logical processor #0 can't be offlined": "guestwire vcpus",
    "Failed to execute child process “/x” (Exec format error)": "no program for this system",
    "Failed to execute child process “/x” (Cannot allocate memory)": "lacks memory, or may",
    "Failed to execute child process “/no/such” (No such file or directory)": "check the program's name",
    "Guest agent command failed, error was 'Failed to execute child process “/no/such” (No such file or directory)'": "check the program's name",
    "write failed: No space left on device": MAKE_ROOM,
    "There is not enough space on the disk.": MAKE_ROOM,
    "dd: error writing '/root/f': Disk quota exceeded": MAKE_ROOM,
    "failed to open file '/usr/x' (mode: 'wb'): Read-only file system": "mount it writable",
    "failed to open file '/bin/x' (mode: 'wb'): Text file busy": "a program runs from this file",
    "mv: cannot move 'a' to 'b': Device or resource busy": "something is mounted there",
    "mv: can't rename 'a': Resource busy": "something is mounted there",
    "failed to open file '/root/xxx' (mode: 'wb'): File name too long": "shorter name",
    "failed to open file '/root/loop' (mode: 'r'): Too many levels of symbolic links": "lead to each other",
    "failed to open file '/root/f' (mode: 'r'): Too many open files": "too many files open",
    "read failed: Input/output error": "can't be read so",
    "rm: cannot remove 'f': Operation not permitted": "lsattr",
    "failed to open file '/etc/passwd/x' (mode: 'r'): Not a directory": "a part of this path is a file",
    "failed to open file '/root/adir' (mode: 'wb'): Is a directory": "guestwire cp -r",
    "failed to read file: Is a directory": "guestwire cp -r",
    "/root/adir: is a directory": "guestwire cp -r",
    "of 2 mount points only 1 could be frozen; they are thawed again": "name each of them once",
    "/dev/null: is no regular file": "name a regular file",
    "failed to open file '/nope' (mode: 'r'): No such file or directory": LOOK,
    "sh: 1: cd: can't cd to /nope": LOOK,
    "failed to open file '/root/hook script' (mode: 'r'): No such file or directory": LOOK,
    "failed to open file '/sys/power/state' (mode: 'wb'): Permission denied": "SELinux or AppArmor",
    "failed to open file '/srv/No space left/x' (mode: 'wb'): Is a directory": "guestwire cp -r",
    "failed to open file 'C:\\Text file busy' (mode: 'wb'): No such file or directory": LOOK,
    "Could not find file 'C:\\x'.": LOOK,
    "failed to open file '/etc/shadow' (mode: 'r'): Permission denied": "SELinux or AppArmor",
    "Access to the path 'C:\\x' is denied.": "the file's permissions",
    "/root/x: it is gone; another copy to the same place may have ended": "copy again",
}  # fmt: skip

WITHOUT = [
    "tail: f: file truncated",
    "grep: hook: binary file matches",
    "sh: 1: foo: not found",
    "bash: foo: command not found",
    "value '5' is invalid for argument count",
    "handle '1000' has not been found",
]
"""Messages to which nothing can be said that is sure."""


@pytest.mark.parametrize("message", SEEN)
def test_each_message_has_its_advice(message: str) -> None:
    assert SEEN[message] in hint_for(message)


@pytest.mark.parametrize("message", WITHOUT)
def test_no_message_has_the_advice_of_another(message: str) -> None:
    assert hint_for(message) == ""


def test_each_advice_has_a_message() -> None:
    given = {hint_for(message) for message in SEEN}

    assert given == {hint for _, hint in advice._TABLE}


@pytest.mark.parametrize(
    ("message", "kind", "advice_of_it"),
    [
        ("can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout", CallFailed, LOCKED),
        ("cfs-lock 'file-user_cfg' error: got lock request timeout", CallFailed, LOCKED),
        ("VM 100 qga command 'guest-ping' failed - got timeout", AgentTookTooLong, "the agent may be busy"),
        ("VM 100 is not running", GuestStopped, "start the VM"),
    ],
)
def test_a_servers_message_has_the_advice_of_its_error(message: str, kind: type[CallFailed], advice_of_it: str) -> None:
    error = failure(CONTEXT, 500, message)

    assert type(error) is kind
    assert advice_of_it in error.hint


def test_a_shell_that_finds_no_command_is_no_agent_that_lacks_one() -> None:
    assert not AgentRefused(CONTEXT, "GenericError", "sh: guestfoo: command not found").is_disabled
    assert AgentRefused(CONTEXT, "GenericError", "The command guest-exec has not been found").is_disabled
    assert AgentRefused(CONTEXT, "CommandNotFound", "nothing that is known").hint == SWITCHED_OFF
    assert "thaw them at once" in str(StillFrozen(CONTEXT, "x"))
