"""The ways in which a call to a host fails.

Each says about which guest on which host, in the words of host or guest, and what to do next.

    CallFailed (in guestwire.errors: GuestwireError)
    ├── Unreachable               no connection
    │   └── CertificateNotTrusted a certificate that is not trusted; nothing was sent
    ├── LoginFailed               no credentials, or bad ones
    ├── PrivilegeMissing          a privilege is missing; `privileges` names those of which one would do
    ├── WrongParameters           `errors` by parameter
    ├── NoSuchEndpoint            the API has no such method and path
    ├── NoSuchGuest               no such VM
    ├── GuestStopped              the VM does not run
    ├── AgentUnavailable          the VM has no guest agent configured, or nothing answers
    ├── AgentTookTooLong          no answer in time; a command that changes the guest may still be executed
    ├── AgentRefused              the agent's own error; `error_class` and `description` as it sent them
    │   └── ErrorTextLost         Proxmox VE could not pass on what the agent said
    ├── NoStream                  the guest can't carry a stream, or has no terminal
    ├── StreamEnded               the stream of a program broke; `fate` is what became of the program
    ├── NotReady                  the agent does not answer within the time that was given
    ├── FreezeNotHeld             a freeze did not end as it should
    │   ├── StillFrozen           the file systems could not be thawed
    │   ├── FreezeLost            they were thawed before the end of the freeze
    │   └── FreezeUncertain       they are thawed, and whether the freeze held until then is not known
    ├── FileRefused               the guest can't read or write a file
    ├── ChecksumMismatch          the bytes that arrived are not those that were sent
    ├── LocalFile                 the file on this side can't be read or written
    ├── in host_tasks.py          TaskFailed, TaskRunning
    ├── in tcp_connections.py     ConnectionFailed
    └── in processes.py           ProcessFailed, StillRunning, ProcessEnded, OutcomeUnknown
    HostClosed (of a SyncHost)    it was closed, belongs to another process, or would wait for itself

The table `_MESSAGES` translates a server's messages; they are those of Proxmox VE, whichever server it is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

from guestwire.client.advice import SWITCHED_OFF, TOO_OLD, hint_for, is_unknown_command
from guestwire.errors import GuestwireError


@dataclass(frozen=True, slots=True)
class ErrorContext:
    """Which guest on which host a call is about; `guest` is empty for calls about none."""

    host: str
    guest: str = ""

    def __str__(self) -> str:
        return f"guest {self.guest} on {self.host}" if self.guest else self.host


class CallFailed(GuestwireError):
    """A call failed.

    Attributes:
        context: which guest on which host the call was about.
        message: in the words of the server or the guest.
        http_status: None without an answer.
        hint: for people, about what to do next; may be empty.
    """

    exit_code = 3
    default_hint: ClassVar[str] = ""
    is_of_host: ClassVar[bool] = True
    """False for a fault of this machine, which has nothing to do with the guest."""

    def __init__(self, context: ErrorContext, message: str, status: int | None = None, *, hint: str = "") -> None:
        self.context = context
        self.message = message
        self.http_status = status
        super().__init__()
        self.advise(hint or self.default_hint)

    def advise(self, hint: str) -> None:
        """Gives it this hint, and the words that go with it."""
        self.hint = hint
        where = f"{self.context}: " if self.is_of_host else ""
        # Proxmox VE shouts: "Authentication failed!"
        self.args = (f"{where}{self.message.rstrip('!')}; {hint}" if hint else f"{where}{self.message}",)


class HostClosed(GuestwireError):
    """The host can't be used (any more): it was closed, belongs to another process, or waits for itself."""


class Unreachable(CallFailed):
    """No answer from the host."""

    exit_code = 69
    default_hint = "check the address, and that the service runs"


class CertificateNotTrusted(Unreachable):
    """The host shows a certificate that is not trusted. Nothing was sent to it."""

    default_hint = "trust it by its CA (--ca, GUESTWIRE_CA) or its fingerprint (--fingerprint, GUESTWIRE_FINGERPRINT)"


