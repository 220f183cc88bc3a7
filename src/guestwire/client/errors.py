"""What a call to a host can end with: who, what, in whose words, and what to do next.

    CallFailed (in guestwire.errors: GuestwireError)
    ├── Unreachable           no connection
    │   └── NotTrusted        a certificate that is not trusted; nothing was sent
    ├── LoginFailed           no credentials, or bad ones
    ├── PrivilegeMissing      a privilege is missing; `privileges` names those of which one would do
    ├── WrongParameters       `errors` by parameter
    ├── NoSuchEndpoint        the API has no such method and path
    ├── NoSuchGuest           no such VM
    ├── GuestStopped          the VM does not run
    ├── AgentNotThere         the VM has no guest agent configured, or nothing answers
    ├── AgentTookTooLong      no answer in time; a command that changes the guest may still be executed
    └── AgentRefused          the agent's own error; `error_class` and `description` as it sent them
        └── WordsLost         Proxmox VE could not pass on what the agent said

The table `_WORDS` translates a server's words; they are Proxmox VE's, whichever server it is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from guestwire.errors import GuestwireError


@dataclass(frozen=True, slots=True)
class Place:
    """Which guest on which host a call is about; `guest` is empty for calls about none."""

    host: str
    guest: str = ""

    def __str__(self) -> str:
        return f"guest {self.guest} on {self.host}" if self.guest else self.host


class CallFailed(GuestwireError):
    """Base: `place`, `words` as the server said them, `answered` (HTTP status; None without an answer), `next` for people: what to do."""

    exit_code = 3
    advice: ClassVar[str] = ""

    def __init__(self, place: Place, words: str, status: int | None = None, *, advice: str = "") -> None:
        self.place = place
        self.words = words
        self.answered = status
        self.next = advice or self.advice
        super().__init__(f"{place}: {words}" + (f"; {self.next}" if self.next else ""))


class Unreachable(CallFailed):
    """No answer from the host."""

    exit_code = 69
    advice = "check the address, and that the service runs"


class NotTrusted(Unreachable):
    """The host shows a certificate that is not trusted. Nothing was sent to it."""

    advice = "trust it by its CA (--ca, GUESTWIRE_CA) or its fingerprint (--fingerprint, GUESTWIRE_FINGERPRINT)"


class LoginFailed(CallFailed):
    """The host does not know these credentials."""

    exit_code = 5
    advice = "check the token or the password; a token is USER@REALM!NAME=SECRET"


class PrivilegeMissing(CallFailed):
    """The caller lacks a privilege."""

    exit_code = 6

    def __init__(self, place: Place, words: str, status: int | None = None, *, advice: str = "") -> None:
        found = re.search(r"\((?P<path>/[^,)]*), (?P<names>[\w.|]+)\)", words)
        self.path = found["path"] if found else ""
        self.privileges = tuple(dict.fromkeys(found["names"].split("|"))) if found else ()
        if self.privileges:
            advice = f"give the user or token a role with {' or '.join(self.privileges)} on {self.path}"
        super().__init__(place, words, status, advice=advice)


class WrongParameters(CallFailed):
    """The host refuses parameters; `errors` has a text for each."""

    exit_code = 2

    def __init__(
        self, place: Place, words: str, status: int | None = None, *, errors: Mapping[str, Any] | None = None
    ) -> None:
        self.errors = {str(name): str(text).strip() for name, text in (errors or {}).items()}
        detail = ", ".join(f"{name}: {text}" for name, text in self.errors.items())
        super().__init__(place, f"{words} {detail}".strip(), status)


def no_nul(place: Place, *texts: str) -> None:
    """Checks what a guest takes for a text that ends at the first NUL.

    Raises:
        WrongParameters: there is one in it.
    """
    for text in texts:
        if "\0" in text:
            raise WrongParameters(place, "there is a NUL in an argument, a variable or a path")


class NoSuchEndpoint(CallFailed):
    """The API has no such method and path."""

    advice = "`guestwire api` lists those that there are"


class NoSuchGuest(CallFailed):
    """There is no such VM."""

    exit_code = 4
    advice = "`guestwire ls` lists those that there are"


class GuestStopped(CallFailed):
    """The VM does not run."""

    advice = "start it"


NO_AGENT_SOCKET: Final = (
    "check the path, that QEMU runs, that you may open it, and that qemu-guest-agent runs in the guest"
)


class AgentNotThere(CallFailed):
    """No guest agent to talk to."""

    advice = "install and start qemu-guest-agent in the guest, and give the VM an agent channel (on Proxmox VE: qm set VMID --agent 1)"


class AgentTookTooLong(CallFailed):
    """The agent did not answer in time."""

    advice = "the agent may be busy; a command that changes the guest may still be executed"


class AgentRefused(CallFailed):
    """The agent answered with an error."""

    def __init__(self, place: Place, error_class: str, description: str, status: int | None = None) -> None:
        self.error_class = error_class
        self.description = description
        super().__init__(
            place, description, status, advice=advice_for(description) or (SWITCHED_OFF if self.is_disabled else "")
        )

    @property
    def is_disabled(self) -> bool:
        """Whether the agent does not have the command, or has it switched off."""
        said = self.description
        missing = self.error_class == "CommandNotFound" or "has been disabled" in said or "not found" in said
        return missing and "command" in said.lower()


class WordsLost(AgentRefused):
    """The agent answered with an error whose words Proxmox VE could not pass on (status 596): there was a quotation mark in them."""

    def __init__(self, place: Place, words: str, status: int | None = None) -> None:
        super().__init__(place, "GenericError", f"the agent refused it, and its words were lost ({words})", status)


SWITCHED_OFF: Final = "the command is switched off in the guest, or its agent does not know it: see --allow-rpcs and --block-rpcs of qemu-ga"

FROZEN: Final = "its file systems are frozen, for a snapshot or backup; when that is done: `guestwire thaw GUEST`"

_NEXT: Final = (
    ("agent is in frozen state", FROZEN),
    ("Failed to execute child process", "check the program's name in the guest, or give its path; no shell is between"),
    ("No space left", "make room in the guest (`guestwire df GUEST` shows where), then copy again"),
    ("not enough space", "make room in the guest, then copy again"),
    ("quota", "make room in the guest, then copy again"),
    ("Read-only file system", "choose another folder, or mount it writable in the guest"),
    ("No such file or directory", "`guestwire ls GUEST:FOLDER` shows what is there"),
    ("can't cd to", "`guestwire ls GUEST:FOLDER` shows what is there"),
    ("ermission denied", "the agent's user may not; see what the guest's SELinux or AppArmor allows its agent"),
    ("is denied", "the agent's user may not; see the file's permissions in the guest"),
    ("Could not find", "`guestwire ls GUEST:FOLDER` shows what is there"),
    ("s a directory", "name a file in it, or copy it with -r"),
    ("no regular file", "name a regular file"),
    ("another copy", "copy again"),
    ("Invalid parameter 'pid'", "it is no process that was started by this agent, or its end was told before"),
    ("PID ", "it is no process that was started by this agent, or its end was told before"),
)
"""What to do when a guest's words have this in them."""


