"""Why a guest does not answer, found out step by step: address, TLS, credentials, VM, agent, privilege, commands."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final

from guestwire.client import errors
from guestwire.client.errors import FROZEN, NO_AGENT_SOCKET, AgentNotThere, AgentTookTooLong, CallFailed
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host

DISABLED: Final = (
    "in the guest, take them out of qemu-ga's --block-rpcs, or add them to its --allow-rpcs"
    " (/etc/sysconfig/qemu-ga, /etc/qemu/qemu-ga.conf or the service's unit), and start it again"
)
NOT_CONFIGURED: Final = "give the VM an agent channel (Proxmox VE: qm set VMID --agent 1; guestwire: agent = … in its [[vm]]), stop it and start it"
NOT_RUNNING: Final = "in the guest: install qemu-guest-agent, and systemctl enable --now qemu-guest-agent"
SILENT: Final = "its file systems may be frozen (guestwire freeze-status), its agent busy or stopped; in the guest: systemctl restart qemu-guest-agent"


@dataclass
class Examined:
    """What was found; `code` is the exit code."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    code: int = 0

    def add(self, step: str, found: str, *, result: str = "ok", todo: str | None = None) -> None:
        """One more step."""
        self.steps.append({"step": step, "result": result, "found": found, "next": todo})


async def examine(host: Host, name: str) -> Examined:
    """Examines one guest, by its VM's name or id; what fails is a step, not an exception."""
    examined = Examined()
    try:
        # An agent's own socket has nothing of a server.
        if on_server := not host.name.startswith("unix:"):
            await _server(host, examined)
        guest = await host.guest(name)
        await _agent(guest, examined, on_server=on_server)
    except CallFailed as error:
        await _failed(host, examined, error)
    return examined


async def _server(host: Host, examined: Examined) -> None:
    version = await host.version()
    _answers(host, examined)
    examined.add("tls", _tls(host))
    examined.add("credentials", "they are good")
    examined.add("server", f"{'guestwire' if 'guestwire' in version else 'Proxmox VE'} {version.get('version', '')}")


def _answers(host: Host, examined: Examined) -> None:
    examined.add("address", f"{host.name} answers")


def _tls(host: Host) -> str:
    return "the certificate is taken" if host.name.startswith("https:") else "none: the target is http"


async def _agent(guest: Guest, examined: Examined, *, on_server: bool) -> None:
    failed = await _failure(guest.ping())
    # A server looks whether the VM runs before it looks for its agent.
    if on_server and (failed is None or isinstance(failed, AgentNotThere | AgentTookTooLong)):
        examined.add("vm", f"VM {guest.vmid} on node {guest.node} is running")
    if failed:
        raise failed
    examined.add("agent", "it answers")
    info = await guest.info()
    examined.add("privilege", "you may ask it")
    disabled = sorted(command.name for command in info.supported_commands if not command.enabled)
    if disabled and await _is_frozen(guest):
        examined.add("commands", "only those for thawing are enabled", result="warning", todo=FROZEN)
    elif disabled:
        examined.add("commands", f"disabled in the guest: {', '.join(disabled)}", result="warning", todo=DISABLED)
    else:
        examined.add("commands", f"all {len(info.supported_commands)} of version {info.version} are enabled")


async def _is_frozen(guest: Guest) -> bool:
    try:
        return await guest.fsfreeze_status() == "frozen"
    except CallFailed:
        return False


async def _failure(call: Awaitable[object]) -> CallFailed | None:
    try:
        await call
    except CallFailed as error:
        return error
    return None


async def _failed(host: Host, examined: Examined, error: CallFailed) -> None:
    """The step that failed, and what stood before it and must have been well."""
    step, todo = _step(error), error.next
    if not examined.steps and step in ("tls", "credentials", "privilege"):
        _answers(host, examined)
        if step != "tls":
            examined.add("tls", _tls(host))
    if step == "tls":
        todo = f"{error.next}; {await _shown(host)}"
    elif step == "agent":
        todo = _of_agent(host, error)
    elif step == "command" and todo != FROZEN:
        todo = DISABLED
    examined.add(step, error.words, result="failed", todo=todo)
    examined.code = error.exit_code


def _step(error: CallFailed) -> str:
    steps = (
        (errors.NotTrusted, "tls"),
        (errors.Unreachable, "address"),
        (errors.LoginFailed, "credentials"),
        (errors.PrivilegeMissing, "privilege"),
        ((errors.NoSuchGuest, errors.GuestStopped), "vm"),
        ((errors.AgentNotThere, errors.AgentTookTooLong), "agent"),
        (errors.AgentRefused, "command"),
    )
    return next((step for kinds, step in steps if isinstance(error, kinds)), "server")


def _of_agent(host: Host, error: CallFailed) -> str:
    if isinstance(error, AgentTookTooLong):
        return SILENT
    if "configured" in error.words:
        return NOT_CONFIGURED
    return NO_AGENT_SOCKET if host.name.startswith("unix:") else NOT_RUNNING


async def _shown(host: Host) -> str:
    from guestwire.client.carriers.https import fingerprint_of  # noqa: PLC0415  # an agent's socket has no need of it
    from guestwire.client.targets import Https, parse_target  # noqa: PLC0415

    target = parse_target(host.name)
    assert isinstance(target, Https)  # noqa: S101  # nothing else has certificates
    try:
        return f"it shows {await fingerprint_of(target)}"
    except OSError as error:
        return f"its certificate can't be read: {error}"
