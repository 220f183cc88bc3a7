"""Every exception of guestwire, in one tree.

    GuestwireError
    ├── ConfigurationError      the configuration file can't be used
    ├── ProtocolError           bytes that break the guest agent protocol
    ├── GuestError              a call into a guest failed
    │   ├── VmNotFound          no such VM on this node
    │   ├── VmNotRunning        the VM is known and stopped
    │   ├── MonitorError        QEMU itself refused a command, or did not answer
    │   ├── AgentNotConfigured  the VM has no guest agent channel
    │   ├── AgentNotRunning     nothing answers on the channel
    │   ├── CommandFailed       the channel lost the command, or its time was up
    │   │   ├── CommandTimeout
    │   │   └── UnexpectedAnswer
    │   ├── StreamBroken        the stream of a program does not go on
    │   └── AgentError          the agent answered with an error
    ├── RequestError            the request itself is refused
    │   ├── NotAuthenticated    no credentials, or bad ones
    │   ├── Forbidden           the subject lacks the privilege
    │   ├── NotImplementedHere  no such method and path
    │   ├── UnknownNode         the path names another node
    │   ├── InvalidParameters   one text for each parameter that is wrong
    │   ├── AccessRefused       users, groups, roles, ACLs or pools can't be changed so
    │   └── BuiltInRole         a built-in role can't be changed
    ├── StoreError              the store of users and access can't do it
    │   ├── StoreRefused        the change would leave something that can't be
    │   ├── StoreConflict       somebody else was faster
    │   ├── StoreBusy           no answer in time
    │   ├── StoreDamaged        its file is broken
    │   └── StoreTooNew         its file is of a newer guestwire
    └── GuestImageError         the small guest can't be built or booted

Each knows the HTTP status it means (`status`) and the exit code of a command line that ends with it (`exit_code`).
"""

from collections.abc import Mapping
from typing import ClassVar, Final

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as shells have it."""


class GuestwireError(Exception):
    """Base of all.

    `str(error)` is one sentence for people: what happened, to which guest, and where it helps, what to do.
    """

    status: ClassVar[int] = 500
    exit_code: int = 1


class ConfigurationError(GuestwireError):
    """The configuration file is missing, unreadable or says something unknown; the text names file, line and key."""

    exit_code = 78


class ProtocolError(GuestwireError):
    """The agent sent what the protocol does not allow: too long, too deep, no JSON, an unknown id."""


class GuestError(GuestwireError):
    """A call into a guest failed; the guest or its agent is the reason, not the request."""

    exit_code = 3


class VmNotFound(GuestError):
    """Worded as Proxmox VE words it, where a VM is a configuration file.

    Source: every agent endpoint of Proxmox VE for a VM that does not exist.
    """

    exit_code = 4

    def __init__(self, vmid: int, node: str) -> None:
        self.vmid = vmid
        self.node = node
        super().__init__(f"Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist")


class VmNotRunning(GuestError):
    """The VM is stopped."""

    def __init__(self, vmid: int) -> None:
        self.vmid = vmid
        super().__init__(f"VM {vmid} is not running")


class MonitorError(GuestError):
    """QEMU itself, at the VM's QMP socket, refused a command or did not answer; `why` is in its words where it did."""

    def __init__(self, guest: str, command: str, why: str, *, is_refusal: bool = False) -> None:
        self.guest = guest
        self.is_refusal = is_refusal
        self.command = command
        self.why = why
        super().__init__(f"{guest} qmp command '{command}' failed - {why}")


class AgentNotConfigured(GuestError):
    """The VM has no `agent` in the configuration."""

    def __init__(self, vmid: int) -> None:
        self.vmid = vmid
        super().__init__("No QEMU guest agent configured")


class AgentNotRunning(GuestError):
    """Nothing answers on the VM's channel: no socket, no listener, or silence.

    `why` tells which, for logs; the text is the one that clients of Proxmox VE wait for.
    """

    def __init__(self, guest: str, why: str) -> None:
        self.guest = guest
        self.why = why
        super().__init__("QEMU guest agent is not running")


class CommandFailed(GuestError):
    """The command was sent (or waited to be) and its reply is lost."""

    def __init__(self, guest: str, command: str, why: str) -> None:
        self.guest = guest
        self.command = command
        self.why = why
        super().__init__(f"{guest} qga command '{command}' failed - {why}")