def advice_for(words: str) -> str:
    """What to do about a guest's own words; empty where nobody knows."""
    return next((then for when, then in _NEXT if when in words), "")


_AGENT_ERROR: Final = "Agent error: "

_WORDS: Final[tuple[tuple[re.Pattern[str], Callable[[Place, str, int | None], CallFailed]], ...]] = (
    (re.compile(r"Configuration file .* does not exist|no such VM|hostname lookup "), NoSuchGuest),
    (re.compile(r"VM \d+ is not running|VM is not running"), GuestStopped),
    (re.compile(r"No QEMU guest agent configured|QEMU guest agent is not running"), AgentNotThere),
    (re.compile(r"got timeout|took longer than"), AgentTookTooLong),
)

_STATUSES: Final[Mapping[int, Callable[[Place, str, int | None], CallFailed]]] = {
    401: LoginFailed,
    403: PrivilegeMissing,
    501: NoSuchEndpoint,
    596: WordsLost,
}


def failure(place: Place, status: int, words: str, errors: Mapping[str, Any] | None = None) -> CallFailed:
    """The error that a server's refusal means."""
    words = words.strip()
    if status in _STATUSES:
        return _STATUSES[status](place, words, status)
    if errors or status == 400:  # noqa: PLR2004  # bad request
        return WrongParameters(place, words, status, errors=errors)
    if words.startswith(_AGENT_ERROR):
        return AgentRefused(place, "GenericError", words.removeprefix(_AGENT_ERROR), status)
    made = next((make for pattern, make in _WORDS if pattern.search(words)), CallFailed)
    return made(place, words, status)