class LoginFailed(CallFailed):
    """The host does not know these credentials."""

    exit_code = 5
    default_hint = "check the token or the password; a token is USER@REALM!NAME=SECRET"


class PrivilegeMissing(CallFailed):
    """The caller lacks a privilege."""

    exit_code = 6

    def __init__(self, context: ErrorContext, message: str, status: int | None = None, *, hint: str = "") -> None:
        found = re.search(r"\((?P<path>/[^,)]*), (?P<names>[\w.|]+)\)", message)
        self.path = found["path"] if found else ""
        self.privileges = tuple(dict.fromkeys(found["names"].split("|"))) if found else ()
        if self.privileges:
            hint = f"give the user or token a role with {' or '.join(self.privileges)} on {self.path}"
        super().__init__(context, message, status, hint=hint)


class WrongParameters(CallFailed):
    """The host refuses parameters; `errors` has a text for each."""

    exit_code = 2

    def __init__(
        self, context: ErrorContext, message: str, status: int | None = None, *, errors: Mapping[str, Any] | None = None
    ) -> None:
        self.errors = {str(name): str(text).strip() for name, text in (errors or {}).items()}
        detail = ", ".join(f"{name}: {text}" for name, text in self.errors.items())
        super().__init__(context, f"{message} {detail}".strip(), status)


class NoSuchEndpoint(CallFailed):
    """The API has no such method and path."""

    default_hint = "`guestwire api` lists those that there are"


class NoSuchGuest(CallFailed):
    """There is no such VM."""

    exit_code = 4
    default_hint = "`guestwire ls` lists those that there are"


class GuestStopped(CallFailed):
    """The VM does not run."""

    default_hint = "start the VM"


NO_AGENT_SOCKET: Final = (
    "check the path, that QEMU runs, that you may open it, that no other program holds it (QEMU serves one at a time), and"
    " that qemu-guest-agent runs in the guest"
)


class AgentUnavailable(CallFailed):
    """No guest agent to talk to."""

    default_hint = "install and start qemu-guest-agent in the guest, and give the VM an agent channel (on Proxmox VE: qm set VMID --agent 1)"


class AgentTookTooLong(CallFailed):
    """The agent did not answer in time."""

    default_hint = "the agent may be busy; a command that changes the guest may still be executed"


class AgentRefused(CallFailed):
    """The agent answered with an error."""

    def __init__(self, context: ErrorContext, error_class: str, description: str, status: int | None = None) -> None:
        self.error_class = error_class
        self.description = description
        super().__init__(
            context, description, status, hint=hint_for(description) or (SWITCHED_OFF if self.is_disabled else "")
        )

    @property
    def is_disabled(self) -> bool:
        """True if the agent does not have the command, or has it switched off."""
        return self.error_class == "CommandNotFound" or is_unknown_command(self.description)

    @property
    def is_too_old(self) -> bool:
        """True if newer agents have what this one lacks; of commands that Proxmox VE has, too, no agent says so."""
        return hint_for(self.description) == TOO_OLD


class ErrorTextLost(AgentRefused):
    """The agent answered with an error whose text Proxmox VE could not pass on (status 596).

    There was a quotation mark in it.
    """

    def __init__(self, context: ErrorContext, message: str, status: int | None = None) -> None:
        super().__init__(context, "GenericError", f"the agent refused it, and its words were lost ({message})", status)


def is_passing(error: CallFailed) -> bool:
    """True if connection or agent broke off: the same call may succeed a little later."""
    if isinstance(error, (Unreachable, AgentUnavailable, AgentTookTooLong)):
        return not isinstance(error, CertificateNotTrusted)
    return bool(_broken_off.search(error.message))


def is_no_such_file(error: CallFailed) -> bool:
    """True if the guest says so; that the agent's socket is not there is something else."""
    return isinstance(error, (AgentRefused, FileRefused)) and "no such file" in error.message.lower()


