"""Advice: what to do next after a message, for each message that guests, agents and servers were seen to send.

The first row that fits counts, so that what says more comes before what says less.
"""

import re
from typing import Final

FROZEN: Final = "its file systems are frozen, for a snapshot or backup; when that is done: `guestwire thaw GUEST`"

SWITCHED_OFF: Final = "the command is switched off in the guest, or its agent does not know it: `guestwire agent GUEST` says which, and what allows it (--allow-rpcs and --block-rpcs of qemu-ga)"

TOO_OLD: Final = (
    "install a newer qemu-guest-agent in the guest: `guestwire agent GUEST` says whether its system has one"
)

BY_POLICY: Final = (
    "in the guest, take it out of qemu-ga's --block-rpcs, or add it to its --allow-rpcs, and start it again:"
    " `guestwire agent GUEST` shows the line"
)

OTHER_SYSTEM: Final = "another system's agents have it"

LOOK: Final = "`guestwire ls GUEST:FOLDER` shows what is there"
MAKE_ROOM: Final = "make room in the guest (`guestwire df GUEST` shows where), then do it again"
NO_SUCH_PROCESS: Final = "this agent did not start such a process, or its result was collected before"
TOO_LONG: Final = (
    "Linux takes 131,071 bytes for one argument, and about 2 MiB for all: pass it as standard input, or in a file"
)

_NOT_STARTED: Final = r"execute child process .*\("

_TABLE: Final = (
    # The agent itself
    (r"the agent is in frozen state", FROZEN),
    (r"only \d+ could be frozen", "`guestwire df GUEST` shows where file systems are mounted: name each of them once"),
    (r"there is one since QEMU|one can since QEMU", TOO_OLD),
    (r"switched off in the guest, by the policy", BY_POLICY),
    (r"^no agent of this system", OTHER_SYSTEM),
    (r"ommand \S+ has been disabled|ommand \S+ has not been found", SWITCHED_OFF),
    (r"Invalid parameter 'pid'|PID \S+ does not exist", NO_SUCH_PROCESS),
    (r"limited up to 10 seconds", "Windows ends a freeze after ten seconds: take the snapshot within them"),
    (r"fsfreeze hook|hook script", "see the guest's /etc/qemu/fsfreeze-hook.d, and run its scripts there by hand"),
    (r"authorized_keys.*No such file", "the user has no keys yet: `guestwire ssh-key push GUEST USER FILE` adds some"),
    (r"failed to lookup user", "check that the guest has such a user"),
    (r"invalid OpenSSH public key", "a key is one line of a .pub file"),
    (r"hardware clock|hwclock", "the clock of the guest's system is set; the VM's, which it starts with, is not: the guest lacks hwclock, or its device"),
    (r"processor #\d+ can't be offlined", "`guestwire vcpus GUEST` shows which can"),
    (r"forbidden characters in username", "a user's name has no ':' and no line end"),
    (r"forbidden characters in raw password", "take a password without a line end"),
    (r"set user password|not known to the underlying auth", "check that the guest has such a user, and that its policy accepts the password"),
    (r"unknown guest suspend mode|suspend: cannot write|suspend mode is not supported", "this guest can't be suspended in this way; see its BIOS, swap and /sys/power/state"),
    (r"Base64 data", "the content is not base64; encode=1 takes text"),
    # Programs
    (_NOT_STARTED + r"Argument list too long|Argument list too long", TOO_LONG),
    (_NOT_STARTED + r"Permission denied", "make it executable for the agent's user, and see what SELinux or AppArmor allows the agent"),
    (_NOT_STARTED + r"Exec format error", "it is no program for this system; give a script to its interpreter: sh SCRIPT"),
    (_NOT_STARTED + r"(?:Cannot allocate memory|Resource temporarily unavailable)", "the guest lacks memory, or may have no more processes: try again, or stop something in it"),
    (r"execute child process", "check the program's name in the guest, or give its path; no shell is between: for a command of a shell, sh -c 'COMMAND'"),
    # Files
    (r"No space left|not enough space|quota exceeded", MAKE_ROOM),
    (r"Read-only file system", "choose another folder, or mount it writable in the guest"),
    (r"Text file busy", "a program runs from this file: stop it first"),
    (r"[Rr]esource busy", "something is mounted there, or a program uses it: unmount it, or stop the program"),
    (r"File name too long", "give a shorter name"),
    (r"Too many levels of symbolic links|ELOOP", "its links lead to each other: name the file itself"),
    (r"Too many open files", "the guest's agent, or a program of it, has too many files open: restart it"),
    (r"Input/output error", "it is a device that can't be read so, or the guest's disk has errors: see its kernel's log"),
    (r"[Oo]peration not permitted", "the guest's system forbids it: see the file's attributes (lsattr), its mount, and SELinux or AppArmor"),
    (r"Not a directory", "a part of this path is a file and no folder: `guestwire ls GUEST:FOLDER` shows which"),
    (r"[Ii]s a directory", "name a file in it, or copy all of it with `guestwire cp -r`"),
    (r"no regular file", "it is a device, a pipe or a socket: name a regular file"),
    (r"No such file or directory|can't cd to|Could not find", LOOK),
    (r"[Pp]ermission denied", "the agent's user may not; see what the guest's SELinux or AppArmor allows its agent"),
    (r"is denied", "the agent's user may not; see the file's permissions in the guest"),
    (r"another copy to", "copy again"),
)  # fmt: skip

_path: Final = re.compile(r"'(?:/|[A-Za-z]:\\)[^']*'")

_HINTS: Final = tuple((re.compile(pattern), hint) for pattern, hint in _TABLE)


def hint_for(message: str) -> str:
    """Advice for a message of a guest or its agent; empty where none is known."""
    message = _path.sub("''", message)  # what a file is named is no reason
    return next((hint for pattern, hint in _HINTS if pattern.search(message)), "")


def is_unknown_command(message: str) -> bool:
    """True if an agent says that it lacks a command, or has it switched off."""
    return hint_for(message) in (SWITCHED_OFF, FROZEN, TOO_OLD, BY_POLICY, OTHER_SYSTEM)