class UnexpectedAnswer(CommandFailed):
    """The agent answered, with what is no answer to this command."""

    def __init__(self, guest: str, command: str, why: str) -> None:
        super().__init__(guest, command, f"unexpected answer: {why}")


class CommandTimeout(CommandFailed):
    """The agent did not answer in time. A command that changes the guest may still be executed."""

    def __init__(self, guest: str, command: str) -> None:
        super().__init__(guest, command, "got timeout")


class AgentError(GuestError):
    """The agent answered with an error: `error_class` and `description` as it sent them."""

    def __init__(self, error_class: str, description: str) -> None:
        self.error_class = error_class
        self.description = description
        super().__init__(f"Agent error: {description}")


class StreamBroken(GuestError):
    """The stream of a program in a guest does not go on; `why` says what happened, `pid` which program it is, and `fate` what became of it."""

    def __init__(self, guest: str, pid: int, why: str, fate: str) -> None:
        self.why = why
        self.pid = pid
        self.fate = fate
        super().__init__(f"{guest}: the stream of process {pid} broke: {why}; {fate}")


class RequestError(GuestwireError):
    """The request is refused before anything reaches a guest."""

    status = 400
    exit_code = 2


class NotAuthenticated(RequestError):
    """No credentials, or bad ones; the text is the reason phrase."""

    status = 401
    exit_code = 5


class Forbidden(RequestError):
    """The failed check, as Proxmox VE shows it: path and privileges, any of which would do; or other words; or no detail."""

    status = 403
    exit_code = 6

    def __init__(self, path: str = "", privileges: tuple[str, ...] = (), *, why: str = "") -> None:
        self.path = path
        self.privileges = privileges
        detail = why or ", ".join(filter(None, (path, "|".join(privileges))))
        super().__init__(f"Permission check failed ({detail})" if detail else "Permission check failed")


class NotImplementedHere(RequestError):
    """There is no endpoint with this method and path."""

    status = 501

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path
        super().__init__(f"Method '{method} {path}' not implemented")


class UnknownNode(RequestError):
    """The path names a node that is not this one."""

    status = 500

    def __init__(self, node: str) -> None:
        self.node = node
        super().__init__(f"hostname lookup '{node}' failed - no such node here")


class InvalidParameters(RequestError):
    """`errors` maps a parameter's name to what is wrong with it."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        self.errors = dict(errors)
        super().__init__("Parameter verification failed.")


class AccessRefused(RequestError):
    """Users, groups, roles, ACLs or pools can't be changed so; in the words of Proxmox VE."""

    status = 500


class BuiltInRole(RequestError):
    """Worded as Proxmox VE words it; `what` is "modified" or "deleted"."""

    status = 500

    def __init__(self, roleid: str, what: str) -> None:
        self.roleid = roleid
        super().__init__(f"auto-generated role '{roleid}' cannot be {what}")


class StoreError(GuestwireError):
    """The store of users and access can't be read or written; the text names it and says why."""

    exit_code = 74


class StoreRefused(StoreError):
    """The change would leave something that can't be: a member who is no user, a VM in two pools.

    Nothing was changed.
    """

    status = 400
    exit_code = 2


class StoreConflict(StoreError):
    """The store changed since version `expected` was read; it is at version `found`. Nothing was changed."""

    status = 409
    exit_code = 75

    def __init__(self, expected: int, found: int) -> None:
        self.expected = expected
        self.found = found
        super().__init__(
            f"users or access were changed meanwhile (version {expected} was read, {found} is there); look at them, and try again"
        )


class StoreBusy(StoreError):
    """The store did not answer in time. A change that was under way may still be made: look before you try again."""

    status = 503
    exit_code = 75


class StoreDamaged(StoreError):
    """The store's file is broken, or no store at all."""

    exit_code = 65

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        super().__init__(
            f"{path}: {why}; with the server stopped, put a backup in its place: guestwire access restore BACKUP"
        )


class StoreTooNew(StoreError):
    """The store's file was written by a newer guestwire; it was not changed."""

    exit_code = 78

    def __init__(self, path: str, found: int, known: int) -> None:
        self.path = path
        self.found = found
        self.known = known
        super().__init__(
            f"{path}: store format {found} is of a newer guestwire, this one knows up to {known}; nothing was changed; install the newer one"
        )


class GuestImageError(GuestwireError):
    """The small guest can't be built or booted; the text says what is missing and how to get it."""

    exit_code = 69