class NoStream(CallFailed):
    """The guest can't carry a stream, or has no terminal."""

    default_hint = "without one, a program's output comes when it has ended"


class StreamEnded(CallFailed):
    """The stream of a program in the guest broke; `fate` is what became of the program."""

    exit_code = 69

    def __init__(self, context: ErrorContext, message: str, fate: str) -> None:
        self.fate = fate
        super().__init__(context, message, hint=fate)


class NotReady(CallFailed):
    """The guest's agent did not answer in time."""

    exit_code = 124
    default_hint = "`guestwire doctor GUEST` finds out why"


class FreezeNotHeld(CallFailed):
    """A freeze did not end as it should."""

    exit_code = 7


class FreezeLost(FreezeNotHeld):
    """The file systems are thawed, and were so before the end of the freeze."""

    default_hint = "what was copied meanwhile may be inconsistent: freeze and take it again"


class FreezeUncertain(FreezeNotHeld):
    """The file systems are thawed; nothing says whether the freeze held until then."""

    default_hint = "what was copied meanwhile may be inconsistent, and they are thawed now: freeze and take it again"


class StillFrozen(FreezeNotHeld):
    """The guest's file systems could not be thawed."""

    default_hint = (
        "thaw them at once: guestwire thaw GUEST; as long as they are frozen, everything that writes in the guest waits"
    )


class FileRefused(CallFailed):
    """The guest can't read or write the file."""

    def __init__(self, context: ErrorContext, message: str) -> None:
        super().__init__(context, message, hint=hint_for(message))


class ChecksumMismatch(CallFailed):
    """The bytes that arrived are not those that were sent."""

    exit_code = 74


class LocalFile(CallFailed):
    """The file on this side can't be read or written."""

    exit_code = 74
    is_of_host = False


_broken_off = re.compile(r"qga command '.*' failed")
"""The message of a server whose agent was started again, or broke the protocol, during a command."""

_too_large = re.compile(r"^for data too large|[Ee]ntity [Tt]oo [Ll]arge|content length \d+ too")

LOCKED: Final = "the host is busy with another change of it: try again when that is done"

_AGENT_ERROR: Final = "Agent error: "

_MESSAGES: Final[tuple[tuple[re.Pattern[str], Callable[[ErrorContext, str, int | None], CallFailed]], ...]] = (
    (re.compile(r"Configuration file .* does not exist|no such VM|hostname lookup "), NoSuchGuest),
    (re.compile(r"can't lock file|got lock request timeout"), partial(CallFailed, hint=LOCKED)),
    (re.compile(r"no (?:stream|terminal) can be had: "), NoStream),
    (re.compile(r"VM \d+ is not running|VM is not running"), GuestStopped),
    (re.compile(r"No QEMU guest agent configured|QEMU guest agent is not running"), AgentUnavailable),
    (re.compile(r"got timeout|took longer than"), AgentTookTooLong),
)

_STATUSES: Final[Mapping[int, Callable[[ErrorContext, str, int | None], CallFailed]]] = {
    401: LoginFailed,
    403: PrivilegeMissing,
    501: NoSuchEndpoint,
    596: ErrorTextLost,
}


def failure(context: ErrorContext, status: int, message: str, errors: Mapping[str, Any] | None = None) -> CallFailed:
    """The error that a server's refusal means."""
    message = message.strip()
    if status == 413 or _too_large.search(message):  # noqa: PLR2004  # content too large
        return WrongParameters(context, f"the request is larger than the host takes ({message}); send less at once")
    if status in _STATUSES:
        return _STATUSES[status](context, message, status)
    if errors or status == 400:  # noqa: PLR2004  # bad request
        return WrongParameters(context, message, status, errors=errors)
    if message.startswith(_AGENT_ERROR):
        return AgentRefused(context, "GenericError", message.removeprefix(_AGENT_ERROR), status)
    made = next((make for pattern, make in _MESSAGES if pattern.search(message)), CallFailed)
    return made(context, message, status)
