"""Every exception of guestwire, in one tree.

    GuestwireError
    ├── ConfigurationError      the configuration file can't be used
    ├── ProtocolError           bytes that break the guest agent protocol
    ├── GuestError              a call into a guest failed
    │   ├── VmNotFound          no such VM on this node
    │   ├── VmNotRunning        the VM is known and stopped
    │   ├── AgentNotConfigured  the VM has no guest agent channel
    │   ├── AgentNotRunning     nothing answers on the channel
    │   ├── CommandFailed       the channel lost the command, or its time was up
    │   │   └── CommandTimeout
    │   └── AgentError          the agent answered with an error
    ├── RequestError            the request itself is refused
    │   ├── NotAuthenticated    no credentials, or bad ones
    │   ├── Forbidden           the subject lacks the privilege
    │   ├── NotImplementedHere  no such method and path
    │   ├── UnknownNode         the path names another node
    │   └── InvalidParameters   one text for each parameter that is wrong
    └── GuestImageError         the small guest can't be built or booted

Each knows the HTTP status it means (`status`) and the exit code of a command line that ends with it (`exit_code`).
"""

from collections.abc import Mapping
from typing import ClassVar


class GuestwireError(Exception):
    """Base of all. `str(error)` is one sentence for people: what happened, to which guest, and where it helps, what to do."""

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1


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


class RequestError(GuestwireError):
    """The request is refused before anything reaches a guest."""

    status = 400
    exit_code = 2


class NotAuthenticated(RequestError):
    """No credentials, or bad ones; the text is the reason phrase."""

    status = 401
    exit_code = 5


class Forbidden(RequestError):
    """The failed check, as Proxmox VE shows it: path and privileges, any of which would do."""

    status = 403
    exit_code = 5

    def __init__(self, path: str, privileges: tuple[str, ...]) -> None:
        self.path = path
        self.privileges = privileges
        super().__init__(f"Permission check failed ({path}, {'|'.join(privileges)})")


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


class GuestImageError(GuestwireError):
    """The small guest can't be built or booted; the text says what is missing and how to get it."""

    exit_code = 69
